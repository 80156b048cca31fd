"""A network with BatchNorm folded into its convolutions is the same function, and has none."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.folding import fold_batch_norm
from dmfer_jax.models import resnet
from dmfer_jax.models.dmfer import Dmfer
from tests.models.variables import draw_variables

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.float32)


@pytest.fixture(autouse=True)
def _one_block_a_stage(monkeypatch):
    for name in ("resnet18", "resnet50"):
        monkeypatch.setitem(resnet.BACKBONES[name], "blocks", (1, 1))


def tiny(**changes: Any) -> Dmfer:
    options: dict[str, Any] = {
        "stem": "small",
        "width": 0.125,
        "embedding": 16,
        "heads": 2,
        "shallow_stage": 1,
    }
    return Dmfer(7, **{**options, **changes})


VARIANTS = [
    {"stem": "imagenet", "scales": "deep"},
    {"backbone": "resnet50", "scales": "shallow", "attention": "squeeze_excite"},
    {"attention": "none", "learned_centers": True, "attentive": True, "flip_average": True},
    {"depthwise": True, "compress": "top", "stem_stride": 2, "cosine_scale": 64.0},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_folded_network_computes_the_same(changes):
    model = tiny(**changes)
    variables = draw_variables(model, IMAGES)
    folded, folded_variables = fold_batch_norm(model, variables)
    images = np.random.default_rng(0).uniform(-1, 1, IMAGES.shape).astype(np.float32)
    both: Any = jax.jit(lambda *v: (model.apply(v[0], images), folded.apply(v[1], images)))
    for whole, short in zip(*both(variables, folded_variables), strict=True):
        if whole is not None:  # centers that are not learned
            scale = np.abs(whole).max()
            np.testing.assert_allclose(short / scale, whole / scale, atol=1e-5)


def test_folding_by_hand():
    # One channel in, two out: g = scale / sqrt(var + 1e-5) is 2 / 0.5 = 4 and 3 / 1 = 3.
    layer: Any = {
        "params": {
            "stem": {
                "conv": {"kernel": np.array([1.0, -2.0], np.float32).reshape(1, 1, 1, 2)},
                "norm": {"scale": np.array([2.0, 3.0]), "bias": np.array([1.0, 0.0])},
            }
        },
        "batch_stats": {
            "stem": {"norm": {"mean": np.array([0.5, -1.0]), "var": np.array([0.25, 1]) - 1e-5}}
        },
    }
    _, folded = fold_batch_norm(tiny(), layer)
    conv = folded["params"]["stem"].pop("conv")
    assert folded == {"params": {"stem": {}}}
    np.testing.assert_allclose(conv["kernel"].ravel(), [4, -6], rtol=1e-6)
    np.testing.assert_allclose(conv["bias"], [1 - 4 * 0.5, 0 + 3 * 1], rtol=1e-6)
    assert {leaf.dtype for leaf in conv.values()} == {np.dtype(np.float32)}


def test_folded_variables_are_those_that_the_folded_network_has():
    folded, variables = fold_batch_norm(tiny(), draw_variables(tiny(), IMAGES))
    expected = jax.eval_shape(functools.partial(folded.init, jax.random.key(0)), IMAGES)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)


def test_a_folded_network_is_neither_trained_nor_folded_again():
    folded, variables = fold_batch_norm(tiny(), draw_variables(tiny(), IMAGES))
    with pytest.raises(ValueError, match="no BatchNorm left to train"):
        folded.apply(variables, np.zeros(IMAGES.shape, np.float32), train=True)
    with pytest.raises(UserError, match="folded already"):
        fold_batch_norm(folded, variables)


def test_missing_statistics_are_named():
    variables = draw_variables(tiny(), IMAGES)
    with pytest.raises(UserError, match='have "params" and lack "batch_stats"'):
        fold_batch_norm(tiny(), {"params": variables["params"]})
    del variables["batch_stats"]["backbone"]["stem"]["norm"]["var"]
    with pytest.raises(UserError, match="lack backbone/stem/norm/var"):
        fold_batch_norm(tiny(), variables)
