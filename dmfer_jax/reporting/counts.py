"""Tables of what a dataset holds, beside what it should hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from dmfer_jax.data import protocols
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.reporting.console import print_table

Columns = Mapping[str, np.ndarray]


def print_class_counts(
    console: Console,
    class_names: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    published: Mapping[str, Sequence[int]],
) -> None:
    """Prints the examples of each split per class, and the published numbers where known.

    Args:
      console: where to.
      class_names: in label order.
      counts: {split: examples per class}.
      published: {split, or splits joined by "+": examples per class}.
    """
    columns: dict[str, Sequence[int]] = dict(counts)
    for splits, expected in published.items():
        parts = splits.split("+")
        if not all(part in counts for part in parts):
            continue
        if len(parts) > 1:
            columns[splits] = np.sum([counts[part] for part in parts], axis=0).tolist()
        columns[f"{splits}\npublished"] = expected
    rows = [
        [name, *(f"{column[index]:,}" for column in columns.values())]
        for index, name in enumerate(class_names)
    ]
    rows.append(["all", *(f"{sum(column):,}" for column in columns.values())])
    print_table(console, "Images per class", ["class", *columns], rows)


def print_protocol_counts(console: Console, splits: Mapping[str, Columns]) -> None:
    """Prints how many faces each FERPlus protocol keeps, beside the published numbers.

    Args:
      console: where to.
      splits: {split: {"votes_new", "votes_label_csv": int [n, 10]}}.
    """
    rows: list[list[Any]] = []
    per_class: dict[tuple[str, str], list[int]] = {}
    for protocol in protocols.PROTOCOLS:
        published = protocols.PUBLISHED_COUNTS.get(protocol, {})
        for split, columns in splits.items():
            expected = f"{published[split]:,}" if split in published else "-"
            if not protocols.is_countable(protocol, columns["votes_label_csv"]):
                rows.append([protocol, split, "no label.csv", expected])
                continue
            targets = protocols.apply_protocol(
                protocol, columns["votes_new"], columns["votes_label_csv"]
            )
            rows.append([protocol, split, f"{targets.keep.sum():,}", expected])
            if protocol != "votes":
                counts = np.bincount(targets.label[targets.keep], minlength=len(EXPRESSION_NAMES))
                per_class[protocol, split] = counts.tolist()
    print_table(console, "Examples per protocol", ["protocol", "split", "kept", "published"], rows)
    # Four letters each, so that eight classes fit into 80 columns.
    header = ["protocol", "split", *(name[:4] for name in EXPRESSION_NAMES)]
    print_table(console, "Examples per class", header, _beside_published(per_class))


def _beside_published(per_class: Mapping[tuple[str, str], list[int]]) -> list[list[Any]]:
    """Rows of the table of classes, what is published of `majority` under its own."""
    majority = {split: counts for (name, split), counts in per_class.items() if name == "majority"}
    rows = [["majority", split, *counts] for split, counts in majority.items()]
    for splits, published in protocols.PUBLISHED_MAJORITY_CLASSES.items():
        parts = splits.split("+")
        if all(part in majority for part in parts):
            if len(parts) > 1:
                rows.append(["majority", splits, *np.sum([majority[p] for p in parts], axis=0)])
            rows.append(["published", splits, *published])
    others = [[*key, *counts] for key, counts in per_class.items() if key[0] != "majority"]
    return rows + others
