"""Scores of predictions that come from anywhere, by the metrics of our own."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dmfer_jax import metrics
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError


def score_predictions(
    split: Split, names: Sequence[str], probabilities: np.ndarray
) -> dict[str, Any]:
    """Scores what a system said of every image of a split.

    Args:
      split: with the true classes; what is said of other images is passed over.
      names: n different ones, as of `Split.identifiers`.
      probabilities: float32 `[n, K]`, rows sum to 1.

    Returns:
      `metrics.summarize`'s dict, with `deduplicated` as `scoring.score` gives it.

    Raises:
      UserError: an image of the split has no prediction.
    """
    rows = {name: row for row, name in enumerate(names)}
    wanted = split.identifiers.tolist()
    if missing := [name for name in wanted if name not in rows]:
        raise UserError(
            f"there is no row for {len(missing):,} of the {len(wanted):,} images of "
            f"'{split.name}', such as '{missing[0]}'; expected one for each"
        )
    said = probabilities[[rows[name] for name in wanted]]
    # A probability of 0 for what is true would make the mean loss infinite.
    entropy = -np.sum(split.targets * np.log(np.maximum(said, 1e-12)), axis=1)
    count = jax.jit(metrics.from_batch)
    counted = np.ones(len(split), np.float32)
    summary = metrics.summarize(count(said, split.labels, entropy, counted), split.class_names)
    if split.repeated.any():
        first = (~split.repeated).astype(np.float32)
        found = count(said, split.labels, entropy, first)
        summary["deduplicated"] = metrics.summarize(found, split.class_names)
    return summary
