"""Small networks to export, and what they give."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.data import preprocessing
from dmfer_jax.data.augment import normalize
from dmfer_jax.models import face_resnet, resnet
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.weights.sealing import Manifest
from tests.models.variables import draw_variables

LABELS = ("happy", "sad", "traurig, \u00e4u\u00dferst")
SIZE = 48
SMALL: dict[str, Any] = {"width": 0.125, "embedding": 16, "heads": 2, "shallow_stage": 1}


def have_few_blocks(patch: pytest.MonkeyPatch) -> None:
    """Leaves backbones three stages of a block each."""
    for name in resnet.BACKBONES:
        patch.setitem(resnet.BACKBONES[name], "blocks", (1, 1, 1))
    patch.setattr(face_resnet, "BLOCKS", (1, 1, 1))


def make(options: dict[str, Any], channels: int = 1) -> tuple[Manifest, Any]:
    """Returns the manifest and random weights of a network."""
    options = {"learned_centers": False, **SMALL, **options}
    model = Dmfer(len(LABELS), **options)
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, channels), jnp.float32)
    variables = draw_variables(model, images)
    manifest = Manifest(
        labels=LABELS,
        image_size=SIZE,
        channels=channels,
        preprocessing=preprocessing.describe(SIZE, channels),
        model=options,
        training={"dataset": "folder/mine", "epoch": 1.5},
        scores=None,
        code_version="0.1.0",
        licence="CC-BY-4.0",
    )
    # Of the size that training leaves: probabilities of 0 and 1 would agree whatever is computed.
    head = variables["params"]["head"]
    head["kernel"] = head["kernel"] * np.float32(0.02)
    return manifest, variables


def draw_images(channels: int = 1, count: int = 3) -> np.ndarray:
    """Returns images, uint8 `[n, h, w, c]`."""
    shape = (count, SIZE, SIZE, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def predict(manifest: Manifest, variables: Any, images: np.ndarray) -> tuple[Any, Any]:
    """Returns probabilities and embedding, of the network as it was trained."""
    model = Dmfer(len(manifest.labels), **manifest.model)
    outputs: Any = jax.jit(lambda images: model.apply(variables, normalize(images)))(images)
    return np.asarray(jax.nn.softmax(outputs.logits)), np.asarray(outputs.embedding)


def check_same(found: Any, expected: Any) -> None:
    """Checks predictions, embeddings relative to their largest value."""
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    scale = np.abs(expected[1]).max()
    np.testing.assert_allclose(found[1] / scale, expected[1] / scale, atol=1e-5)
    assert np.ptp(expected[0]) > 0.01
