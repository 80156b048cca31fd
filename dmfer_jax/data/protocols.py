"""The five vote protocols of FERPlus: from ten people's votes to a label or a distribution.

Published FERPlus numbers differ in which faces they count, and few say which. Here the choice is
made when records are read, so one build serves every protocol, and each published count is in
`PUBLISHED_COUNTS` to be checked against.

In all of them a single vote counts as a slip and is set to zero first. Then:

* `majority`: the peak must exceed half of the votes that remain, and be an expression. Counted on
  label.csv, which gives the lists published with RAN; most papers use these.
* `majority_new`: the same rule on fer2013new.csv, over all its rows.
* `plurality`: the one peak of fer2013new.csv wins; rows with two equal peaks are dropped.
* `plurality_first`: the same, but of two equal peaks the first wins.
* `votes`: every row of fer2013new.csv with a vote left for an expression; for training on the
  distribution.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES, Expression

PROTOCOLS: tuple[str, ...] = ("majority", "majority_new", "plurality", "plurality_first", "votes")

PUBLISHED_COUNTS: dict[str, dict[str, int]] = {
    "majority": {"train": 25_045, "valid": 3_191, "test": 3_137},
    "majority_new": {"train": 25_060, "valid": 3_199, "test": 3_153},
    "plurality": {"train": 26_940, "valid": 3_396, "test": 3_376},
    "plurality_first": {"train": 28_389, "valid": 3_553, "test": 3_546},
}
"""Rows that a protocol keeps of each complete split. `votes` is for training and has no count."""

PUBLISHED_MAJORITY_CLASSES: dict[str, tuple[int, ...]] = {
    "test": (1083, 892, 394, 382, 269, 16, 86, 15),
    "train+valid": (9913, 8146, 3547, 3370, 2387, 141, 596, 136),
}
"""Rows that `majority` keeps of each class, in canonical order."""


Counts = dict[str, dict[str, list[int] | None]]
"""{protocol: {split: rows of each class}}."""


class Targets(NamedTuple):
    """What a protocol makes of n rows.

    Attributes:
      keep: [n] bool, whether the row takes part.
      label: [n] int32 in canonical order; -1 where the row is not kept.
      distribution: [n, 8] float32, the votes left for the 8 expressions, summing to 1; all 0
        where the row is not kept.
    """

    keep: np.ndarray
    label: np.ndarray
    distribution: np.ndarray


def apply_protocol(
    protocol: str,
    votes_new: np.ndarray,
    votes_label_csv: np.ndarray | None = None,
    *,
    vote_power: float = 1.0,
) -> Targets:
    """Returns which rows a protocol keeps, and their targets.

    Give whole splits: whether label.csv was given at all is told from all rows together.

    Args:
      protocol: one of `PROTOCOLS`.
      votes_new: [n, 10] int, votes of fer2013new.csv: the 8 expressions, unknown, no face.
      votes_label_csv: [n, 10] int, votes of label.csv; -1 in rows that it does not hold. Only
        `majority` reads it.
      vote_power: above 0; the distribution is that of the votes to this power. Of 6 votes to 4, 1
        makes 0.6 and 0.4, 2 makes 0.69 and 0.31, and much more a single label.

    Returns:
      `Targets`. Under `majority` the distribution, too, is that of label.csv.

    Raises:
      UserError: no such protocol, or `majority` without label.csv.

    Source: Barsoum et al., "Training Deep Networks for Facial Expression Recognition with
    Crowd-Sourced Label Distribution", ICMI 2016, and the code published with it.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol '{protocol}' is unknown; choose one of {', '.join(PROTOCOLS)}")
    if protocol == "majority":
        votes_new = _require_label_csv(votes_label_csv)
    votes = _without_single_votes(votes_new)
    expressions = votes[:, : len(Expression)]
    winner = votes.argmax(axis=1)
    peak = votes.max(axis=1, initial=0)

    if protocol in ("majority", "majority_new"):
        keep = 2 * peak > votes.sum(axis=1)
    elif protocol == "plurality":
        keep = (votes == peak[:, None]).sum(axis=1) == 1
    elif protocol == "plurality_first":
        keep = peak > 0
    else:
        winner = expressions.argmax(axis=1)
        keep = expressions.any(axis=1)
    keep = keep & (winner < len(Expression)) & (peak > 0)

    raised = expressions**vote_power
    total = raised.sum(axis=1, keepdims=True)
    distribution = np.where(keep[:, None], raised / np.where(total > 0, total, 1), 0.0)
    return Targets(
        keep=keep,
        label=np.where(keep, winner, -1).astype(np.int32),
        distribution=distribution.astype(np.float32),
    )


def count_classes(splits: Mapping[str, Mapping[str, np.ndarray]]) -> Counts:
    """Counts the rows of each class that each protocol keeps.

    Args:
      splits: {split: {"votes_new", "votes_label_csv": int [n, 10]}}.

    Returns:
      {protocol: {split: 8 counts}}; None in place of the counts where there is no label.csv to
      count `majority` by.
    """
    counts: Counts = {}
    for protocol in PROTOCOLS:
        counts[protocol] = {}
        for split, columns in splits.items():
            votes_new, votes_label_csv = columns["votes_new"], columns["votes_label_csv"]
            if protocol == "majority" and not (votes_label_csv >= 0).any():
                counts[protocol][split] = None
                continue
            targets = apply_protocol(protocol, votes_new, votes_label_csv)
            kept = np.bincount(targets.label[targets.keep], minlength=len(Expression))
            counts[protocol][split] = kept.tolist()
    return counts


def mismatches(counts: Counts) -> list[str]:
    """Returns where what the protocols keep differs from what is published, a sentence each.

    Args:
      counts: of `count_classes`; splits that are missing are no mismatch.
    """
    differs = []
    for protocol, published in PUBLISHED_COUNTS.items():
        for split, classes in counts[protocol].items():
            if split in published and classes and sum(classes) != published[split]:
                differs.append(
                    f"{split}, protocol {protocol}: {sum(classes):,} images; published are "
                    f"{published[split]:,}"
                )
    majority = counts["majority"]
    for joined, published in PUBLISHED_MAJORITY_CLASSES.items():
        parts = [majority.get(split) for split in joined.split("+")]
        there = [part for part in parts if part]
        if len(there) < len(parts):
            continue
        classes = np.sum(there, axis=0).tolist()
        for name, found, expected in zip(EXPRESSION_NAMES, classes, published, strict=True):
            if found != expected:
                differs.append(
                    f"{joined}, protocol majority, {name}: {found:,} images; published are "
                    f"{expected:,}"
                )
    return differs


def _require_label_csv(votes_label_csv: np.ndarray | None) -> np.ndarray:
    if votes_label_csv is None or (len(votes_label_csv) and np.all(votes_label_csv < 0)):
        raise UserError(
            "protocol 'majority' counts the votes of label.csv, and these records were built "
            "without it. Put FER2013Train/label.csv, FER2013Valid/label.csv and "
            "FER2013Test/label.csv of the FERPlus project beside fer2013new.csv and build again, "
            "or choose protocol 'majority_new', which reads fer2013new.csv only."
        )
    return votes_label_csv


def _without_single_votes(votes: np.ndarray) -> np.ndarray:
    """Sets votes of 1, and the -1 of rows that have none, to 0."""
    votes = np.asarray(votes, dtype=np.int32)
    return np.where(votes > 1, votes, 0)
