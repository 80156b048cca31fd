"""Tables of what a dataset holds, beside what it should hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.reporting.console import print_table


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


def print_protocol_counts(
    console: Console,
    counts: Mapping[str, Mapping[str, Sequence[int] | None]],
    published: Mapping[str, Mapping[str, int]],
    published_classes: Mapping[str, Sequence[int]],
) -> None:
    """Prints how many faces each FERPlus protocol keeps, beside the published numbers.

    Args:
      console: where to.
      counts: {protocol: {split: examples per class}}; None where they cannot be counted.
      published: {protocol: {split: examples}}; protocols that are for training have none.
      published_classes: of `majority`, {split, or splits joined by "+": examples per class}.
    """
    rows: list[list[Any]] = []
    for protocol, splits in counts.items():
        for split, classes in splits.items():
            expected = published.get(protocol, {}).get(split)
            rows.append(
                [
                    protocol,
                    split,
                    "no label.csv" if classes is None else f"{sum(classes):,}",
                    "-" if expected is None else f"{expected:,}",
                ]
            )
    print_table(console, "Examples per protocol", ["protocol", "split", "kept", "published"], rows)
    rows = _beside_published(counts["majority"], published_classes)
    for protocol in published:
        if protocol != "majority":
            rows += [[protocol, *row] for row in _counted(counts[protocol])]
    # Four letters each, so that eight classes fit into 80 columns.
    header = ["protocol", "split", *(name[:4] for name in EXPRESSION_NAMES)]
    print_table(console, "Examples per class", header, rows)


def _beside_published(
    majority: Mapping[str, Sequence[int] | None], published: Mapping[str, Sequence[int]]
) -> list[list[Any]]:
    """Rows of the table of classes: `majority`, and under it what is published."""
    rows = [["majority", *row] for row in _counted(majority)]
    for joined, expected in published.items():
        parts = [majority.get(split) for split in joined.split("+")]
        there = [part for part in parts if part]
        if len(there) == len(parts):
            if len(parts) > 1:
                rows.append(["majority", joined, *np.sum(there, axis=0)])
            rows.append(["published", joined, *expected])
    return rows


def _counted(splits: Mapping[str, Sequence[int] | None]) -> list[list[Any]]:
    return [[split, *classes] for split, classes in splits.items() if classes]
