"""Intervals of paired differences, on cases whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import metrics
from dmfer_jax.reporting.bootstrap import METRICS, Interval, compare


def coin_flips(seeds: int, images: int, share: float, start: int) -> np.ndarray:
    """Predictions [seeds, images] of class 1, right for so many of images of class 1."""
    return (np.random.default_rng(start).random((seeds, images)) < share).astype(int)


def test_identical_predictions_differ_by_exactly_nothing():
    labels = np.random.default_rng(0).integers(4, size=50)
    said = np.random.default_rng(1).integers(4, size=(3, 50))
    found = compare(labels, said, said, 4, replicates=700)
    assert found == dict.fromkeys(METRICS, Interval(0, 0, 0))


def test_difference_is_that_of_the_reported_metrics():
    labels = np.random.default_rng(0).integers(3, size=60)
    said = np.random.default_rng(1).integers(4, size=(4, 60))  # class 3 is claimed and not there
    found = compare(labels, said[:2], said[2:], 4, replicates=10)
    summaries = [
        metrics.summarize(
            metrics.from_batch(
                jnp.eye(4)[one], jnp.array(labels), jnp.zeros(60), jnp.ones(60, bool)
            ),
            "abcd",
        )
        for one in said
    ]
    for metric in METRICS:
        a, b, c, d = (summary[metric] for summary in summaries)
        assert found[metric].value == pytest.approx((c + d - a - b) / 2)


def test_interval_of_one_seed_is_that_of_a_difference_of_proportions():
    images, before, after = 2000, 0.7, 0.75
    said = coin_flips(1, images, before, 0), coin_flips(1, images, after, 1)
    found = compare(np.ones(images, int), said[0], said[1], 2)["accuracy"]
    change = said[1] - said[0]
    assert found.value == pytest.approx(change.mean())
    # Of n independent differences the mean has the variance var / n; the normal law has 1.96.
    half = 1.96 * change.std() / np.sqrt(images)
    assert found.low == pytest.approx(change.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(change.mean() + half, abs=0.05 * half)


def test_seeds_that_differ_widen_the_interval_as_their_own_mean_varies():
    # Each seed of the other network is right for all images or for none: images tell nothing.
    other = np.array([[1] * 500, [0] * 500] * 8)
    found = compare(np.ones(500, int), np.ones_like(other), other, 2)["accuracy"]
    # The mean of 16 draws of 0 or -1 has a standard deviation of 1/2 / 4.
    assert found.value == -0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / 8, rel=0.06)


def test_noise_of_single_images_makes_the_interval_of_several_seeds_wide_by_a_known_factor():
    seeds, images = 5, 600
    before, after = (coin_flips(seeds, images, 0.7, start) for start in range(2))
    found = compare(np.ones(images, int), before, after, 2)["accuracy"]
    exact = 1.96 * np.sqrt(2 * 0.7 * 0.3 / (seeds * images))
    # As Owen (2007) has it: once for the images, and 1 - 1/seeds each for seeds and for both.
    expected = exact * np.sqrt(1 + 2 * (1 - 1 / seeds))
    assert exact < (found.high - found.low) / 2
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.12)


def test_pairing_by_image_narrows_what_two_networks_have_in_common():
    common = coin_flips(1, 1000, 0.7, 0)
    other = common.copy()
    other[0, :20] = 1 - other[0, :20]
    labels = np.ones(1000, int)
    pairs = (other, coin_flips(1, 1000, 0.7, 1))
    paired, apart = (compare(labels, common, one, 2, replicates=900)["accuracy"] for one in pairs)
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)


def test_same_seed_draws_the_same():
    before, after = (coin_flips(2, 40, 0.6, start) for start in range(2))

    def draw(seed: int) -> dict[str, Interval]:
        return compare(np.ones(40, int), before, after, 2, replicates=600, seed=seed)

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_interval_tells_whether_it_excludes_nothing():
    assert Interval(2, 1, 3).excludes_zero
    assert Interval(-2, -3, -1).excludes_zero
    assert not Interval(0.5, -1, 2).excludes_zero
    assert not Interval(0, 0, 0).excludes_zero
