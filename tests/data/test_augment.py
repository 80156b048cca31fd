"""Augmentation by one strength at a time, on images where the right answer is plain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dmfer_jax.config import get_config
from dmfer_jax.data import augment

N, SIDE = 32, 16
OFF = {
    "flip": 0.0,
    "rotation": 0.0,
    "shift": 0.0,
    "scale": 0.0,
    "erase": 0.0,
    "erase_area": (0.1, 0.3),
    "brightness": 0.0,
    "contrast": 0.0,
}


# Strengths are numbers that a compiled function takes, so that each is compiled once for all tests.
_warp = jax.jit(augment.warp)
_erase = jax.jit(augment.erase)
_change_brightness = jax.jit(augment.change_brightness)
_change_contrast = jax.jit(augment.change_contrast)
_mix = jax.jit(augment.mix)


def warp(images: np.ndarray, **strengths: float) -> np.ndarray:
    off = {"flip": 0.0, "rotation": 0.0, "shift": 0.0, "scale": 0.0}
    return np.asarray(_warp(jax.random.key(0), images, **{**off, **strengths}))


def erase(probability: float, area: tuple[float, float] = (0.1, 0.3), seed: int = 0) -> np.ndarray:
    """Erases in black images."""
    black = np.zeros((N, SIDE, SIDE, 1), np.float32)
    return np.asarray(_erase(jax.random.key(seed), black, probability, area))


def noise(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).random((N, SIDE, SIDE, channels), np.float32)


def test_every_strength_of_the_config_is_known_here():
    mixes = {"mixup"}  # which is of batches, with their targets
    assert OFF.keys() | mixes == get_config().to_dict()["augment"].keys()


def program(**strengths: float) -> Any:
    options = ConfigDict({**OFF, **strengths})
    return jax.make_jaxpr(lambda key, images: augment.augment(key, images, options))(
        jax.random.key(0), noise()
    ).jaxpr


def test_all_strengths_at_zero_leave_images_as_they_are():
    jaxpr = program()
    assert jaxpr.outvars == [jaxpr.invars[1]]


@pytest.mark.parametrize("strength", sorted(OFF.keys() - {"erase_area"}))
def test_each_strength_alone_changes_images(strength):
    jaxpr = program(**{strength: 0.5})
    assert jaxpr.outvars != [jaxpr.invars[1]]


def test_each_strength_is_given_to_what_it_is_the_strength_of():
    key, images = jax.random.key(3), jnp.asarray(noise())
    keys = jax.random.split(key, 4)
    still = {"flip": 0.0, "rotation": 0.0, "shift": 0.0, "scale": 0.0}
    expected = {
        **{name: lambda a, name=name: augment.warp(keys[0], images, **{**still, name: a})
           for name in still},
        "brightness": lambda a: augment.change_brightness(keys[1], images, a),
        "contrast": lambda a: augment.change_contrast(keys[2], images, a),
        "erase": lambda a: augment.erase(keys[3], images, a, OFF["erase_area"]),
    }  # fmt: skip
    assert expected.keys() == OFF.keys() - {"erase_area"}
    for name, direct in expected.items():
        found = augment.augment(key, images, ConfigDict({**OFF, name: 0.4}))
        np.testing.assert_allclose(found, direct(0.4), atol=1e-6, err_msg=name)


def test_all_together_keep_type_and_range_and_depend_on_key_and_image():
    images = np.repeat(noise(channels=3)[:1], N, axis=0)
    options: Any = get_config().augment
    step = jax.jit(lambda key: augment.augment(key, jnp.asarray(images), options))
    found = np.asarray(step(jax.random.key(0)))
    assert found.shape == images.shape
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert len(np.unique(found.reshape(N, -1), axis=0)) == N
    np.testing.assert_array_equal(found, step(jax.random.key(0)))
    assert (found != step(jax.random.key(1))).any()


def test_warp_without_strength_leaves_images_as_they_are():
    np.testing.assert_array_equal(warp(noise()), noise())


def test_certain_flip_mirrors_every_image():
    np.testing.assert_array_equal(warp(noise(), flip=1.0), noise()[:, :, ::-1])


def test_flip_of_one_half_mirrors_about_half_of_the_images():
    images = noise()
    found = warp(images, flip=0.5)
    mirrored = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (found == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    # 32 throws of a coin: fewer than 6 or more than 26 in one of 5,000 draws.
    assert 6 <= mirrored.sum() <= 26


def dots(y: float, x: float) -> np.ndarray:
    """Images of one soft dot; a single pixel's centroid would jump between the sampled points."""
    along = np.arange(SIDE, dtype=np.float32)
    dot = np.exp(-(np.square(along[:, None] - y) + np.square(along - x)) / 2)
    return np.tile(dot[:, :, None], (N, 1, 1, 1))


def centroids(images: np.ndarray) -> np.ndarray:
    """Center of mass of each image, [n, 2], in pixels from the image's center (down, right)."""
    weights = images[..., 0] / images[..., 0].sum(axis=(1, 2), keepdims=True)
    along = np.arange(SIDE) - (SIDE - 1) / 2
    return np.stack([weights.sum(axis=2) @ along, weights.sum(axis=1) @ along], axis=1)


CENTER = (SIDE - 1) / 2


def test_shift_moves_a_dot_by_at_most_the_share_of_the_side():
    moved = centroids(warp(dots(CENTER, CENTER), shift=0.2))
    assert np.abs(moved).max() <= 0.2 * SIDE
    # Both ways, on both axes, and not in step with each other.
    assert (moved.max(axis=0) > 0.1 * SIDE).all()
    assert (moved.min(axis=0) < -0.1 * SIDE).all()
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.6


def test_shift_repeats_the_edge():
    rows = np.repeat(np.linspace(0, 1, SIDE, dtype=np.float32), SIDE).reshape(1, SIDE, SIDE, 1)
    found = warp(np.repeat(rows, N, axis=0), shift=0.5)
    # Down to the last row, brightness may stand still but never falls back to 0.
    assert (np.diff(found[..., 0], axis=1) >= -1e-6).all()


def test_rotation_turns_a_dot_about_the_center_and_keeps_its_distance():
    down, right = centroids(warp(dots(CENTER, CENTER + 4), rotation=30.0)).T
    angles = np.rad2deg(np.arctan2(down, right))
    assert -30 <= angles.min() < -15
    assert 15 < angles.max() <= 30
    np.testing.assert_allclose(np.hypot(down, right), 4, atol=0.02)


def test_scale_moves_a_dot_along_its_ray_by_at_most_the_strength():
    down, right = centroids(warp(dots(CENTER, CENTER + 4), scale=0.3)).T
    np.testing.assert_allclose(down, 0, atol=1e-4)
    assert 0.7 - 0.01 <= right.min() / 4 < 0.8
    assert 1.2 < right.max() / 4 <= 1.3 + 0.01


def test_rotation_and_scale_together_keep_angles_and_proportions():
    # The same key turns both images of dots alike: one right of the center, one below it.
    right = centroids(warp(dots(CENTER, CENTER + 4), rotation=45.0, scale=0.3))
    below = centroids(warp(dots(CENTER + 4, CENTER), rotation=45.0, scale=0.3))
    np.testing.assert_allclose(np.sum(right * below, axis=1), 0, atol=1e-3)
    lengths = np.linalg.norm(right, axis=1)
    np.testing.assert_allclose(np.linalg.norm(below, axis=1), lengths, rtol=1e-3)
    assert abs(np.corrcoef(np.arctan2(*right.T), lengths)[0, 1]) < 0.6  # drawn apart
    # The scale is the same with a rotation as without one.
    unturned = centroids(warp(dots(CENTER, CENTER + 4), scale=0.3))
    np.testing.assert_allclose(lengths, np.linalg.norm(unturned, axis=1), rtol=0.03)


def test_brightness_adds_one_number_to_each_image_within_the_strength():
    images = 0.3 + 0.4 * noise()
    added = _change_brightness(jax.random.key(0), images, 0.25) - images
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-6
    assert added.min() < -0.15
    assert added.max() > 0.15
    assert np.abs(added).max() <= 0.25 + 1e-6


def test_contrast_stretches_each_image_about_its_mean_within_the_strength():
    images = 0.4 + 0.2 * noise()
    found = np.asarray(_change_contrast(jax.random.key(0), images, 0.5))
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    factors = ((found - mean) * (images - mean)).sum(axis=(1, 2, 3), keepdims=True)
    factors /= np.square(images - mean).sum(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, mean + factors * (images - mean), atol=1e-5)
    assert 0.5 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.5


@pytest.mark.parametrize("change", [_change_brightness, _change_contrast])
def test_values_stay_within_the_range(change):
    found = change(jax.random.key(0), noise(), 1.0)
    assert found.min() == 0
    assert found.max() == 1


def erased_boxes(found: np.ndarray) -> list[tuple[int, int, float]]:
    """Height, width and share changed within, of the box around what differs from black."""
    boxes = []
    for image in found:
        changed = image.any(axis=-1)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        boxes.append((int(height), int(width), changed.sum() / (height * width)))
    return boxes


def test_certain_erasing_fills_a_rectangle_of_the_area_asked_for():
    found = erase(1.0)
    for height, width, filled in erased_boxes(found):
        assert filled == 1.0
        # A side of s pixels covers s - 1 to s + 1 pixel centers; its ratio is 0.3 to 3.3.
        assert (height - 1) * (width - 1) <= 0.3 * SIDE * SIDE
        assert (height + 1) * (width + 1) >= 0.1 * SIDE * SIDE
        assert (height - 1) / (width + 1) <= 3.4
        assert (width - 1) / (height + 1) <= 3.4
    areas = [height * width for height, width, _ in erased_boxes(found)]
    assert max(areas) > 1.8 * min(areas)
    inside = found[found > 0]
    assert inside.std() == pytest.approx(np.sqrt(1 / 12), rel=0.05)  # uniform noise


def test_erasing_reaches_the_first_row_and_column_as_often_as_the_last():
    # A rectangle this small fits in between, so only where it is put decides.
    changed = np.concatenate([erase(1.0, (0.1, 0.1), seed) > 0 for seed in range(12)])[..., 0]
    rows, columns = changed.any(axis=2).sum(axis=0), changed.any(axis=1).sum(axis=0)
    for first, last in (rows[[0, -1]], columns[[0, -1]]):
        # About 5 % of 384 images each: 20, with a standard deviation of 4.
        assert 5 <= first <= 40
        assert 5 <= last <= 40


def test_erasing_of_one_half_spares_about_half_of_the_images():
    assert 6 <= erase(0.5).any(axis=(1, 2, 3)).sum() <= 26


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.1, 0.93, 1.0), (1.0, 0.7, 0.8)])
def test_mixup_lays_the_image_before_over_each_and_its_target_as_much(alpha, low, high):
    images = np.random.default_rng(0).random((N, 3, 3, 1), np.float32)
    targets = np.eye(N, dtype=np.float32)
    mixed, aims = map(np.asarray, _mix(jax.random.key(0), images, targets, alpha))
    share = np.diagonal(aims)
    assert share.min() >= 0.5
    assert low < share.mean() < high  # of Beta(1, 1) the larger share is 3/4 in the mean
    assert len(np.unique(share)) > 1
    before = np.arange(N) - 1
    expected = np.zeros((N, N))
    expected[np.arange(N), np.arange(N)] = share
    expected[np.arange(N), before] = 1 - share
    np.testing.assert_allclose(aims, expected, atol=1e-6)
    own = share[:, None, None, None]
    np.testing.assert_allclose(mixed, own * images + (1 - own) * images[before], atol=1e-6)


def test_bytes_become_zero_to_one_and_the_network_takes_minus_one_to_one():
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(np.ravel(augment.to_float(jnp.asarray(images))), [0, 0.2, 1])
    for given in (images, augment.to_float(jnp.asarray(images))):
        found = augment.normalize(jnp.asarray(given))
        np.testing.assert_allclose(np.ravel(found), [-1, -0.6, 1], atol=1e-6)


@pytest.mark.parametrize(("height", "width", "channels"), [(16, 16, 1), (9, 13, 3)])
def test_products_sample_what_looking_up_finds(height, width, channels):
    random = np.random.default_rng(1)
    images = random.random((5, height, width, channels), np.float32)
    y, x = (random.uniform(0, side - 1, (5, height, width)) for side in (height, width))
    y[0, 0, :3], x[0, 0, :3] = (
        (0, height - 1, 4),
        (width - 1, 0, 7),
    )  # corners, and a pixel's center
    images, y, x = (jnp.asarray(array, jnp.float32) for array in (images, y, x))
    found = augment._sample_by_lookup(images, y, x)
    products = augment._sample_by_products(images, y, x)
    np.testing.assert_allclose(products, found, atol=2e-6)
    np.testing.assert_allclose(found[0, 0, 2], images[0, 4, 7], atol=1e-6)
