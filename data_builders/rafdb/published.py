"""RAF-DB's classes, and how many images of each its owners publish."""

from collections.abc import Sequence

from dmfer_jax.labels import EXPRESSION_NAMES, RAFDB_LIST

CLASS_NAMES: tuple[str, ...] = EXPRESSION_NAMES[:7]
"""This project's order without contempt, which RAF-DB's basic set does not have."""


def _in_our_order(counts: Sequence[int]) -> tuple[int, ...]:
    by_label = dict(zip(RAFDB_LIST, counts, strict=True))
    return tuple(by_label[label] for label in sorted(by_label))


TRAIN: tuple[int, ...] = _in_our_order((1_290, 281, 717, 4_772, 1_982, 705, 2_524))
"""Images per class, in the order of `CLASS_NAMES`; 12,271 together."""

TEST: tuple[int, ...] = _in_our_order((329, 74, 160, 1_185, 478, 162, 680))
"""3,068 together."""
