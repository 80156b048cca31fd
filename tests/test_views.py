"""The zooms of the benchmark of views, against Pillow's resampling."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import views


@pytest.mark.parametrize("factor", [1.08, 1.16, 2.0])
def test_enlarged_image_is_as_pillow_cuts_and_resizes_it(factor):
    # Pillow's map takes a pixel's middle, at half a pixel, to the middle that it comes from.
    picture = np.random.default_rng(0).random((23, 31), np.float32)
    found = np.asarray(views.enlarge(jnp.asarray(picture)[None, :, :, None], factor))[0, :, :, 0]
    (h, w), inner = picture.shape, [(pixels - 1) / factor for pixels in picture.shape]
    top, left = ((h - 1) - inner[0]) / 2, ((w - 1) - inner[1]) / 2
    affine = (1 / factor, 0, left + 0.5 - 0.5 / factor, 0, 1 / factor, top + 0.5 - 0.5 / factor)
    expected = Image.fromarray(picture).transform(
        (w, h), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


def test_enlarged_image_keeps_its_centre_and_its_range():
    picture = np.zeros((1, 9, 9, 1), np.float32)
    picture[0, 4, 4, 0] = 1.0
    found = np.asarray(views.enlarge(jnp.asarray(picture), 1.16))[0, :, :, 0]
    assert found[4, 4] == found.max() == 1.0
    np.testing.assert_array_equal(found, found[::-1, ::-1])
    flat = jnp.full((1, 9, 9, 1), 0.3)
    np.testing.assert_allclose(views.enlarge(flat, 1.16), flat, rtol=1e-6)
