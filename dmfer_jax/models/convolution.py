"""2-D convolutions in the formulation that is fastest for their shape, where XLA's own is not.

XLA's convolutions are good on accelerators. On CPUs its kernel gradients run at a quarter of the
rate of a matrix product, and convolutions of small maps at half of it. So there they are written
as matrix products, and 3x3 ones by Winograd's algorithm. The function, its weights and its
gradients stay the same, to float32's rounding; what each formulation gave is in
`benchmarks/README.md`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from dmfer_jax.models import winograd
from dmfer_jax.models.formulation import is_plain

_SMALL_MAP = 7 * 7
"""Positions of a map up to which one product of patches beats XLA's convolution."""

_WINOGRAD_CHANNELS = 32
"""Channels from which on the products that Winograd's algorithm saves are worth its transforms."""

_WINOGRAD_PIXELS = 256
"""Pixels of a batch, below which transforming the kernel costs more than Winograd saves."""

_WINOGRAD_TILES = 64
"""Tiles of a batch, below which the products of large tiles are too small to be fast."""

_CHUNK_BYTES = 5 * 2**20
"""What a kernel gradient copies at a time: as much as stays in the cache until it is multiplied."""


def convolve(
    x: Array,
    kernel: Array,
    window_strides: Sequence[int],
    padding: Any,
    *,
    feature_group_count: int = 1,
    **others: Any,
) -> Array:
    """`lax.conv_general_dilated` of images, called as Flax's `Conv` calls it.

    Args:
      x: `[n, h, w, c]`.
      kernel: `[k, k, c / groups, o]`.
      window_strides: of rows and of columns.
      padding: ((top, bottom), (left, right)). Half of an odd kernel all round, or none, is fast.
      feature_group_count: groups; 1 unless depthwise.
      **others: of `lax.conv_general_dilated`.

    Returns:
      `[n, h', w', o]`.
    """
    direct = partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        feature_group_count=feature_group_count,
        **others,
    )
    (rows, columns, *_), stride = kernel.shape, window_strides[0]
    margins = {tuple(pair) for pair in padding}
    margin = next((side for side in (rows // 2, 0) if margins == {(side, side)}), None)
    square = rows == columns and rows % 2 == 1 and stride == window_strides[1]
    if is_plain() or not square or margin is None or feature_group_count > 1:
        return direct(x, kernel)
    few_channels = stride == 2 and x.shape[3] <= 4 and margin
    return lax.platform_dependent(
        x,
        kernel,
        # Winograd's sums cancel: in bfloat16 they would leave twelve times XLA's error.
        cpu=direct if x.dtype.itemsize < 4 else partial(_convolve, stride, margin),
        default=_space_to_depth if few_channels else direct,
    )


def is_product(size: int, height: int, width: int) -> bool:
    """Whether CPUs compute a convolution of one image as one product: of this kernel, to such maps.

    Of more images Winograd's algorithm takes some of them.
    """
    return size == 1 or height * width <= _SMALL_MAP


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve(stride: int, margin: int, x: Array, kernel: Array) -> Array:
    """A convolution of an odd kernel on a CPU; the margin, half of it or 0, is padded all round."""
    size, _, c, o = kernel.shape
    n, h, w, _ = x.shape
    height, width = ((extent + 2 * margin - size) // stride + 1 for extent in (h, w))
    if _takes_winograd(stride, margin, x, kernel):
        return winograd.convolve(x, kernel, _tile(x))
    if not is_product(size, height, width):
        return _direct(stride, margin, x, kernel)
    taps = _taps(x, size, stride, margin)
    patches = jnp.concatenate(taps, axis=-1).reshape(-1, size * size * c)
    return (patches @ kernel.reshape(-1, o)).reshape(n, height, width, o)


def _takes_winograd(stride: int, margin: int, x: Array, kernel: Array) -> bool:
    n, h, w, _ = x.shape
    size, _, c, o = kernel.shape
    worthwhile = n * h * w >= _WINOGRAD_PIXELS and min(c, o) >= _WINOGRAD_CHANNELS
    return (size, stride, margin) == (3, 1, 1) and worthwhile


def _tile(x: Array) -> int:
    """The tile that needs the fewest products; the smallest, where there are not enough tiles."""
    n, h, w, _ = x.shape
    enough = [
        tile
        for tile in winograd.TILES
        if tile == min(winograd.TILES) or n * winograd.tiles(tile, h, w) >= _WINOGRAD_TILES
    ]
    return min(enough, key=lambda tile: winograd.products(tile, h, w))


def _forward(
    stride: int, margin: int, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(stride, margin, x, kernel), (x, kernel)


def _backward(
    stride: int, margin: int, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    arguments = (stride, margin, *residuals, dy)
    return _input_gradient(*arguments), _kernel_gradient(*arguments)


_convolve.defvjp(_forward, _backward)


def _input_gradient(stride: int, margin: int, x: Array, kernel: Array, dy: Array) -> Array:
    """The gradient of x, of the shape of x."""
    size, _, c, o = kernel.shape
    (_, h, w, _), (_, height, width, _) = x.shape, dy.shape
    if _takes_winograd(stride, margin, dy, kernel):
        return winograd.input_gradient(dy, kernel, _tile(dy))
    if size > 1 and height * width > _SMALL_MAP:
        return jax.vjp(lambda x: _direct(stride, margin, x, kernel), x)[1](dy)[0]
    # One product for all taps, on the kernel as it lies; then each tap's share goes to its place.
    shares = lax.dot_general(dy, kernel.reshape(-1, o), (((3,), (1,)), ((), ())))
    shares = shares.reshape(-1, height, width, size, size, c)
    total = jnp.zeros_like(x)
    for row in range(size):
        for column in range(size):
            share = shares[:, :, :, row, column]
            places = [
                (at, extent - (length - 1) * stride - 1 - at, stride - 1)
                for at, extent, length in (
                    (row - margin, h, height),
                    (column - margin, w, width),
                )
            ]
            total += lax.pad(share, jnp.zeros((), share.dtype), ((0, 0, 0), *places, (0, 0, 0)))
    return total


def _kernel_gradient(stride: int, margin: int, x: Array, kernel: Array, dy: Array) -> Array:
    """The gradient of the kernel, of its shape."""
    size, _, c, o = kernel.shape
    n, height, width, _ = dy.shape
    if size == 1:
        return _product(x[:, ::stride, ::stride], dy).reshape(kernel.shape)
    if (size, stride, margin) == (3, 1, 1) and c >= size:
        return winograd.kernel_gradient(x, dy, _tile(dy))
    if c < size:
        part, copied = partial(_gradient_by_planes, size, stride, margin), size * size * c
    elif (size, stride) == (3, 2):
        part, copied = partial(_gradient_by_shifts, margin), 6 * c + 3 * o
    else:
        return jax.vjp(lambda kernel: _direct(stride, margin, x, kernel), kernel)[1](dy)[0]
    if height * width <= _SMALL_MAP:
        return part(x, dy)
    chunk = max(_CHUNK_BYTES // (height * width * copied * x.dtype.itemsize), 1)
    chunk = max(size for size in range(1, min(chunk, n) + 1) if n % size == 0)

    def add(total: Array, images: tuple[Array, Array]) -> tuple[Array, None]:
        return total + part(*images), None

    xs, dys = (a.reshape(n // chunk, chunk, *a.shape[1:]) for a in (x, dy))
    return lax.scan(add, jnp.zeros_like(kernel), (xs, dys))[0]


def _gradient_by_shifts(margin: int, x: Array, dy: Array) -> Array:
    """Of a 3x3 kernel and stride 2: x shifted by rows, and dy by columns where taps share pixels.

    The outer columns of the kernel see the even columns of the padded images, the middle one the
    odd ones. So each pixel is copied no more than three times, and two large products do it all.
    """
    (_, h, w, c), (_, height, width, o) = x.shape, dy.shape
    ends = [(margin, margin and 1 + extent % 2) for extent in (h, w)]
    padded = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    rows = [padded[:, row : row + 2 * height - 1 : 2] for row in range(3)]
    even = jnp.concatenate([row[:, :, 0::2][:, :, : width + 1] for row in rows], axis=-1)
    odd = jnp.concatenate([row[:, :, 1::2][:, :, :width] for row in rows], axis=-1)
    left = jnp.pad(dy, ((0, 0), (0, 0), (0, 1), (0, 0)))
    right = jnp.pad(dy, ((0, 0), (0, 0), (1, 0), (0, 0)))
    outer = _product(even, jnp.concatenate([left, right], axis=-1)).reshape(3, c, 2, o)
    middle = _product(odd, dy).reshape(3, c, o)
    return jnp.stack([outer[:, :, 0], middle, outer[:, :, 1]], axis=1)


def _gradient_by_planes(size: int, stride: int, margin: int, x: Array, dy: Array) -> Array:
    """Of images of few channels: whole planes are copied, where pixels would be too short."""
    c, o = x.shape[3], dy.shape[3]
    taps = jnp.stack(_taps(x, size, stride, margin))  # [k * k, n, h', w', c]
    return (jnp.moveaxis(taps, 4, 1).reshape(size * size * c, -1) @ dy.reshape(-1, o)).reshape(
        size, size, c, o
    )


def _space_to_depth(x: Array, kernel: Array) -> Array:
    """A convolution of stride 2 as one of stride 1 on blocks of 2 x 2 pixels.

    Matrix units multiply over channels, and three of them would leave most of a unit idle. Blocks
    have twelve, and the 7 x 7 kernel, with a row and a column of zeros before it, is 4 x 4 blocks.
    """
    (size, _, c, o), (n, h, w, _) = kernel.shape, x.shape
    even = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    blocks = even.reshape(n, (h + 1) // 2, 2, (w + 1) // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    # Output p reads pixels 2p - k // 2 and on; a block begins at an even pixel.
    before = (size // 2) % 2
    after = (size + before) % 2
    count = (before + size + after) // 2
    full = jnp.pad(kernel, ((before, after), (before, after), (0, 0), (0, 0)))
    full = full.reshape(count, 2, count, 2, c, o).transpose(0, 2, 1, 3, 4, 5)
    lead = (size // 2 + before) // 2
    return lax.conv_general_dilated(
        blocks.reshape(n, (h + 1) // 2, (w + 1) // 2, 4 * c),
        full.reshape(count, count, 4 * c, o),
        (1, 1),
        [(lead, count - 1 - lead)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _direct(stride: int, margin: int, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(margin, margin)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _taps(x: Array, size: int, stride: int, margin: int) -> list[Array]:
    """What each tap of the kernel sees, row by row: `[n, h', w', c]` each."""
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    down, across = (extent - size + 1 for extent in padded.shape[1:3])
    return [
        padded[:, row : row + down : stride, column : column + across : stride]
        for row in range(size)
        for column in range(size)
    ]


def _product(a: Array, b: Array) -> Array:
    """The sum over images and positions, `[n, h, w, c], [n, h, w, o] -> [c, o]`."""
    return lax.dot_general(a, b, (((0, 1, 2), (0, 1, 2)), ((), ())))
