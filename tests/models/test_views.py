"""Views of an image: against Pillow's resampling, and against the network on each alone."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dmfer_jax.models import views
from dmfer_jax.models.dmfer import Dmfer
from tests.models.variables import draw_variables


@pytest.mark.parametrize("factor", [views.ZOOMS[1], views.ZOOMS[2], 2.0])
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


@pytest.mark.parametrize("flip", [False, True])
def test_embedding_is_the_mean_over_what_the_network_says_of_each_view(flip):
    plain = Dmfer(8, stem="small", stem_stride=2, width=0.125, embedding=16, heads=2)
    images = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)
    variables = draw_variables(plain, images)
    found = plain.clone(zoom_average=True, flip_average=flip).apply(variables, images)
    seen = [views.enlarge(jnp.asarray(images), factor) for factor in views.ZOOMS]
    seen += [view[:, :, ::-1] for view in seen] if flip else []
    alone = [plain.apply(variables, view) for view in seen]
    assert np.abs(alone[0].logits - alone[1].logits).max() > 1e-3
    for name in ("logits", "embedding"):  # the head is linear, so that its mean is, too
        mean = np.mean([getattr(one, name) for one in alone], axis=0)
        np.testing.assert_allclose(
            getattr(found, name), mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max()
        )
