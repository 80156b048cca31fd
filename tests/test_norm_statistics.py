"""BatchNorms that are given the statistics of data, without a change of what they compute."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import sharding
from dmfer_jax.data import augment
from dmfer_jax.models.face_resnet import FaceResNet
from dmfer_jax.norm_statistics import fit_statistics
from tests.models.variables import draw_variables


class Part(nn.Module):
    """A network with a part whose statistics are wanted, and one behind it."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> Any:
        stages = FaceResNet(width=0.25, name="backbone")(x, train)
        return nn.BatchNorm(use_running_average=not train, name="norm")(stages[-1]), stages


def test_the_function_stays_and_the_statistics_are_those_of_the_images():
    model = Part()
    batches = [
        jnp.asarray(np.random.default_rng(seed).integers(0, 256, (4, 64, 64, 1), np.uint8))
        for seed in range(3)
    ]
    variables = draw_variables(model, jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32))
    fitted: Any = fit_statistics(model, variables, batches, "backbone", sharding.make_mesh())

    images = augment.normalize(augment.to_float(jnp.concatenate(batches)))
    run = jax.jit(lambda v, x: model.apply(v, x))
    for expected, given in zip(
        jax.tree.leaves(run(variables, images)), jax.tree.leaves(run(fitted, images)), strict=True
    ):
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(given / scale, expected / scale, atol=2e-6)

    # Of all images together, which is one batch for BatchNorm, the statistics are the batch's own.
    _, changed = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]))(
        fitted, images
    )
    for (path, kept), own in zip(
        jax.tree_util.tree_leaves_with_path(fitted["batch_stats"]["backbone"]),
        jax.tree.leaves(changed["batch_stats"]["backbone"]),
        strict=True,
    ):
        np.testing.assert_allclose(own, kept, rtol=1e-3, atol=1e-3, err_msg=str(path))
    for path, leaf in jax.tree_util.tree_leaves_with_path(fitted["params"]["backbone"]):
        if path[-1].key == "kernel":  # as large as random ones, which He et al. draw
            assert np.mean(leaf**2) == pytest.approx(2 / np.prod(leaf.shape[:-1]), rel=1e-5)
    for collection in ("params", "batch_stats"):
        for leaf, value in variables[collection]["norm"].items():
            np.testing.assert_array_equal(fitted[collection]["norm"][leaf], value)
