"""Channel attention and squeeze-and-excite against loops in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.models import channel_attention
from dmfer_jax.models.channel_attention import ChannelSelfAttention, SqueezeExcite
from tests.models.variables import draw_variables

N, H, W, C, HEADS = 2, 3, 4, 6, 2


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, H, W, C)).astype(np.float32)


def depthwise_convolution(y: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3x3, each channel for itself, zeros around: [h, w, c] -> [h, w, c]."""
    padded = np.pad(y, ((1, 1), (1, 1), (0, 0)))
    out = np.zeros_like(y)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            for c in range(y.shape[2]):
                out[i, j, c] = np.sum(padded[i : i + 3, j : j + 3, c] * kernel[:, :, 0, c])
    return out


def naive_attention(params: dict[str, Any], image: np.ndarray, depthwise: bool) -> np.ndarray:
    """One image [h, w, c], channel by channel."""
    tokens = {}
    for name in ("query", "key", "value"):
        y = np.einsum("ijc,cd->ijd", image, params[name]["kernel"][0, 0])
        if depthwise:
            y = depthwise_convolution(y, params[f"{name}_depthwise"]["kernel"])
        tokens[name] = [y[:, :, c].ravel() for c in range(C)]  # each channel is h*w numbers
    per_head = C // HEADS
    out = image.copy()
    for head in range(HEADS):
        channels = range(head * per_head, (head + 1) * per_head)
        for c in channels:
            q = tokens["query"][c] / np.linalg.norm(tokens["query"][c])
            cosines = [q @ (k := tokens["key"][d]) / np.linalg.norm(k) for d in channels]
            weights = np.exp(params["temperature"][head, 0, 0] * np.array(cosines))
            weights /= weights.sum()
            for weight, d in zip(weights, channels, strict=True):
                out[:, :, c] += weight * tokens["value"][d].reshape(H, W)
    return out


@pytest.mark.parametrize("depthwise", [False, True])
def test_channel_attention_equals_loops(x, depthwise):
    module = ChannelSelfAttention(HEADS, depthwise)
    given = draw_variables(module, x)
    expected = [
        naive_attention(given["params"], image.astype(np.float64), depthwise) for image in x
    ]
    np.testing.assert_allclose(jax.jit(module.apply)(given, x), expected, rtol=1e-4, atol=1e-5)


def test_weights_over_channels_sum_to_one(x):
    # Where every value is 1, any weighted mean of values is 1.
    module = ChannelSelfAttention(HEADS)
    given = draw_variables(module, x)
    x = x.copy()
    x[..., 0] = 1
    value = np.zeros((1, 1, C, C), np.float32)
    value[0, 0, 0, :] = 1
    given["params"]["value"]["kernel"] = value
    np.testing.assert_allclose(jax.jit(module.apply)(given, x), x + 1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sharpness", [0.7, 60.0])  # with 60 most weights are 0
def test_gradients_are_those_of_a_softmax(sharpness):
    random = np.random.default_rng(0)

    def unit() -> np.ndarray:
        drawn = random.normal(size=(N, HEADS, 5, 4)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)

    q, k, v, dy = unit(), unit(), unit(), unit()
    tau = np.array([sharpness, 1.0], np.float32).reshape(HEADS, 1, 1)

    def plain(q: Any, k: Any, v: Any, tau: Any) -> Any:
        return jax.nn.softmax(tau * (q @ k.swapaxes(-1, -2)), axis=-1) @ v

    expected, pull_back = jax.vjp(plain, q, k, v, tau)
    found, pull_ours_back = jax.vjp(channel_attention._attend, q, k, v, tau)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(pull_ours_back(dy), pull_back(dy), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_tokens_are_channels_so_the_order_of_pixels_does_not_matter(x):
    module = ChannelSelfAttention(HEADS)
    given = draw_variables(module, x)
    order = np.random.default_rng(2).permutation(H * W)

    def shuffle(y: Any) -> np.ndarray:
        return np.asarray(y).reshape(N, H * W, C)[:, order].reshape(N, H, W, C)

    apply = jax.jit(module.apply)
    np.testing.assert_allclose(
        apply(given, shuffle(x)), shuffle(apply(given, x)), rtol=1e-4, atol=1e-5
    )


def test_black_image_stays_black_and_has_finite_gradients():
    module = ChannelSelfAttention(HEADS)
    black = np.zeros((1, H, W, C), np.float32)
    given = draw_variables(module, black)
    apply: Any = module.apply
    total, grads = jax.jit(jax.value_and_grad(lambda given: apply(given, black).sum()))(given)
    assert total == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_bfloat16_gives_bfloat16_and_keeps_the_temperature_long(x):
    module = ChannelSelfAttention(HEADS, dtype=jnp.bfloat16)
    y, given = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x), jnp.asarray(x, jnp.bfloat16)
    )
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(given)} == {jnp.dtype(jnp.float32)}


def test_heads_that_do_not_divide_the_channels_are_an_error(x):
    with pytest.raises(ValueError, match="6 channels cannot be divided among 4 heads"):
        ChannelSelfAttention(4).init(jax.random.key(0), x)


def test_squeeze_excite_equals_loops(x):
    module = SqueezeExcite()
    given = draw_variables(module, x)
    squeeze, excite = given["params"]["squeeze"], given["params"]["excite"]
    assert squeeze["kernel"].shape == (C, 8)  # never fewer than 8
    expected = np.empty_like(x)
    for i, image in enumerate(x):
        mean = np.array([image[:, :, c].mean() for c in range(C)])
        hidden = np.maximum(mean @ squeeze["kernel"] + squeeze["bias"], 0)
        gate = 1 / (1 + np.exp(-(hidden @ excite["kernel"] + excite["bias"])))
        expected[i] = image * gate
    np.testing.assert_allclose(jax.jit(module.apply)(given, x), expected, rtol=1e-4, atol=1e-6)


def test_squeeze_excite_squeezes_sixteenfold():
    shapes = jax.eval_shape(
        SqueezeExcite().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 4, 4, 1024), jnp.float32)
    )
    assert shapes["params"]["squeeze"]["kernel"].shape == (1024, 64)
