"""Both scales meet on the deep grid, the shallow one first."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.models.two_scale import TwoScaleFeatures
from tests.models.variables import draw_variables

CHANNELS = (8, 16, 24, 32)
SIDES = {112: (28, 14, 7, 4), 48: (24, 12, 6, 3), 224: (56, 28, 14, 7)}


def shapes(size: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(
        jax.ShapeDtypeStruct((2, side, side, c), jnp.float32)
        for side, c in zip(SIDES[size], CHANNELS, strict=True)
    )


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("shallow_stage", [1, 2, 3])
def test_shallow_stage_is_brought_to_the_deep_grid(size, shallow_stage):
    model = TwoScaleFeatures(5, "both", shallow_stage)
    y, variables = jax.eval_shape(
        lambda stages: model.init_with_output(jax.random.key(0), stages, True), shapes(size)
    )
    assert y.shape == (2, SIDES[size][-1], SIDES[size][-1], 10)
    # One strided 3x3 convolution for each stage between, as wide as the stage that is read.
    steps = {f"shallow_down{index}" for index in range(shallow_stage, 4)}
    assert variables["params"].keys() == steps | {"shallow", "deep"}
    width = CHANNELS[shallow_stage - 1]
    for name in steps:
        assert variables["params"][name]["conv"]["kernel"].shape == (3, 3, width, width)


@pytest.mark.parametrize(
    ("scales", "parts"),
    [("deep", {"deep"}), ("shallow", {"shallow_down2", "shallow_down3", "shallow"})],
)
def test_one_scale_has_the_parts_of_that_scale_only(scales, parts):
    y, variables = jax.eval_shape(
        lambda stages: TwoScaleFeatures(5, scales).init_with_output(
            jax.random.key(0), stages, True
        ),
        shapes(48),
    )
    assert y.shape == (2, 3, 3, 5)
    assert variables["params"].keys() == parts


def test_shallow_features_come_first_and_each_scale_sees_its_own_stage():
    model = TwoScaleFeatures(5, "both", 2)
    rng = np.random.default_rng(0)
    stages = [rng.normal(size=shape.shape).astype(np.float32) for shape in shapes(48)]
    variables = draw_variables(model, stages, train=False)
    apply: Any = jax.jit(functools.partial(model.apply, variables, train=False))
    before = apply(stages)
    changed = [apply([*stages[:i], stages[i] + 1.0, *stages[i + 1 :]]) for i in range(4)]
    shallow = [bool((y[..., :5] != before[..., :5]).any()) for y in changed]
    deep = [bool((y[..., 5:] != before[..., 5:]).any()) for y in changed]
    assert shallow == [False, True, False, False]
    assert deep == [False, False, False, True]
