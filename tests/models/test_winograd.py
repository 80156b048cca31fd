"""Winograd's algorithm gives a convolution and its gradients, with tiles of each size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dmfer_jax.models import convolution, winograd


def draw(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=numbers)


@pytest.mark.parametrize("tile", winograd.TILES)
def test_matrices_are_those_of_a_correlation(tile):
    of = winograd._transforms(tile)
    random = np.random.default_rng(0)
    pixels, taps = random.normal(size=tile + 2), random.normal(size=3)
    found = of.output @ ((of.kernel @ taps) * (of.input @ pixels))
    np.testing.assert_allclose(found, np.correlate(pixels, taps, "valid"), rtol=1e-12)


def test_small_tiles_have_lavin_and_grays_matrices():
    # Up to the signs of rows, which cancel.
    of = winograd._transforms(2)
    np.testing.assert_array_equal(
        np.abs(of.input), [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    )
    np.testing.assert_array_equal(
        np.abs(of.kernel), [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
    )
    np.testing.assert_array_equal(of.output, [[1, 1, 1, 0], [0, 1, -1, 1]])


@pytest.mark.parametrize("tile", winograd.TILES)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (3, 2)])
@pytest.mark.parametrize("parts", [1, 3])
def test_convolution_and_gradients_are_those_of_xla(tile, height, width, parts, monkeypatch):
    x, kernel = draw(3, height, width, 4, seed=0), draw(3, 3, 4, 6, seed=1)
    y, pull_back = jax.vjp(direct, x, kernel)
    dy = draw(*y.shape, seed=2)
    monkeypatch.setattr(winograd, "_images_at_once", lambda *_: 3 // parts)
    jax.clear_caches()  # the number of parts is fixed when a shape is traced
    found = (
        winograd.convolve(x, kernel, tile),
        winograd.input_gradient(dy, kernel, tile),
        winograd.kernel_gradient(x, dy, tile),
    )
    for a, b in zip(found, (y, *pull_back(dy)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tile", winograd.TILES)
def test_rounding_is_that_of_a_sum_of_as_many_terms(tile):
    x, kernel = jax.nn.relu(draw(4, 14, 14, 64, seed=0)), draw(3, 3, 64, 64, seed=1)
    exact = jax.tree.map(lambda array: np.asarray(array, np.float64), (x, kernel))
    with jax.enable_x64(True):
        expected = np.asarray(direct(*map(jnp.asarray, exact)))
    error = np.abs(np.asarray(winograd.convolve(x, kernel, tile)) - expected).max()
    assert error < 4e-6 * np.abs(expected).max()


def test_parts_fit_the_cache_and_divide_the_batch():
    # 4 bytes x 36 x 49 tiles x 64 channels are 451,584 bytes an image: 11 fit into 5 MiB.
    assert winograd._images_at_once((32, 28, 28, 64), 4, 64, 64 * 64) == 8
    assert winograd._images_at_once((30, 28, 28, 64), 4, 64, 64 * 64) == 10
    # A kernel of 16 x 512 x 512 numbers is read once rather than for every few images.
    assert winograd._images_at_once((64, 4, 4, 512), 2, 512, 512 * 512) == 64


@pytest.mark.parametrize(
    ("images", "side", "tile"),
    [
        (32, 28, 4),  # 49 tiles x 36 products are fewer than 196 x 16
        (32, 6, 2),  # 4 x 36 are as many as 9 x 16
        (32, 4, 2),  # 1 x 36 are fewer than 4 x 16, but 32 tiles make small products
        (64, 4, 4),
    ],
)
def test_tile_is_that_of_the_fewest_products_if_there_are_enough_tiles(images, side, tile):
    assert convolution._tile(jnp.zeros((images, side, side, 1))) == tile
