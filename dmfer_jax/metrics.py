"""The confusion matrix as jit state, and every reported number derived from it.

A step adds up `Metrics` on the device: counts and sums only, so that batches, padded rows and
devices combine exactly. `summarize` turns them into plain numbers on the host, once per evaluation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

CONFIDENCE_BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. (2017)."""


class Metrics(flax.struct.PyTreeNode):
    """Sums over examples; a pytree, so it passes through jit and is donated like any state.

    Attributes:
      confusion: int32 [K, K], examples by true class (row) and predicted class (column).
      loss_sum: float32 [], the sum of the examples' losses.
      bin_count: int32 [15], examples by confidence; bin b holds (b/15, (b+1)/15].
      bin_confidence: float32 [15], the sum of the confidences in each bin.
      bin_correct: int32 [15], correctly predicted examples in each bin.
    """

    confusion: jax.Array
    loss_sum: jax.Array
    bin_count: jax.Array
    bin_confidence: jax.Array
    bin_correct: jax.Array

    @classmethod
    def empty(cls, num_classes: int) -> "Metrics":
        """Returns the metrics of no examples, the start of a sum."""
        return cls(
            confusion=jnp.zeros((num_classes, num_classes), jnp.int32),
            loss_sum=jnp.zeros((), jnp.float32),
            bin_count=jnp.zeros((CONFIDENCE_BINS,), jnp.int32),
            bin_confidence=jnp.zeros((CONFIDENCE_BINS,), jnp.float32),
            bin_correct=jnp.zeros((CONFIDENCE_BINS,), jnp.int32),
        )

    def merge(self, other: "Metrics") -> "Metrics":
        """Returns the metrics of both sets of examples together."""
        return jax.tree.map(jnp.add, self, other)


def from_batch(
    probabilities: jax.Array, labels: jax.Array, losses: jax.Array, mask: jax.Array
) -> Metrics:
    """Counts one batch; pure and jittable.

    Only sums and products with one-hot rows are used, no scatter: the result does not depend on an
    order of updates, and inputs sharded over examples need a single all-reduce. What stands in a
    masked row (a label of -1, a NaN) has no effect.

    Args:
      probabilities: float [n, K], each row sums to 1. The first of equal maxima is the prediction.
      labels: int [n], the true class, 0 to K-1.
      losses: float [n].
      mask: bool or float [n]; examples count where it is above 0.

    Returns:
      The metrics of this batch alone.
    """
    counted = mask > 0
    num_classes = probabilities.shape[-1]
    predicted = jnp.argmax(probabilities, axis=-1)
    confidence = jnp.max(probabilities, axis=-1).astype(jnp.float32)
    # Float32 products of zeros and ones are exact up to 2^24 examples a batch, and run on the
    # matrix units that integer products do not have.
    true_rows = jax.nn.one_hot(jnp.where(counted, labels, -1), num_classes, dtype=jnp.float32)
    predicted_rows = jax.nn.one_hot(predicted, num_classes, dtype=jnp.float32)
    confusion = jnp.einsum("nt,np->tp", true_rows, predicted_rows)

    bins = jnp.ceil(confidence * CONFIDENCE_BINS).astype(jnp.int32) - 1
    bins = jnp.where(counted, jnp.clip(bins, 0, CONFIDENCE_BINS - 1), -1)
    in_bin = bins[:, None] == jnp.arange(CONFIDENCE_BINS)[None, :]  # [n, 15]
    correct = predicted == labels
    return Metrics(
        confusion=confusion.astype(jnp.int32),
        loss_sum=jnp.sum(jnp.where(counted, losses, 0.0), dtype=jnp.float32),
        bin_count=jnp.sum(in_bin, axis=0, dtype=jnp.int32),
        bin_confidence=jnp.sum(jnp.where(in_bin, confidence[:, None], 0.0), axis=0),
        bin_correct=jnp.sum(in_bin & correct[:, None], axis=0, dtype=jnp.int32),
    )


def summarize(metrics: Metrics, names: Sequence[str]) -> dict[str, Any]:
    """Derives every reported number from the sums, as plain Python values that JSON can hold.

    `mean_class_accuracy` (mean recall) and `macro_f1` are means over the classes that occur in the
    examples: a class of which a split has none is left out, not counted as 0. `ece` is the expected
    calibration error, the mean gap between confidence and accuracy over 15 bins, weighted by count
    (Guo et al., "On calibration of modern neural networks", ICML 2017).

    Args:
      metrics: the sums, on the device or not.
      names: the K class names in label order.

    Returns:
      `examples`, `accuracy`, `mean_class_accuracy`, `macro_f1`, `ece`, `loss` (mean), `per_class`
      ({name: {examples, recall, precision, f1}}), `labels`, `confusion` (rows are true classes) and
      `reliability` (per bin: count, confidence, accuracy). Fractions are from 0 to 1. A number that
      is undefined (no example, a class never predicted) is None, never NaN.

    Raises:
      ValueError: there are not as many names as classes.
    """
    host = jax.device_get(metrics)
    confusion = np.asarray(host.confusion, np.int64)
    if len(names) != len(confusion):
        raise ValueError(f"{len(names)} names for a confusion matrix of {len(confusion)} classes")
    examples = int(confusion.sum())
    per_class = {
        name: _class_summary(confusion, index) for index, name in enumerate(map(str, names))
    }
    present = [row for row in per_class.values() if row["examples"]]
    gap = np.abs(np.asarray(host.bin_correct, np.float64) - np.float64(host.bin_confidence)).sum()
    return {
        "examples": examples,
        "accuracy": _ratio(np.trace(confusion), examples),
        "mean_class_accuracy": _ratio(sum(row["recall"] for row in present), len(present)),
        "macro_f1": _ratio(sum(row["f1"] for row in present), len(present)),
        "ece": _ratio(gap, examples),
        "loss": _ratio(host.loss_sum, examples),
        "per_class": per_class,
        "labels": list(per_class),
        "confusion": confusion.tolist(),
        "reliability": [
            {
                "count": int(count),
                "confidence": _ratio(confidence, count),
                "accuracy": _ratio(correct, count),
            }
            for count, confidence, correct in zip(
                host.bin_count, host.bin_confidence, host.bin_correct, strict=True
            )
        ],
    }


def center_report(centers: Any) -> dict[str, Any]:
    """Measures how far apart the class centers point.

    Args:
      centers: float [K, C]; need not have unit length.

    Returns:
      `cosines` (K rows of K), `mean_cosine` and `max_cosine` over pairs of different classes, and
      `ideal_cosine`, -1/(K-1): no K vectors have a mean cosine below it. None where a center is
      zero or there is one class only.
    """
    vectors = np.asarray(jax.device_get(centers), np.float64)
    num_classes = len(vectors)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.full_like(vectors, np.nan), where=norms > 0)
    cosines = unit @ unit.T
    pairs = cosines[~np.eye(num_classes, dtype=bool)]
    return {
        "cosines": [[_plain(value) for value in row] for row in cosines],
        "mean_cosine": _plain(pairs.mean()) if pairs.size else None,
        "max_cosine": _plain(pairs.max()) if pairs.size else None,
        "ideal_cosine": -1.0 / (num_classes - 1) if num_classes > 1 else None,
    }


def wilson_interval(hits: int, examples: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of a share that is known from few examples.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), with p = hits/n, z = 1.96.
    Unlike p -+ z times its standard error, it stays within 0 to 1 and has a width where all or none
    are hits (Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    22, 1927).

    Args:
      hits: 0 to n.
      examples: n.

    Returns:
      (low, high), 0 to 1; None of no examples.
    """
    if not examples:
        return None
    share, n, z = hits / examples, examples, 1.96
    middle = share + z**2 / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    whole = 1 + z**2 / n
    return max((middle - reach) / whole, 0.0), min((middle + reach) / whole, 1.0)


def _class_summary(confusion: np.ndarray, index: int) -> Mapping[str, Any]:
    true = int(confusion[index].sum())
    predicted = int(confusion[:, index].sum())
    hits = int(confusion[index, index])
    return {
        "examples": true,
        "recall": _ratio(hits, true),
        "precision": _ratio(hits, predicted),
        # 2PR/(P+R) without its 0/0 for a class that occurs and is never hit, which scores 0.
        "f1": _ratio(2 * hits, true + predicted) if true else None,
    }


def _ratio(numerator: Any, denominator: Any) -> float | None:
    return _plain(numerator / denominator) if denominator else None


def _plain(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
