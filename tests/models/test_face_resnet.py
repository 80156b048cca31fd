"""The face recognition network: its shapes, and its numbers beside the original's."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import config as configs
from dmfer_jax import run
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.face_resnet import FaceResNet
from dmfer_jax.weights.face import FACE_WEIGHTS, translate
from dmfer_jax.weights.pytorch import from_state_dict
from dmfer_jax.weights.reading import read_weights
from tests.models.variables import draw_variables

STORED = Path(__file__).parents[1] / "stored" / "face_network.json"


def wave() -> np.ndarray:
    """The picture `[1, 112, 112, 3]`, in 0 to 255, that the stored features are of."""
    row, column, channel = np.ogrid[:112, :112, :3]
    first = np.sin((row * (channel + 1) + 2 * column) / 9)
    second = np.cos((row - column * (channel + 1)) / 23)
    return np.floor(128 + 100 * first * second)[None]


def test_every_stage_gives_the_features_of_the_original():
    """They are of TensorFlow.js, by the layers of `@vladmandic/face-api` on the same weights."""
    variables = from_state_dict(translate(read_weights(FACE_WEIGHTS))[0])
    backbone: Any = {name: tree["backbone"] for name, tree in variables.items()}
    images = jnp.asarray(wave() / 127.5 - 1, jnp.float32)
    stages = jax.jit(lambda x: FaceResNet().apply(backbone, x, False))(images)
    stored = json.loads(STORED.read_text())
    assert len(stored) == len(stages)
    for name, features in zip(stored, stages, strict=True):
        features, expected = np.asarray(features), stored[name]
        assert list(features.shape) == expected["shape"]
        values = features.ravel()[np.arange(40) * 7919 % features.size]
        np.testing.assert_allclose(values, expected["values"], atol=2e-4)
        np.testing.assert_allclose(features.mean(), expected["mean"], rtol=1e-4)


@pytest.mark.parametrize("size", [112, 96, 80, 75, 64])
def test_both_scales_lie_on_one_grid_whichever_way_halves_are_rounded(size):
    image = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    model = Dmfer(8, backbone="face_resnet", width=0.25, embedding=8, heads=2)
    outputs: Any = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert outputs.logits.shape == (2, 8)


@pytest.mark.usefixtures("convolve_as_users_do")
def test_smallest_size_that_a_run_takes_has_a_gradient(tmp_path):
    config = configs.get_config()
    config.model.backbone, config.data.image_size = "face_resnet", 55
    run.check_image_size(config)
    config.data.image_size = 54
    with pytest.raises(UserError, match="image_size is 54; face_resnet needs 55"):
        run.start_run(config, tmp_path, tmp_path)
    model = FaceResNet(width=0.25)
    image = jax.ShapeDtypeStruct((1, 55, 55, 1), jnp.float32)
    variables = draw_variables(model, image, train=False)

    def loss(params: Any, images: jax.Array) -> jax.Array:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        last: Any = model.apply(given, images, False)
        return jnp.sum(last[-1] ** 2)

    gradient = jax.grad(loss)(variables["params"], jnp.full(image.shape, 0.3))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["stage4_block3"]["conv1"]["conv"]))


def test_frozen_stages_get_no_gradient_and_keep_their_statistics():
    model = FaceResNet(width=0.25, frozen_stages=2)
    images = jnp.asarray(wave()[:, :64, :64], jnp.float32) / 127.5 - 1
    variables = draw_variables(model, jax.ShapeDtypeStruct(images.shape, images.dtype), train=False)

    def loss(params: Any) -> Any:
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        stages, changed = model.apply(given, images, True, mutable=["batch_stats"])
        return stages[-1].sum(), changed["batch_stats"]

    gradient, stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for name, branch in gradient.items():
        frozen = name == "stem" or name.startswith(("stage1", "stage2"))
        assert any(np.any(leaf) for leaf in jax.tree.leaves(branch)) == (not frozen), name
        same = jax.tree.map(np.array_equal, stats[name], variables["batch_stats"][name])
        assert all(jax.tree.leaves(same)) == frozen, name
