"""3x3 convolutions by Winograd's algorithm: 36 products where the taps of 16 pixels need 144.

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016. The output is cut
into tiles of m x m pixels. A tile reads t x t = (m + 2) x (m + 2) pixels; transformed, these are
multiplied by the t x t numbers of the transformed kernel, and a last transform gives the tile. Each
of the t x t is one matrix product over all tiles and channels. Stride 1, padded by one.

The functions are jitted so that layers of one shape are traced once.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

TILES = (2, 4)
"""Sides of tiles there are; larger ones save more products, and waste more at the edge."""

_POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2)),
}
"""Side of a tile -> where polynomials are evaluated, besides at infinity.

With points such as these, tiles of 4 round no worse than tiles of 2 do, and four times less than
with the usual 0, 1, -1, 2 and -2 (Barabasz et al., 2020, tell why)."""

_CACHED_BYTES = 5 * 2**20
"""What a part of the batch may take when it is transformed, to be in the cache when it is used."""


def tiles(tile: int, height: int, width: int) -> int:
    """Returns how many tiles of side `tile` cover a map."""
    return _along(height, tile) * _along(width, tile)


def products(tile: int, height: int, width: int) -> int:
    """Returns how many products of numbers a map takes, for one channel in and one out."""
    return (tile + 2) ** 2 * tiles(tile, height, width)


@partial(jax.jit, static_argnums=2)
def convolve(x: Array, kernel: Array, tile: int) -> Array:
    """The convolution: `[n, h, w, c], [3, 3, c, o] -> [n, h, w, o]`.

    Args:
      x: images.
      kernel: weights.
      tile: one of `TILES`.
    """
    return _convolve(x, kernel, tile, over=0)


@partial(jax.jit, static_argnums=2)
def input_gradient(dy: Array, kernel: Array, tile: int) -> Array:
    """The gradient of the input, of the output's: `[n, h, w, o], [3, 3, c, o] -> [n, h, w, c]`."""
    # A convolution with the kernel turned round. Its channels stay as they lie: to transpose a
    # large kernel costs more than the products.
    return _convolve(dy, kernel[::-1, ::-1], tile, over=1)


@partial(jax.jit, static_argnums=2)
def kernel_gradient(x: Array, dy: Array, tile: int) -> Array:
    """The gradient of the kernel: `[n, h, w, c], [n, h, w, o] -> [3, 3, c, o]`."""
    of = _transforms(tile)
    c, o = x.shape[3], dy.shape[3]
    size = _images_at_once(x.shape, tile, c + o, c * o)

    def multiply(x: Array, dy: Array) -> Array:
        pixels, gradients = _transform_input(of, x), _transform_output_gradient(of, dy)
        return lax.dot_general(pixels, gradients, (((1,), (1,)), ((0,), (0,))))

    def add(total: Array, images: tuple[Array, Array]) -> tuple[Array, None]:
        return total + multiply(*images), None

    if size == len(x):
        total = multiply(x, dy)
    else:
        nothing = jnp.zeros(((tile + 2) ** 2, c, o), x.dtype)
        total, _ = lax.scan(add, nothing, (_in_parts(x, size), _in_parts(dy, size)))
    rows = _apart(of.kernel.T, list(total.reshape(tile + 2, tile + 2, c, o)))  # [column, row]
    return _combine(of.kernel.T, [rows[:, row] for row in range(tile + 2)])


class _Transforms(NamedTuple):
    """Matrices of Lavin and Gray's equation 8, for one dimension."""

    input: np.ndarray  # B^T, [t, t]
    kernel: np.ndarray  # G, [t, 3]
    output: np.ndarray  # A^T, [m, t]


@lru_cache
def _transforms(tile: int) -> _Transforms:
    """Toom and Cook's matrices: polynomials are evaluated, multiplied and interpolated."""
    points = _POINTS[tile]

    def others(index: int) -> list[Fraction]:
        return [point for other, point in enumerate(points) if other != index]

    def vanishing(at: Sequence[Fraction]) -> list[Fraction]:
        """Coefficients of the polynomial that is 0 at these points."""
        found = [Fraction(1)]
        for point in at:
            found = [
                low - point * high
                for low, high in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)
            ]
        return found

    scales = [
        np.prod([point - other for other in others(index)]) for index, point in enumerate(points)
    ]
    kernel = [
        [point**power / scale for power in range(3)]
        for point, scale in zip(points, scales, strict=True)
    ]
    output = [[point**power for point in points] + [power == tile - 1] for power in range(tile)]
    inputs = [[*vanishing(others(index)), 0] for index in range(len(points))]
    exact = ([*inputs, vanishing(points)], [*kernel, [0, 0, 1]], output)
    return _Transforms(*(np.array(matrix, np.float64) for matrix in exact))


def _convolve(x: Array, kernel: Array, tile: int, over: int) -> Array:
    """A convolution that sums over the kernel's channels c (0) or o (1)."""
    of = _transforms(tile)
    n, h, w, c = x.shape
    o = kernel.shape[3 - over]
    down, across = _along(h, tile), _along(w, tile)
    taps = _apart(of.kernel, list(kernel))
    taps = _apart(of.kernel, [taps[:, column] for column in range(3)])  # [column, row, c, o]
    taps = taps.reshape(-1, *kernel.shape[2:])

    def part(x: Array) -> Array:
        pixels = _transform_input(of, x)
        multiplied = lax.dot_general(pixels, taps, (((2,), (1 + over,)), ((0,), (0,))))
        multiplied = multiplied.reshape(tile + 2, tile + 2, len(x), down, across, o)
        columns = _apart(of.output, list(lax.optimization_barrier(multiplied)))
        done = _combine(of.output, [columns[:, row] for row in range(tile + 2)])  # [row, column]
        return done.transpose(2, 3, 0, 4, 1, 5).reshape(len(x), tile * down, tile * across, o)

    size = _images_at_once(x.shape, tile, max(c, o), c * o)
    return lax.map(part, _in_parts(x, size)).reshape(n, tile * down, tile * across, o)[:, :h, :w]


def _transform_input(of: _Transforms, x: Array) -> Array:
    """B^T d B of every tile: t x t matrices `[t * t, tiles, c]`, column by column."""
    _, h, w, c = x.shape
    tile = len(of.output)
    down, across = tile * _along(h, tile), tile * _along(w, tile)
    x = jnp.pad(x, ((0, 0), (1, 1 + down - h), (1, 1 + across - w), (0, 0)))
    ends = range(tile + 2)
    rows = _apart(of.input, [x[:, row : row + down - tile + 1 : tile] for row in ends])
    columns = [rows[:, :, :, column : column + across - tile + 1 : tile] for column in ends]
    return _apart(of.input, columns).reshape(len(of.input) ** 2, -1, c)


def _transform_output_gradient(of: _Transforms, dy: Array) -> Array:
    """A d A^T, the transpose of the output's transform: `[t * t, tiles, o]`, column by column."""
    _, h, w, o = dy.shape
    tile = len(of.output)
    down, across = tile * _along(h, tile), tile * _along(w, tile)
    dy = jnp.pad(dy, ((0, 0), (0, down - h), (0, across - w), (0, 0)))
    rows = _apart(of.output.T, [dy[:, row::tile] for row in range(tile)])
    columns = [rows[:, :, :, column::tile] for column in range(tile)]
    return _apart(of.output.T, columns).reshape(len(of.input) ** 2, -1, o)


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> Array:
    """A matrix times a list of arrays, as one array with the results along its first axis.

    Zeros of the matrix are multiplied, too: so it is one operation to compile, and takes no longer
    than what is read and written.
    """
    columns = matrix.astype(parts[0].dtype).T.reshape(len(parts), -1, *[1] * parts[0].ndim)
    return sum(column * part for column, part in zip(columns, parts, strict=True))  # pyright: ignore


def _apart(matrix: np.ndarray, parts: Sequence[Array]) -> Array:
    """`_combine`, kept from being computed again for every operation that reads it."""
    return lax.optimization_barrier(_combine(matrix, parts))


def _images_at_once(shape: Sequence[int], tile: int, channels: int, weights: int) -> int:
    """How many images to transform at a time.

    Args:
      shape: of the images.
      tile: side of a tile.
      channels: of what is transformed.
      weights: c * o; what each part reads of them must be worth it.
    """
    n, h, w, _ = shape
    most = max(_CACHED_BYTES, 4 * (tile + 2) ** 2 * weights)
    fitting = max(most // (4 * products(tile, h, w) * channels), 1)
    return max(size for size in range(1, min(fitting, n) + 1) if n % size == 0)


def _in_parts(x: Array, size: int) -> Array:
    return x.reshape(len(x) // size, size, *x.shape[1:])


def _along(pixels: int, tile: int) -> int:
    """Tiles that cover a side of a map."""
    return -(-pixels // tile)
