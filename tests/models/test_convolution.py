"""Every formulation of a convolution is the same function, with the same gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dmfer_jax.models import convolution, winograd

NHWC = ("NHWC", "HWIO", "NHWC")


def draw(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def reference(stride: int, margin: int) -> Any:
    return lambda x, kernel: lax.conv_general_dilated(
        x, kernel, (stride, stride), [(margin, margin)] * 2, dimension_numbers=NHWC
    )


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("side", "channels", "size", "stride"),
    [
        (9, 32, 3, 1),  # Winograd's algorithm, tiles of 4 over the edge
        (6, 32, 3, 1),  # tiles of 2 that fit
        (12, 4, 3, 1),  # too few channels for it
        (4, 32, 3, 1),  # too few pixels for it: one product
        (10, 4, 3, 2),  # down to a small map, from an even side
        (9, 4, 3, 2),
        (18, 4, 3, 2),  # down to a large one
        (17, 4, 3, 2),
        (20, 1, 3, 1),  # few channels: gradients by planes
        (17, 3, 7, 2),  # the stem
        (9, 4, 5, 1),  # XLA's own
        (9, 4, 1, 1),
        (9, 4, 1, 2),
        (10, 4, 1, 2),
    ],
)
def test_a_convolution_and_its_gradients_are_those_of_xla(side, channels, size, stride, padded):
    x = draw(6, side, side + 2, channels, seed=0)
    kernel = draw(size, size, channels, channels + 1, seed=1)
    margin = size // 2 if padded else 0
    ours = functools.partial(
        convolution.convolve,
        window_strides=(stride, stride),
        padding=[(margin, margin)] * 2,
        dimension_numbers=NHWC,
    )

    def both(f: Any) -> Any:
        y, pull_back = jax.vjp(f, x, kernel)
        return y, *pull_back(draw(*y.shape, seed=2))

    expected, given = both(reference(stride, margin)), jax.jit(lambda: both(ours))()
    for a, b in zip(given, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def test_numbers_of_two_bytes_are_left_to_xla():
    """Winograd's sums would lose most of what bfloat16 holds."""
    x = draw(6, 9, 11, 32, seed=0).astype(jnp.bfloat16)
    kernel = draw(3, 3, 32, 33, seed=1).astype(jnp.bfloat16)
    given = convolution.convolve(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=NHWC)
    np.testing.assert_array_equal(given, reference(1, 1)(x, kernel))


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (3, 1)])
def test_a_kernel_gradient_is_the_same_in_one_chunk_and_in_many(size, stride, monkeypatch):
    side = 9 // stride + 9 % 2 * (stride - 1)
    x, kernel, dy = (
        draw(6, 9, 9, 4, seed=0),
        draw(size, size, 4, 5, seed=1),
        draw(6, side, side, 5, seed=2),
    )
    monkeypatch.setattr(convolution, "_SMALL_MAP", 0)
    gradient = functools.partial(convolution._kernel_gradient, stride, size // 2)
    whole = gradient(x, kernel, dy)
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", 2 * side**2 * (6 * 4 + 3 * 5) * 4)
    monkeypatch.setattr(winograd, "_CACHED_BYTES", 2 * 16 * 5 * 5 * (4 + 5) * 4)
    jax.clear_caches()
    lowered = jax.jit(gradient).lower(x, kernel, dy)
    assert "tensor<3x2x9x9x4xf32>" in lowered.as_text()  # three chunks of two images
    np.testing.assert_allclose(lowered.compile()(x, kernel, dy), whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("side", "size"), [(12, 7), (13, 7), (12, 3), (13, 5)])
def test_blocks_of_pixels_give_the_same_strided_convolution(side, size):
    x, kernel = draw(2, side, side + 2, 3, seed=0), draw(size, size, 3, 5, seed=1)
    np.testing.assert_allclose(
        convolution._space_to_depth(x, kernel),
        reference(2, size // 2)(x, kernel),
        rtol=1e-4,
        atol=1e-4,
    )


def test_accelerators_get_xlas_convolution_and_the_stem_in_blocks():
    def compiled_for(platform: str, size: int, stride: int) -> str:
        half = size // 2
        f = functools.partial(
            convolution.convolve,
            window_strides=(stride, stride),
            padding=[(half, half)] * 2,
            dimension_numbers=NHWC,
        )
        shapes = (
            jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32),
            jax.ShapeDtypeStruct((size, size, 3, 5), jnp.float32),
        )
        return jax.jit(f).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" in compiled_for("tpu", 3, 1)
    assert "stablehlo.dot_general" not in compiled_for("tpu", 3, 1)
    assert "tensor<4x4x12x5xf32>" in compiled_for("tpu", 7, 2)
    assert "stablehlo.convolution" not in compiled_for("cpu", 1, 1)
