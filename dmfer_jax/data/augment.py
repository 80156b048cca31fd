"""Augmentation on the device: pure functions of a key and a batch, inside the jitted step.

Each works on float images `[n, h, w, c]` in 0 to 1 and draws its own random numbers per image, so
a step's images depend on (seed, step) alone. A strength of 0 leaves the images as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict


def augment(key: Array, images: Array, options: ConfigDict) -> Array:
    """Applies every augmentation of single images whose strength is not 0.

    Args:
      key: a random key.
      images: `[n, h, w, c]` float32 in 0 to 1.
      options: `config.augment`.

    Returns:
      Images like `images`, in 0 to 1.
    """
    given: Any = options  # Any: ConfigDict's annotation says that a field may be of any type
    keys = jax.random.split(key, 4)
    if given.rotation or given.shift or given.scale or given.flip:
        images = warp(
            keys[0],
            images,
            flip=given.flip,
            rotation=given.rotation,
            shift=given.shift,
            scale=given.scale,
        )
    if given.brightness:
        images = change_brightness(keys[1], images, given.brightness)
    if given.contrast:
        images = change_contrast(keys[2], images, given.contrast)
    if given.erase:
        images = erase(keys[3], images, given.erase, tuple(given.erase_area))
    return images


def normalize(images: Array) -> Array:
    """Returns uint8 or 0-to-1 float images `[n, h, w, c]` in -1 to 1, as the network takes them."""
    if images.dtype == jnp.uint8:
        images = to_float(images)
    return images * 2.0 - 1.0


def to_float(images: Array) -> Array:
    """Returns uint8 images as float32 in 0 to 1."""
    return images.astype(jnp.float32) / 255.0


def warp(
    key: Array, images: Array, *, flip: float, rotation: float, shift: float, scale: float
) -> Array:
    """Mirrors, rotates, shifts and scales each image about its center, in one resampling.

    Args:
      key: a random key.
      images: `[n, h, w, c]`.
      flip: probability of a mirror image.
      rotation: degrees; drawn from -rotation to rotation.
      shift: share of the side; drawn from -shift to shift, each way.
      scale: drawn from 1 - scale to 1 + scale.

    Returns:
      Images like `images`, bilinear; pixels from outside repeat the edge.
    """
    n, h, w, _ = images.shape
    keys = jax.random.split(key, 5)

    def draw(key: Array, limit: float) -> Array:
        return jax.random.uniform(key, (n, 1, 1), minval=-limit, maxval=limit)

    angle = jnp.deg2rad(draw(keys[0], rotation))
    zoom = 1.0 + draw(keys[1], scale)
    mirror = jnp.where(jax.random.bernoulli(keys[4], flip, (n, 1, 1)), -1.0, 1.0)
    # Where each output pixel comes from, in pixels from the center.
    y = jnp.arange(h, dtype=jnp.float32)[None, :, None] - (h - 1) / 2
    x = (jnp.arange(w, dtype=jnp.float32)[None, None, :] - (w - 1) / 2) * mirror
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    from_y = sin * x + cos * y + (h - 1) / 2 + draw(keys[2], shift) * h
    from_x = cos * x - sin * y + (w - 1) / 2 + draw(keys[3], shift) * w
    return _bilinear(images, from_y, from_x)


def change_brightness(key: Array, images: Array, strength: float) -> Array:
    """Adds to each image a number drawn from -strength to strength."""
    shape = (images.shape[0], 1, 1, 1)
    added = jax.random.uniform(key, shape, minval=-strength, maxval=strength)
    return jnp.clip(images + added, 0.0, 1.0)


def change_contrast(key: Array, images: Array, strength: float) -> Array:
    """Multiplies each image's difference from its mean by 1 - strength to 1 + strength."""
    shape = (images.shape[0], 1, 1, 1)
    factor = jax.random.uniform(key, shape, minval=1.0 - strength, maxval=1.0 + strength)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return jnp.clip((images - mean) * factor + mean, 0.0, 1.0)


def erase(key: Array, images: Array, probability: float, area: tuple[float, float]) -> Array:
    """Random erasing (Zhong et al., 2020): fills a rectangle with noise.

    Args:
      key: a random key.
      images: `[n, h, w, c]`.
      probability: of erasing in an image.
      area: the rectangle's least and largest share of the image; its sides' ratio is 0.3 to 3.3.
    """
    n, h, w, _ = images.shape
    keys = jax.random.split(key, 6)
    share = jax.random.uniform(keys[0], (n, 1, 1), minval=area[0], maxval=area[1])
    ratio = jnp.exp(jax.random.uniform(keys[1], (n, 1, 1), minval=-1.2, maxval=1.2))
    height = jnp.minimum(jnp.sqrt(share * ratio), 1.0) * h
    width = jnp.minimum(jnp.sqrt(share / ratio), 1.0) * w
    top = jax.random.uniform(keys[2], (n, 1, 1)) * (h - height)
    left = jax.random.uniform(keys[3], (n, 1, 1)) * (w - width)
    # Pixel centers: corners would leave the first row and column out for ever.
    y, x = jnp.arange(h)[None, :, None] + 0.5, jnp.arange(w)[None, None, :] + 0.5
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    chosen = jax.random.bernoulli(keys[4], probability, (n, 1, 1))
    noise = jax.random.uniform(keys[5], images.shape, images.dtype)
    return jnp.where((inside & chosen)[..., None], noise, images)


def mix(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Mixup (Zhang et al., 2018): lays another image of the batch over each, and its target, too.

    The other is the one before it in the batch, whose order is random. An image keeps at least half
    of itself, which is the same mixture seen from the other side.

    Args:
      key: a random key.
      images: `[n, h, w, c]`.
      targets: `[n, K]`.
      alpha: shares are drawn from Beta(alpha, alpha); the smaller, the less is mixed.

    Returns:
      Images and targets like those given.
    """
    share = jax.random.beta(key, alpha, alpha, (images.shape[0],), images.dtype)
    share = jnp.maximum(share, 1.0 - share)

    def laid_over(values: Array) -> Array:
        own = share.reshape(-1, *[1] * (values.ndim - 1))
        return own * values + (1.0 - own) * jnp.roll(values, 1, axis=0)

    return laid_over(images), laid_over(targets)


def _bilinear(images: Array, y: Array, x: Array) -> Array:
    """Samples `images [n, h, w, c]` at pixel positions `y, x [n, h, w]`."""
    _, h, w, _ = images.shape
    y, x = jnp.clip(y, 0.0, h - 1.0), jnp.clip(x, 0.0, w - 1.0)
    return jax.lax.platform_dependent(
        images, y, x, tpu=_sample_by_products, default=_sample_by_lookup
    )


def _sample_by_lookup(images: Array, y: Array, x: Array) -> Array:
    """Looks up the 2 x 2 pixels around each position, and weighs them."""
    _, h, w, c = images.shape
    top = jnp.minimum(jnp.floor(y).astype(jnp.int32), h - 2)
    left = jnp.minimum(jnp.floor(x).astype(jnp.int32), w - 2)
    found = jax.lax.gather(  # [n, h, w, 2, 2, c]
        images,
        jnp.stack([top, left], axis=-1),
        jax.lax.GatherDimensionNumbers(
            offset_dims=(3, 4, 5),
            collapsed_slice_dims=(),
            start_index_map=(1, 2),
            operand_batching_dims=(0,),
            start_indices_batching_dims=(0,),
        ),
        (1, 2, 2, c),
        mode="promise_in_bounds",  # positions are clipped; unpromised, all would be checked again
    )
    below, right = (y - top)[..., None], (x - left)[..., None]
    upper = found[..., 0, 0, :] * (1 - right) + found[..., 0, 1, :] * right
    lower = found[..., 1, 0, :] * (1 - right) + found[..., 1, 1, :] * right
    return upper * (1 - below) + lower * below


_PARTS = 4
"""Parts that `_sample_by_products` computes one after the other, to need less memory."""


def _sample_by_products(images: Array, y: Array, x: Array) -> Array:
    """The same by matrix products over all pixels, most of them times 0.

    A TPU looks pixels up one by one: for 1,024 images of 112 pixels XLA counts 3.4 TB moved by all
    augmentation, and 17 GB like this. It rounds what it multiplies to bfloat16, which moves a
    pixel by less than one grey level.
    """
    n, h, w, _ = images.shape
    by_channel = jnp.moveaxis(images, 3, 1)

    def weights(positions: Array, pixels: int) -> Array:
        """How much of each pixel a position has: `[n, pixels, positions]`."""
        distance = positions[:, None] - jnp.arange(float(pixels))[:, None]
        return jnp.maximum(1.0 - jnp.abs(distance), 0.0)

    def sample(y: Array, x: Array) -> Array:
        """Samples at `[n, p]`. In this order XLA makes one operation of it all."""
        between_rows = jnp.einsum("nip,ncij->ncjp", weights(y, h), by_channel)
        return jnp.sum(between_rows * weights(x, w)[:, None], axis=2)  # [n, c, p]

    parts = zip(
        *(jnp.array_split(at.reshape(n, h * w), _PARTS, axis=1) for at in (y, x)), strict=True
    )
    found = jnp.concatenate([sample(*part) for part in parts], axis=2)
    return jnp.moveaxis(found, 1, 2).reshape(images.shape)
