"""Photos in, expressions out: one by one, many at once, and from many threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dmfer_jax import expression_model
from dmfer_jax.data.images import decode_image
from dmfer_jax.errors import UserError
from dmfer_jax.expression_model import ExpressionModel, Face
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.photos import Pixels
from dmfer_jax.predictor import Predictor
from dmfer_jax.tracking import SMOOTHING_SECONDS, Tracks
from tests.models.variables import draw_variables

ASTRONAUT = Path(__file__).parent / "stored" / "astronaut.jpg"
NAMES = ("happy", "sad", "angry")


def make_model(channels: int, size: int = 16) -> ExpressionModel:
    """Random weights of a tiny network."""
    network = Dmfer(
        3, stem="small", stem_stride=2, width=0.125, embedding=16, scales="deep", attention="none"
    )
    variables: Any = draw_variables(
        network, jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    )
    predictor = Predictor(network, variables, size, channels, NAMES, buckets=(4,), fold=False)
    return ExpressionModel(predictor)


@pytest.fixture(scope="module")
def model() -> ExpressionModel:
    return make_model(1)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(ASTRONAUT).convert("RGB"))


def test_a_face_has_a_label_probabilities_a_place_and_an_embedding(model, photo):
    (face,) = model(photo)
    assert tuple(face.probabilities) == NAMES
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert face.probabilities[face.expression] == max(face.probabilities.values())
    left, top, right, bottom = face.box
    assert 0 < left < right < 200
    assert 0 < top < bottom < 220
    assert face.landmarks.shape == (5, 2)
    assert face.embedding.shape == (16,)
    assert face.score > 0.8
    assert "embedding" not in repr(face)


def test_a_file_and_its_pixels_are_the_same_photo(model, photo):
    (expected,) = model(photo)
    for form in (ASTRONAUT, str(ASTRONAUT), ASTRONAUT.read_bytes(), Image.open(ASTRONAUT)):
        assert model(form)[0].probabilities == expected.probabilities


def test_places_in_a_photo_that_is_decoded_smaller_are_those_of_the_whole(
    model, photo, monkeypatch
):
    (face,) = model(photo)
    monkeypatch.setattr(expression_model, "read_photo", lambda given: Pixels(given, 2.0, ""))
    looked = model.look(photo)
    (found,) = looked.found
    np.testing.assert_allclose(found.box, 2 * np.array(face.box), rtol=1e-6)
    np.testing.assert_allclose(found.landmarks, 2 * face.landmarks, rtol=1e-6)
    assert (looked.width, looked.height) == (400, 440)
    monkeypatch.undo()
    before = model.look(photo)
    np.testing.assert_array_equal(looked.crops, before.crops)
    x, y, side, roll = before.found[0].frame
    np.testing.assert_allclose(found.frame, (2 * x, 2 * y, 2 * side, roll), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_is_given_to_the_network_as_a_datasets_image_is(channels, photo):
    model = make_model(channels)
    (face,) = model(ASTRONAUT, aligned=True)
    decoded = decode_image(ASTRONAUT.read_bytes(), 16, channels)
    expected = model.predictor(decoded[None])
    np.testing.assert_allclose(list(face.probabilities.values()), expected.probabilities[0])
    assert face.box == (0, 0, 200, 220)
    assert face.landmarks is None
    assert face.score is None


def test_many_photos_are_told_in_their_order_and_a_broken_one_stops_nothing(model, photo):
    nothing = np.zeros((50, 60, 3), np.uint8)
    photos = [photo, b"", nothing, np.hstack([photo, photo]), "no/such.jpg"] * 3
    found = list(model.stream(photos, batch=4))
    assert [len(one.faces) for one in found] == [1, 0, 0, 2, 0] * 3
    assert [bool(one.error) for one in found] == [False, True, False, False, True] * 3
    assert "no/such.jpg cannot be read" in found[4].error
    assert (found[2].width, found[2].height) == (60, 50)
    alone = model(photo)[0].probabilities
    for one in found[::5]:
        assert one.faces[0].probabilities == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    "photo",
    ["photo.jpg", b"bytes", ASTRONAUT, np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8)],
)
def test_one_photo_is_no_list_of_photos(model, photo):
    with pytest.raises(UserError, match="stream takes a list of photos"):
        next(model.stream(photo))


def test_faces_can_be_told_apart_and_counted(model, photo):
    (face,) = model(photo)
    assert face in {face}
    assert face not in model(photo)


def test_photos_are_taken_no_further_ahead_than_a_few(model):
    taken = 0

    def photos():
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield np.zeros((20, 20, 3), np.uint8)

    stream = model.stream(photos(), batch=4)
    next(stream)
    assert taken < 20
    stream.close()


def test_threads_are_told_what_one_call_is(model, photo):
    photos = [photo, photo[:, ::-1], np.zeros((9, 9, 3), np.uint8)] * 3
    expected = [[face.probabilities for face in model(one)] for one in photos]
    with ThreadPoolExecutor(4) as threads:
        found = [[face.probabilities for face in faces] for faces in threads.map(model, photos)]
    assert found == expected


def test_unreadable_photo_is_an_error_of_the_users(model):
    with pytest.raises(UserError, match="is empty"):
        model(b"")


def make_face(left: float, happy: float) -> Face:
    probabilities = {"happy": happy, "sad": 1 - happy}
    expression = max(probabilities, key=lambda name: probabilities[name])
    box = (left, 0.0, left + 10, 10.0)
    return Face(expression, probabilities, box, None, None, np.zeros(1, np.float32))


def test_a_face_keeps_its_track_beside_others_and_after_a_gap():
    tracks = Tracks()
    assert [one.track for one in tracks.follow([make_face(0, 1), make_face(50, 1)], 0.0)] == [1, 2]
    assert [one.track for one in tracks.follow([make_face(48, 1), make_face(2, 1)], 0.1)] == [2, 1]
    assert [one.track for one in tracks.follow([make_face(5, 1)], 0.2)] == [1]
    assert [one.track for one in tracks.follow([make_face(50, 1)], 1.0)] == [2]  # after 0.9 s
    assert [one.track for one in tracks.follow([make_face(50, 1)], 2.5)] == [3]  # after 1.5 s


def test_boxes_that_share_too_little_are_two_faces():
    tracks = Tracks()
    tracks.follow([make_face(0, 1)], 0.0)
    # 4 of 10 pixels are 40 of the 160 that both cover: 0.25
    assert tracks.follow([make_face(6, 1)], 0.1)[0].track == 2


def test_smoothing_forgets_by_the_time_and_not_by_the_frame():
    ends = []
    for frames in (1, 10):
        tracks = Tracks()
        followed = tracks.follow([make_face(0, 1.0)], 0.0)
        for frame in range(1, frames + 1):
            seconds = SMOOTHING_SECONDS * frame / frames
            followed = tracks.follow([make_face(0, 0.0)], seconds)
        ends.append(followed[0].face.probabilities["happy"])
        assert followed[0].face.expression == "sad"
    assert ends == pytest.approx([np.exp(-1)] * 2)
