"""3x3 convolutions by Winograd's algorithm F(2x2, 3x3): 16 products where taps need 36.

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016. The output is cut
into tiles of 2 x 2 pixels. A tile reads 4 x 4 pixels; transformed, these 16 numbers are multiplied
by the 16 of the transformed kernel, and a last transform gives the tile. Each of the 16 is one
matrix product over all tiles and channels. Stride 1, padded by one, as in `convolution`.

The functions are jitted so that layers of one shape are traced once: these are many operations.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.jit
def convolve(x: Array, kernel: Array) -> Array:
    """The convolution: `[n, h, w, c], [3, 3, c, o] -> [n, h, w, o]`."""
    return _convolve(x, kernel, over=0)


@jax.jit
def input_gradient(dy: Array, kernel: Array) -> Array:
    """The gradient of the input, of the output's: `[n, h, w, o], [3, 3, c, o] -> [n, h, w, c]`."""
    # A convolution with the kernel turned round. Its channels stay as they lie: to transpose a
    # large kernel costs more than the products.
    return _convolve(dy, kernel[::-1, ::-1], over=1)


@jax.jit
def kernel_gradient(x: Array, dy: Array) -> Array:
    """The gradient of the kernel: `[n, h, w, c], [n, h, w, o] -> [3, 3, c, o]`."""
    pixels, gradients = lax.optimization_barrier(
        (_transform_input(x), _transform_output_gradient(dy))
    )
    products = [
        lax.dot_general(v, d, (((0,), (0,)), ((), ())))
        for v, d in zip(pixels, gradients, strict=True)
    ]
    return _transform_kernel_gradient(lax.optimization_barrier(products))


def _convolve(x: Array, kernel: Array, over: int) -> Array:
    """A convolution that sums over the kernel's channels c (0) or o (1)."""
    n, h, w, _ = x.shape
    down, across = _tiles(h), _tiles(w)
    # Without barriers XLA computes each transform again for every product that reads it.
    pixels, taps = lax.optimization_barrier((_transform_input(x), _transform_kernel(kernel)))
    products = [
        lax.dot_general(v, u, (((1,), (over,)), ((), ()))).reshape(n, down, across, -1)
        for v, u in zip(pixels, taps, strict=True)
    ]
    return _transform_output(lax.optimization_barrier(products))[:, :h, :w]


def _transform_input(x: Array) -> list[Array]:
    """B^T d B of every tile: 16 matrices `[tiles, c]`."""
    _, h, w, c = x.shape
    down, across = 2 * _tiles(h), 2 * _tiles(w)
    padded = jnp.pad(x, ((0, 0), (1, 1 + down - h), (1, 1 + across - w), (0, 0)))

    def combine(d: Sequence[Array]) -> list[Array]:
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    rows = combine([padded[:, row : row + down : 2] for row in range(4)])
    return [
        part.reshape(-1, c)
        for row in rows
        for part in combine([row[:, :, column : column + across : 2] for column in range(4)])
    ]


def _transform_kernel(kernel: Array) -> list[Array]:
    """G g G^T: 16 matrices `[c, o]`."""

    def combine(g: Sequence[Array]) -> list[Array]:
        return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]

    return [part for row in combine(list(kernel)) for part in combine(list(row))]


def _transform_output(products: Sequence[Array]) -> Array:
    """A^T m A: of 16 arrays `[n, down, across, o]` the tiles, `[n, 2 down, 2 across, o]`."""

    def combine(m: Sequence[Array]) -> list[Array]:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    rows = zip(*(combine(products[column::4]) for column in range(4)), strict=True)
    tiles = jnp.stack([jnp.stack(combine(row), axis=3) for row in rows], axis=2)
    n, down, _, across, _, o = tiles.shape
    return tiles.reshape(n, 2 * down, 2 * across, o)


def _transform_output_gradient(dy: Array) -> list[Array]:
    """A d A^T, the transpose of `_transform_output`: 16 matrices `[tiles, o]`."""
    _, h, w, o = dy.shape
    down, across = _tiles(h), _tiles(w)
    even = jnp.pad(dy, ((0, 0), (0, 2 * down - h), (0, 2 * across - w), (0, 0)))

    def combine(d: Sequence[Array]) -> list[Array]:
        return [d[0], d[0] + d[1], d[0] - d[1], -d[1]]

    rows = combine([even[:, row::2] for row in range(2)])
    return [
        part.reshape(-1, o)
        for row in rows
        for part in combine([row[:, :, column::2] for column in range(2)])
    ]


def _transform_kernel_gradient(products: Sequence[Array]) -> Array:
    """G^T p G, the transpose of `_transform_kernel`: of 16 `[c, o]` the kernel's `[3, 3, c, o]`."""

    def combine(p: Sequence[Array]) -> list[Array]:
        half_sum, half_difference = (p[1] + p[2]) / 2, (p[1] - p[2]) / 2
        return [p[0] + half_sum, half_difference, half_sum + p[3]]

    rows = zip(*(combine(products[column::4]) for column in range(4)), strict=True)
    return jnp.stack([jnp.stack(combine(row)) for row in rows])


def _tiles(pixels: int) -> int:
    """Tiles of two pixels that cover a side."""
    return -(-pixels // 2)
