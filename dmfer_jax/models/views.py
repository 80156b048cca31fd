"""Views of an image whose embeddings are averaged where nothing is trained.

A network answers a little differently for the mirror image and for a face that is a little larger;
the mean over both is the better answer, and costs as many passes as there are views.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from dmfer_jax.models.vectors import EXACT

ZOOMS = (1.0, 1.08, 1.16)
"""How much each view is enlarged about its center; what exceeds the image is cut off.

Chosen on FERPlus's PublicTest (results/views_face.json).
"""


def number_of_views(flip: bool, zoom: bool) -> int:
    """Returns how many views `lay_out_views` makes of an image."""
    return (2 if flip else 1) * (len(ZOOMS) if zoom else 1)


def lay_out_views(images: Array, flip: bool, zoom: bool) -> Array:
    """Returns `[views * n, h, w, c]`: the views of each image of `[n, h, w, c]` behind each other.

    Not all images and then all mirror images: what lies on several devices stays where it is.

    Args:
      images: float.
      flip: whether mirror images are among the views.
      zoom: whether there is a view for each of `ZOOMS`.
    """
    shape = images.shape[1:]
    views = [enlarge(images, factor) for factor in ZOOMS] if zoom else [images]
    if flip:
        views += [jnp.flip(view, axis=2) for view in views]
    return images if len(views) == 1 else jnp.stack(views, axis=1).reshape(-1, *shape)


def mean_over_views(rows: Array, views: int) -> Array:
    """Returns the means `[n, C]` of each `views` neighbours of `[views * n, C]`."""
    return rows.reshape(-1, views, rows.shape[-1]).mean(axis=1)


def enlarge(images: Array, factor: float) -> Array:
    """Returns images `[n, h, w, c]` enlarged about their center, bilinear, cut to `[h, w]`.

    Two products with constant matrices: no device has to gather pixels.
    """
    if factor == 1.0:
        return images
    rows, columns = (resampling(pixels, factor) for pixels in images.shape[1:3])
    enlarged = jnp.einsum("yh,nhwc->nywc", rows, images, precision=EXACT)
    return jnp.einsum("xw,nywc->nyxc", columns, enlarged, precision=EXACT).astype(images.dtype)


def resampling(pixels: int, factor: float) -> np.ndarray:
    """Returns float32 `[pixels, pixels]`: the weight of each input pixel in each output pixel."""
    middle = (pixels - 1) / 2
    position = np.clip((np.arange(pixels) - middle) / factor + middle, 0, pixels - 1)
    distance = np.abs(position[:, None] - np.arange(pixels))
    return np.maximum(1.0 - distance, 0.0).astype(np.float32)
