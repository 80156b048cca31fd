"""Differences between variants or systems, with their intervals, and the file that keeps them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.bootstrap import CONFIDENCE, Interval
from dmfer_jax.reporting.cells import difference_cell, seeds_cell

DIFFERENCES = "differences.csv"
"""In the folder of an ablation or a comparison, its differences."""

COLUMNS = (
    "experiment",
    "split",
    "variant",
    "baseline",  # that it is compared with
    "metric",
    "seeds",  # compared, joined by "+"
    "images",
    "difference",  # this and the next two: variant minus baseline, -1 to 1
    "low",
    "high",
    "confidence",  # of the interval from low to high
)
"""The columns of `DIFFERENCES`."""


class Difference(NamedTuple):
    """A variant compared with another on a split.

    Attributes:
      split: that both were scored on.
      variant: its name.
      against: the name of the other.
      seeds: which both have been run with.
      images: of the split.
      intervals: {metric: interval} of variant minus the other, -1 to 1.
    """

    split: str
    variant: str
    against: str
    seeds: tuple[str, ...]
    images: int
    intervals: dict[str, Interval]


COMPARED = {"accuracy": "accuracy", "mean_class_accuracy": "mean-class"}
"""The scores whose differences a table has, and what it calls them; the file has those of all."""


def difference_row(one: Difference) -> list[str]:
    """Returns the cells of a difference: variant, seeds, and an interval for each of `COMPARED`."""
    return [one.variant, seeds_cell(len(one.seeds)), *interval_cells(one.intervals)]


def interval_cells(intervals: Mapping[str, Interval]) -> list[str]:
    """Returns the interval of each of `COMPARED`; "-" where there is none."""
    return [difference_cell(intervals[one]) if one in intervals else "-" for one in COMPARED]


def read_differences(folder: Path) -> list[Difference]:
    """Reads the `differences.csv` of an ablation or a comparison.

    Raises:
      UserError: it cannot be read, or is something else.
    """
    path = folder / DIFFERENCES
    found: dict[tuple[str, str, str, tuple[str, ...], int], dict[str, Interval]] = {}
    try:
        header, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(header) != COLUMNS:
            raise ValueError("its columns are others")
        for line in lines:
            one = dict(zip(header, line, strict=True))
            names = (one["split"], one["variant"], one["baseline"])
            key = (*names, tuple(one["seeds"].split("+")), int(one["images"]))
            interval = (float(one[column]) for column in ("difference", "low", "high"))
            found.setdefault(key, {})[one["metric"]] = Interval(*interval)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read ({error}); expected what ablate or compare writes"
        ) from error
    return [Difference(*key, intervals) for key, intervals in found.items()]


def write_differences(folder: Path, experiment: str, differences: Sequence[Difference]) -> None:
    """Writes the `differences.csv` of an ablation or a comparison.

    Args:
      folder: where to.
      experiment: its name.
      differences: those from the baseline first.
    """

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            for one in differences:
                for metric, interval in one.intervals.items():
                    head = [experiment, one.split, one.variant, one.against, metric]
                    values = [f"{value:.6f}" for value in interval]
                    lines.writerow([*head, "+".join(one.seeds), one.images, *values, CONFIDENCE])

    files.write_atomically(folder / DIFFERENCES, write)
