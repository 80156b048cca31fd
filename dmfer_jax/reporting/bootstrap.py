"""How sure a difference between two networks is, both scored on the same images with equal seeds.

The difference varies with the images that happen to be in the split and with the seeds that happen
to be used. Both are drawn anew with replacement, many times: seeds, and images that are the same
for both networks and for all seeds (the bootstrap of Efron and Tibshirani, *An Introduction to the
Bootstrap*, 1993; for images and seeds that cross, Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics, 2007).

Where seeds differ little, such an interval errs to the wide side: what image and seed do together
counts up to three times (Owen, 2007). In simulations of normal effects with three seeds it was 1.5
times as wide as need be where seeds do nothing beyond the noise of single images, and right where
their variance is three times that of the images: 90 of 100 at 95 % held the truth, with three seeds
and with two. Where seeds do nearly everything, no few of them can tell how much: the interval is
then about the range of the seeds, which holds the truth 75 times of 100 with three seeds, 50 with
two.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

METRICS = ("accuracy", "mean_class_accuracy", "macro_f1")
"""The metrics that are compared, as `metrics.summarize` defines them."""

CONFIDENCE = 0.95
"""Of the intervals."""


class Interval(NamedTuple):
    """A difference and where it may lie."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side of 0."""
        return self.low > 0 or self.high < 0


def compare(
    labels: np.ndarray,
    baseline: np.ndarray,
    other: np.ndarray,
    num_classes: int,
    *,
    replicates: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns how much better a network is than a baseline, with percentile intervals.

    Args:
      labels: int `[n]`, true classes.
      baseline: int `[seeds, n]`, predicted classes of the baseline, a row for each seed.
      other: int `[seeds, n]`, those of the other network, by the same seeds in the same order.
      num_classes: K.
      replicates: how often images and seeds are drawn.
      seed: of the drawing; two calls with the same draw the same.

    Returns:
      {metric of `METRICS`: interval} of other minus baseline, from -1 to 1. With one seed it is of
      the images alone.
    """
    seeds, images = baseline.shape
    columns = _count_by_class(labels, np.concatenate([baseline, other]), num_classes)
    observed = _score(columns.sum(axis=0, keepdims=True), num_classes)
    drawn = {metric: np.empty(replicates) for metric in METRICS}
    generator, done = np.random.default_rng(seed), 0
    for counts in _draw(generator, images, replicates):
        part = slice(done, done + len(counts))
        of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(counts))
        # Sums of whole numbers in float32 are exact to 2**24, and go through the matrix units.
        for metric, scores in _score(counts @ columns, num_classes).items():
            difference = scores[:, seeds:] - scores[:, :seeds]
            drawn[metric][part] = (difference * of_seeds).sum(axis=1) / seeds
        done = part.stop
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    intervals = {}
    for metric in METRICS:
        value = float(np.mean(observed[metric][0, seeds:] - observed[metric][0, :seeds]))
        low, high = np.percentile(drawn[metric], tails).tolist()
        intervals[metric] = Interval(value, low, high)
    return intervals


_AT_ONCE = 500
"""Replicates that are computed together: 2 million counts of 4,000 images are 8 MB."""


def _draw(generator: np.random.Generator, images: int, replicates: int) -> Iterator[np.ndarray]:
    """Yields how often each image is drawn: float32 `[b, n]`, for all replicates in parts."""
    for start in range(0, replicates, _AT_ONCE):
        part = min(_AT_ONCE, replicates - start)
        chosen = generator.integers(images, size=(part, images))
        chosen += images * np.arange(part)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=part * images)
        yield counts.reshape(part, images).astype(np.float32)


def _count_by_class(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns what of each image is added up by class: float32 `[n, (1 + 2p) K]` of zeros and ones.

    They are its true class, then for each of the predictions `[p, n]` its class if that is right,
    then for each its predicted class.
    """
    classes = np.arange(num_classes)
    true = labels[:, None] == classes  # [n, K]
    said = predicted[:, :, None] == classes  # [p, n, K]
    return np.concatenate([true, *(said & true), *said], axis=1).astype(np.float32)


def _score(sums: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """Returns {metric: float `[b, p]`} of b sums of `_count_by_class`."""
    parts = sums.astype(np.float64).reshape(len(sums), -1, num_classes)
    systems = parts.shape[1] // 2
    examples, hits, claimed = parts[:, :1], parts[:, 1 : 1 + systems], parts[:, 1 + systems :]
    present = (examples > 0).sum(axis=2)
    # A class that is not there does not count, however often it was claimed.
    f1 = np.where(examples > 0, 2 * hits / np.maximum(examples + claimed, 1), 0)
    return {
        "accuracy": hits.sum(axis=2) / examples.sum(axis=2),
        "mean_class_accuracy": (hits / np.maximum(examples, 1)).sum(axis=2) / present,
        "macro_f1": f1.sum(axis=2) / present,
    }
