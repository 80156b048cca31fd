"""A batch holds its images, however they lie in the memory of a device."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from dmfer_jax import feeding, sharding
from dmfer_jax.data.sources import ChosenImages, Split


def make_split(size: int, channels: int, number: int = 21) -> Split:
    """A split of images that all differ."""
    draw = np.random.default_rng(0)
    shape = (number, size, size, channels)
    return Split(
        name="train",
        images=draw.integers(0, 256, shape).astype(np.uint8),
        labels=(np.arange(number) % 3).astype(np.int32),
        targets=np.eye(3, dtype=np.float32)[np.arange(number) % 3],
        rows=np.arange(number),
        repeated=np.zeros(number, bool),
        names=np.array([f"{row}.png" for row in range(number)]),
        groups={},
        class_names=("a", "b", "c"),
    )


def batches_of(
    split: Split, size: int, number: int, gib: float = 1.0
) -> list[dict[str, np.ndarray]]:
    feed = feeding.Feed(split, sharding.make_mesh(), gib)
    assert feed.resident == (gib > 0)
    options: Any = {"seed": 3, "sampling": "natural", "start_step": 0, "workers": 1}
    batches = feed.train_batches(size, **options)
    return [jax.device_get(next(batches)) for _ in range(number)]


@pytest.mark.parametrize(("size", "channels"), [(7, 3), (16, 1), (8, 3)])
def test_images_in_rows_as_a_tpu_has_them_are_the_same_batches(monkeypatch, size, channels):
    split = make_split(size, channels)  # 147, 256 and 192 bytes: the first and last are padded
    expected = batches_of(split, 8, 4)
    monkeypatch.setattr(feeding, "platform", lambda mesh: "tpu")
    found = batches_of(split, 8, 4)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["target"], theirs["target"])
    in_order = {tuple(image.ravel()) for image in np.asarray(split.images)}
    assert {tuple(image.ravel()) for batch in found for image in batch["image"]} <= in_order


@pytest.mark.parametrize("gib", [1.0, 0.0])
def test_chosen_images_are_the_batches_of_an_array_of_them(gib):
    split = make_split(8, 1)
    expected = batches_of(split, 8, 4)
    images = np.zeros((40, 8, 8, 1), np.uint8)
    positions = np.arange(21)[::-1] + 5
    images[positions] = split.images[:]
    found = batches_of(replace(split, images=ChosenImages(images, positions)), 8, 4, gib)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_array_equal(ours["target"], theirs["target"])


@pytest.mark.parametrize(("size", "rows"), [(7, 2), (16, 2), (8, 2)])
def test_rows_are_padded_and_hold_every_byte(size, rows):
    channels = {7: 3, 16: 1, 8: 3}[size]
    images = np.asarray(make_split(size, channels).images)
    laid_out = feeding.lay_out(images)
    assert laid_out.shape == (21, rows, 128)
    flat = laid_out.reshape(21, -1)
    np.testing.assert_array_equal(flat[:, : size * size * channels], images.reshape(21, -1))
    assert not flat[:, size * size * channels :].any()
    assert (size == 16) == np.shares_memory(laid_out, images)  # nothing to pad, nothing to copy


@pytest.mark.parametrize("size", [1, 10, 12])
def test_evaluation_batches_of_any_size_hold_every_example_once(size):
    split = make_split(8, 1)
    feed = feeding.Feed(split, sharding.make_mesh(), 1.0)
    batches = list(map(jax.device_get, feed.eval_batches(size)))
    assert {len(batch["mask"]) for batch in batches} == {-(-size // 4) * 4}  # over four devices
    images = np.concatenate([batch["image"][batch["mask"] > 0] for batch in batches])
    np.testing.assert_array_equal(images, split.images)


@pytest.mark.parametrize(("number", "given", "expected"), [(5, 512, 8), (8, 512, 8), (21, 16, 16)])
@pytest.mark.parametrize("gib", [1.0, 0.0])
def test_a_small_split_is_scored_in_a_small_batch(number, given, expected, gib):
    mesh = sharding.make_mesh(jax.devices()[:1])
    feed = feeding.Feed(make_split(7, 1, number), mesh, gib)
    batches = [jax.device_get(batch) for batch in feed.eval_batches(given)]
    assert {len(batch["image"]) for batch in batches} == {expected}
    found = np.concatenate([batch["image"] for batch in batches])[:number]
    np.testing.assert_array_equal(found, feed.split.images)
