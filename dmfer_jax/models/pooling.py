"""Max pooling whose gradient is as cheap as the pooling.

XLA's own gradient searches each window again. Here the forward pass keeps, in a byte per window,
which of its nine pixels won; the gradient then asks each pixel whether it won the windows that it
lies in. Of equal pixels the first wins, row by row, as in PyTorch and in XLA.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from dmfer_jax.models.formulation import is_plain


def max_pool(x: Array, margin: int = 1) -> Array:
    """The largest pixel of 3x3 windows two apart: `[n, h, w, c] -> [n, h/2, w/2, c]`.

    Windows reach `margin` pixels over each edge, 1 or 0. With 1, odd h and w are rounded up, 5
    pixels become 3; with 0 all are rounded down, to whole windows, 5 and 6 pixels become 2.
    """
    ends = (margin, margin)
    if is_plain():
        padding = ((0, 0), ends, ends, (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
    return _pool(jnp.pad(x, ((0, 0), ends, ends, (0, 0)), constant_values=-jnp.inf))


@jax.custom_vjp
def _pool(x: Array) -> Array:
    return _forward(x)[0]


def _forward(x: Array) -> tuple[Array, tuple[Array, tuple[int, int]]]:
    _, h, w, _ = x.shape
    largest = x[:, 0 : h - 2 : 2, 0 : w - 2 : 2]
    winner = jnp.zeros(largest.shape, jnp.uint8)
    for tap in range(1, 9):
        row, column = divmod(tap, 3)
        pixel = x[:, row : row + h - 2 : 2, column : column + w - 2 : 2]
        winner = jnp.where(pixel > largest, jnp.uint8(tap), winner)
        largest = jnp.maximum(largest, pixel)
    return largest, (winner, (h, w))


def _backward(residuals: tuple[Array, tuple[int, int]], dy: Array) -> tuple[Array]:
    winner, (h, w) = residuals
    n, height, width, c = dy.shape
    ends = ((0, 0), (1, 1), (1, 1), (0, 0))
    dy, winner = jnp.pad(dy, ends), jnp.pad(winner, ends, constant_values=_NONE)

    def share(row: int, column: int, up: int, left: int) -> Array:
        """What pixels at (row, column) of their 2x2 block get of the window so far up and left."""
        window = (slice(None), slice(1 - up, 2 - up + height), slice(1 - left, 2 - left + width))
        tap = 3 * (row + 2 * up) + column + 2 * left
        return jnp.where(winner[window] == tap, dy[window], 0)

    # A pixel of an even row lies in two rows of windows, one of an odd row in one.
    block = [
        [
            sum(share(row, column, up, left) for up in range(2 - row) for left in range(2 - column))
            for column in (0, 1)
        ]
        for row in (0, 1)
    ]
    rows = jnp.stack([jnp.stack(columns, axis=3) for columns in block], axis=2)
    gradient = rows.reshape(n, 2 * height + 2, 2 * width + 2, c)[:, :h, :w]
    missing = [(0, h - gradient.shape[1]), (0, w - gradient.shape[2])]
    return (jnp.pad(gradient, ((0, 0), *missing, (0, 0))),)


_NONE = 9
"""No tap has this number: the winner of windows that are not there."""

_pool.defvjp(_forward, _backward)
