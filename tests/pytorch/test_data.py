"""The DataLoader's augmentations are those of `dmfer_jax.data.augment`."""
# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the DataLoader needs the torch extra")

from dmfer_jax import config as configs  # noqa: E402
from dmfer_jax.data import augment  # noqa: E402
from dmfer_jax.pytorch import data  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 12, 3), dtype=np.uint8)


def to_tensor(image: Any) -> Any:
    """`[h, w, c]` -> `[c, h, w]`, copied."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def options(**strengths: float) -> Any:
    """Every augmentation off but those given."""
    options = configs.get_config().augment
    for name in options:
        if name != "erase_area":
            options[name] = strengths.get(name, 0.0)
    return options


def test_the_same_draws_warp_alike():
    images, key = jnp.asarray(IMAGES) / 255, jax.random.key(3)
    strengths = {"flip": 0.5, "rotation": 40.0, "shift": 0.2, "scale": 0.3}
    expected = jax.jit(lambda: augment.warp(key, images, **strengths))()
    keys = jax.random.split(key, 5)

    def draw(key: Any, limit: float) -> Any:
        return jax.random.uniform(key, (len(IMAGES),), minval=-limit, maxval=limit)

    angles, zooms = draw(keys[0], 40.0), 1 + draw(keys[1], 0.3)
    downs, rights = draw(keys[2], 0.2), draw(keys[3], 0.2)
    flips = jax.random.bernoulli(keys[4], 0.5, (len(IMAGES),))
    assert 0 < flips.sum() < len(IMAGES)
    for index, image in enumerate(np.asarray(images)):
        found = data.warp(
            to_tensor(image),
            mirrored=bool(flips[index]),
            angle=float(angles[index]),
            zoom=float(zooms[index]),
            down=float(downs[index]),
            right=float(rights[index]),
        )
        np.testing.assert_allclose(found.permute(1, 2, 0), expected[index], atol=2e-5)


def test_the_same_draws_change_contrast_alike():
    images, key = jnp.asarray(IMAGES) / 255, jax.random.key(5)
    factors = 1 + jax.random.uniform(key, (len(IMAGES),), minval=-0.4, maxval=0.4)
    expected = jax.jit(augment.change_contrast)(key, images, 0.4)
    for index, image in enumerate(np.asarray(images)):
        found = to_tensor(image)
        data.change_contrast(found, float(factors[index]))
        np.testing.assert_allclose(found.permute(1, 2, 0), expected[index], atol=1e-5)


def test_the_same_draws_erase_the_same_pixels_with_noise():
    key, area = jax.random.key(5), (0.1, 0.5)
    full = jnp.full((6, 9, 12, 1), 2.0)  # no noise is 2
    kept = jax.jit(lambda: augment.erase(key, full, 1.0, area))() == 2.0
    assert 0.1 < 1 - kept.mean() < 0.5
    keys = jax.random.split(key, 6)
    shares = jax.random.uniform(keys[0], (6,), minval=area[0], maxval=area[1])
    ratios = jnp.exp(jax.random.uniform(keys[1], (6,), minval=-1.2, maxval=1.2))
    tops, lefts = jax.random.uniform(keys[2], (6,)), jax.random.uniform(keys[3], (6,))
    for index in range(6):
        erased = torch.full((1, 9, 12), 2.0)
        data.erase(erased, *(float(values[index]) for values in (shares, ratios, tops, lefts)))
        np.testing.assert_array_equal((erased == 2.0)[0], kept[index, ..., 0])
        noise = erased[erased != 2.0]
        assert ((noise >= 0) & (noise < 1)).all()
        assert len(noise.unique()) == len(noise)


def test_without_strengths_an_epoch_is_every_image_once_normalised():
    targets = np.eye(6, dtype=np.float32)
    loader = data.make_loader(IMAGES, targets, options(), batch_size=2, workers=0)
    batches = list(loader)
    assert [(x.shape, t.shape) for x, t in batches] == [((2, 3, 9, 12), (2, 6))] * 3
    numbers = torch.cat([t for _, t in batches]).argmax(1)
    assert sorted(numbers.tolist()) == [0, 1, 2, 3, 4, 5]
    found = torch.cat([x for x, _ in batches]).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, IMAGES[numbers] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    "strength",
    ["flip", "rotation", "shift", "scale", "erase", "brightness", "contrast"],
)
def test_each_strength_changes_images_and_keeps_them_in_range(strength):
    dataset = data.AugmentedImages(IMAGES, np.eye(6, dtype=np.float32), options(**{strength: 0.3}))
    before = torch.from_numpy(IMAGES[0] / 127.5 - 1).float().permute(2, 0, 1)
    images = torch.stack([dataset[0][0] for _ in range(60)])
    assert (images != before).flatten(1).any(1).any()
    assert images.min() >= -1
    assert images.max() <= 1
    assert images.flatten(1).unique(dim=0).shape[0] > 1  # not always the same
