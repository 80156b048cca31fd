"""What a face is explained by: its own maps, the right way round."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dmfer_jax.explaining import grad_cam
from dmfer_jax.faces import FRAME_LANDMARKS, LANDMARKS
from dmfer_jax.serving import service as services
from tests.serving.tiny_server import make_service, two_faces


def test_maps_are_those_of_the_face_asked_for():
    service = make_service(size=64)
    crops = service._model.look(two_faces()).crops
    assert len(crops) == 2
    assert not np.array_equal(*crops)
    labels = service._model.predictor(crops).probabilities.argmax(axis=1)
    model, variables = service._network
    stages = grad_cam.stages_of_maps(model)
    for number in (1, 2):
        index = number - 1
        found = grad_cam.explain_faces(model, variables, crops[[index]], labels[[index]])
        answer = service.explain(two_faces(), number)
        assert answer["expression"] == service._model.class_names[labels[index]]
        for scale, heats in found.maps.items():
            laid = grad_cam.lay_over_image(heats[0], model, stages[scale], crops.shape[1])
            png = Image.open(io.BytesIO(base64.b64decode(answer["maps"][scale]["png"])))
            assert laid.max() > 0
            assert not np.allclose(laid, laid.T)
            expected = 255 * laid / laid.max()
            np.testing.assert_allclose(np.asarray(png), expected, atol=0.51)


@pytest.mark.parametrize("index", range(len(LANDMARKS)))
def test_a_peak_is_named_after_the_landmark_that_it_is_at(index):
    column, row = (64 * np.asarray(FRAME_LANDMARKS[index])).astype(int)
    laid = np.zeros((64, 64))
    laid[row, column] = 1
    assert services._name_peak(laid) == LANDMARKS[index]
    assert services._name_peak(0 * laid) is None
