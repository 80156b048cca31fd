"""Attention weights are those that the network uses, and their numbers are worked out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.explaining import attention
from dmfer_jax.models.channel_attention import ChannelSelfAttention
from dmfer_jax.models.dmfer import Dmfer
from tests.models.variables import draw_variables

HEADS, C = 2, 6


def test_weights_times_values_are_what_the_attention_adds():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, C)).astype(np.float32)
    module = ChannelSelfAttention(HEADS)
    variables = draw_variables(module, x)
    run = jax.jit(
        lambda x: module.apply(variables, x, capture_intermediates=True, mutable="intermediates")
    )
    output, read = run(x)
    projections: Any = read["intermediates"]
    query, key, value = (projections[n]["__call__"][0] for n in ("query", "key", "value"))
    weights = attention.weights_of(query, key, variables["params"]["temperature"])
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    values = value.reshape(2, 12, HEADS, C // HEADS)
    mixed = jnp.einsum("nhqk,nphk->nphq", weights, values).reshape(x.shape)
    np.testing.assert_allclose(x + mixed, output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"depthwise": True}, {"flip_average": True}])
def test_weights_of_a_network_are_read_behind_its_last_projection(options, monkeypatch):
    sizes: dict[str, Any] = {"stem": "small", "width": 0.125, "embedding": 3, "heads": 2}
    model = Dmfer(3, dtype=jnp.bfloat16, **sizes, **options)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), dtype=np.uint8)
    shape = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
    given: list[Any] = []
    weights_of = attention.weights_of

    def keep(query: Any, key: Any, tau: Any) -> Any:
        given.extend((query, key))
        return weights_of(query, key, tau)

    monkeypatch.setattr(attention, "weights_of", keep)
    variables = draw_variables(model, shape)
    found = jax.eval_shape(
        lambda images: attention.attention_weights(model, variables, images), images
    )
    assert (found.shape, found.dtype) == ((2, 2, 3, 3), jnp.float32)
    assert {array.dtype for array in given} == {np.dtype(np.float32)}
    assert {array.shape for array in given} == {(2, 2, 2, 6)}  # stage 4 of 16 pixels


def test_numbers_of_heads_are_worked_out():
    even = np.full((4, 4), 0.25)
    sharp = np.eye(4)[[1, 0, 3, 2]]  # each asks one other channel
    found = attention.describe_heads(np.stack([even, sharp, even]), shallow=6)
    assert [(head.shallow, head.deep) for head in found] == [(4, 0), (2, 2), (0, 4)]
    assert found[0].shares == {"shallow to shallow": 1}
    assert found[0].own == pytest.approx(1)
    assert found[0].effective == pytest.approx(4)
    assert found[1].shares == {
        "shallow to shallow": 1,
        "shallow to deep": 0,
        "deep to shallow": 0,
        "deep to deep": 1,
    }
    assert found[1].own == 0
    assert found[1].effective == pytest.approx(1)
    assert found[2].shares == {"deep to deep": 1}


def test_shares_tell_how_much_passes_between_the_scales():
    matrix = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    (head,) = attention.describe_heads(matrix[None], shallow=2)
    # Shallow channels 0 and 1 give 0.2 and 0.8 to deep channel 2, which gives back 0.8.
    assert head.shares["shallow to deep"] == pytest.approx(0.5)
    assert head.shares["shallow to shallow"] == pytest.approx(0.5)
    assert head.shares["deep to shallow"] == pytest.approx(0.8)
    assert head.own == pytest.approx(0.5 + 0.1 + 0.2)


@pytest.mark.parametrize(("scales", "expected"), [("both", 6), ("shallow", 6), ("deep", 0)])
def test_shallow_channels_are_counted(scales, expected):
    assert attention.count_shallow(Dmfer(3, embedding=6, scales=scales)) == expected
