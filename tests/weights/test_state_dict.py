"""Variables as a PyTorch state dict: names, order of axes, and the way back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict
from tests.models.variables import draw_variables

IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


def draw(**changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"stem": "small", "width": 0.125, "embedding": 16, "heads": 2}
    return draw_variables(Dmfer(8, **{**options, **changes}), IMAGES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "resnet50", "depthwise": True, "learned_centers": True, "stem": "imagenet"},
        {"attention": "squeeze_excite", "compress": "top", "shallow_stage": 1},
    ],
    ids=lambda value: "-".join(value),
)
def test_there_and_back_is_the_same(changes):
    variables = draw(**changes)
    state_dict = to_state_dict(variables)
    assert len(state_dict) == len(jax.tree.leaves(variables))
    back = from_state_dict(state_dict)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    for name, array in state_dict.items():
        assert array.flags.c_contiguous, name
        assert array.flags.writeable, name
        assert array.dtype == np.float32, name


def test_names_are_the_paths_and_axes_are_pytorchs():
    variables = draw(depthwise=True, learned_centers=True)
    state_dict = to_state_dict(variables)
    block = "backbone.stage2_block1.conv1"
    shapes = {
        "backbone.stem.conv.weight": (8, 3, 3, 3),
        f"{block}.conv.weight": (16, 8, 3, 3),
        f"{block}.norm.weight": (16,),
        f"{block}.norm.bias": (16,),
        f"{block}.norm.running_mean": (16,),
        f"{block}.norm.running_var": (16,),
        "attention.query.weight": (32, 32, 1, 1),
        "attention.query_depthwise.weight": (32, 1, 3, 3),
        "attention.temperature": (2, 1, 1),
        "compress.conv.weight": (16, 32, 1, 1),
        "head.weight": (8, 16),
        "head.bias": (8,),
        "centers": (8, 16),
    }
    assert {name: state_dict[name].shape for name in shapes} == shapes
    params, statistics = variables["params"], variables["batch_stats"]
    stem = params["backbone"]["stem"]["conv"]["kernel"]  # HWIO
    assert state_dict["backbone.stem.conv.weight"][5, 2, 0, 1] == stem[0, 1, 2, 5]
    assert state_dict["head.weight"][3, 7] == params["head"]["kernel"][7, 3]
    norm = statistics["two_scale"]["deep"]["norm"]
    np.testing.assert_array_equal(state_dict["two_scale.deep.norm.running_var"], norm["var"])


def test_arrays_are_copies():
    variables = draw()
    state_dict = to_state_dict(variables)
    back = from_state_dict(state_dict)
    expected = float(variables["params"]["head"]["bias"][0])
    state_dict["head.bias"][:] = -1  # as a fused optimizer would change it
    assert variables["params"]["head"]["bias"][0] == expected
    assert back["params"]["head"]["bias"][0] == expected


def test_count_of_batches_is_passed_over():
    state_dict = {"norm.num_batches_tracked": np.array(7), "norm.running_var": np.ones(2)}
    back = from_state_dict(state_dict)
    assert jax.tree.map(np.shape, back) == {"params": {}, "batch_stats": {"norm": {"var": (2,)}}}


@pytest.mark.parametrize(
    ("state_dict", "message"),
    [
        ({"stem.weight": np.ones((2, 2, 2))}, r"'stem.weight' of shape \(2, 2, 2\)"),
        ({"stem.bias": np.ones((2, 2))}, r"'stem.bias' of shape \(2, 2\)"),
        ({"attention.in_proj": np.ones((2, 2))}, "'attention.in_proj'.*weight of rank 4"),
        ({"stem.kernel": np.ones((2, 2))}, "'stem.kernel'"),
        ({"": np.ones(2)}, "''"),
        ({"a.bias": np.ones(2), "a.bias.bias": np.ones(2)}, "'a.bias.bias'.*parent"),
        ({"a.weight.bias": np.ones(2), "a.kernel.weight": np.ones(2)}, None),
        ({"a.bias.bias": np.ones(2), "a.bias": np.ones(2)}, "'a.bias'.*another"),
    ],
)
def test_tensor_that_is_no_part_of_the_network_is_named(state_dict, message):
    if message is None:  # odd names for modules, and no ambiguity
        assert set(from_state_dict(state_dict)["params"]["a"]) == {"weight", "kernel"}
        return
    with pytest.raises(UserError, match=message):
        from_state_dict(state_dict)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"params": {"head": {"kernel": np.ones((2, 2, 2))}}}, r"params/head/kernel.*\(2, 2, 2\)"),
        ({"params": {"head": {"gate": np.ones(2)}}}, "params/head/gate"),
        ({"cache": {"head": {"bias": np.ones(2)}}}, "cache/head/bias"),
        ({"params": np.ones(2)}, "variables have params of"),
    ],
)
def test_leaf_that_is_no_part_of_the_network_is_named(variables, message):
    with pytest.raises(UserError, match=message):
        to_state_dict(variables)
