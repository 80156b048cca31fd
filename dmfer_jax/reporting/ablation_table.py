"""What an ablation found: scores of each variant over its seeds, and how sure its difference is.

The last epoch is what counts. The epoch chosen on the validation split has a table of its own. A
difference is that of the last epochs, with the interval of `bootstrap.compare`; one of the same
seeds alone, and of the same images.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.bootstrap import CONFIDENCE, Interval, compare
from dmfer_jax.reporting.cells import (
    ONE_SEED,
    difference_cell,
    markdown_table,
    mean_cell,
    seeds_cell,
)
from dmfer_jax.reporting.console import print_table
from dmfer_jax.reporting.predictions import Predictions
from dmfer_jax.reporting.rows import STRESS, numbers

Row = Mapping[str, str]
Said = Callable[[str, str], Mapping[str, Predictions]]
"""Takes a variant and a seed, and returns what that run said of each split in its last epoch, as
far as that was kept."""


class Difference(NamedTuple):
    """A variant compared with the baseline on a split.

    Attributes:
      split: that both were scored on.
      variant: its name.
      seeds: which both have been run with.
      images: of the split.
      intervals: {metric: interval} of variant minus baseline, -1 to 1.
    """

    split: str
    variant: str
    seeds: tuple[str, ...]
    images: int
    intervals: dict[str, Interval]


class Findings(NamedTuple):
    """An ablation as far as it is done.

    Attributes:
      experiment: its name.
      baseline: the variant that the others are compared with.
      variants: {name: what of it was set}, in the order of the grid.
      rows: of all finished runs.
      differences: of all variants but the baseline, on all splits.
    """

    experiment: str
    baseline: str
    variants: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Row]
    differences: list[Difference]

    @property
    def splits(self) -> list[str]:
        """The splits that were scored, in the order of the rows."""
        return list(dict.fromkeys(row["split"] for row in self.rows))


def find(
    experiment: str,
    baseline: str,
    variants: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Row],
    said: Said,
) -> Findings:
    """Compares the variants with the baseline, as far as there are runs of the same seeds.

    Args:
      experiment: its name.
      baseline: one of the variants.
      variants: {name: what of it was set}; rows of others do not count.
      rows: of finished runs.
      said: what they said of each image.

    Raises:
      UserError: two runs were scored on other images.
    """
    rows = [row for row in rows if row["variant"] in variants]
    findings = Findings(experiment, baseline, variants, rows, [])
    seeds = {name: _seeds(rows, name) for name in variants}
    last = {(name, seed): said(name, seed) for name in variants for seed in seeds[name]}
    for split in findings.splits:
        scored = {run for run, splits in last.items() if split in splits}
        for name in variants:
            both = [s for s in seeds[name] if {(name, s), (baseline, s)} <= scored]
            if name == baseline or not both:
                continue
            pairs = [[last[one, seed][split] for seed in both] for one in (baseline, name)]
            labels = _check_same_images(split, name, pairs)
            before, after = (
                np.stack([one.probabilities.argmax(axis=1) for one in of]) for of in pairs
            )
            intervals = compare(labels, before, after, pairs[0][0].probabilities.shape[1])
            difference = Difference(split, name, tuple(both), len(labels), intervals)
            findings.differences.append(difference)
    return findings


def keep_known(findings: Findings, baseline: str, known: Sequence[Difference]) -> Findings:
    """Returns findings with what was found before predictions were removed.

    Args:
      findings: of the runs whose predictions are there.
      baseline: of `read_differences`, as the next.
      known: differences of before; those over more seeds than there are now are kept.
    """
    found = {(one.split, one.variant): one for one in findings.differences}
    for one in known:
        now = found.get((one.split, one.variant))
        more = set(one.seeds) > set(now.seeds if now else ())
        if more and baseline == findings.baseline and one.variant in findings.variants:
            found[one.split, one.variant] = one
    order = list(findings.variants)
    kept = sorted(
        found.values(),
        key=lambda one: (findings.splits.index(one.split), order.index(one.variant)),
    )
    return findings._replace(differences=kept)


def print_findings(findings: Findings, console: Console | None = None) -> None:
    """Prints the tables, and what a reader must know of them.

    Args:
      findings: of `find`.
      console: where to; standard output unless told.
    """
    console = console or Console(highlight=False)
    for split in findings.splits:
        for title, header, cells in _tables(findings, split):
            print_table(console, title, header, cells)
    console.print()
    for note in _notes(findings):
        console.print(note, markup=False)


def write_findings(folder: Path, findings: Findings) -> None:
    """Writes the tables as `table.md`, and the differences as `differences.csv`.

    Args:
      folder: where to.
      findings: of `find`.
    """
    lines = [f"# {findings.experiment}", "", "| variant | sets |", "|---|---|"]
    for name, fields in findings.variants.items():
        text = ", ".join(f"`{field}={value}`" for field, value in fields.items())
        lines.append(f"| `{name}`{' (baseline)' * (name == findings.baseline)} | {text or '-'} |")
    for split in findings.splits:
        for title, header, cells in _tables(findings, split):
            named = [[f"`{first}`", *rest] for first, *rest in cells]
            lines += ["", f"**{title}**", "", *markdown_table(header, named)]
    lines += ["", *(f"- {note}" for note in _notes(findings)), ""]
    files.write_text(folder / "table.md", "\n".join(lines))
    write_differences(folder, findings.experiment, findings.baseline, findings.differences)


DIFFERENCES = "differences.csv"
"""In the folder of an ablation or a comparison, its differences."""

DIFFERENCE_COLUMNS = (
    "experiment",
    "split",
    "variant",
    "baseline",
    "metric",
    "seeds",  # compared, joined by "+"
    "images",
    "difference",  # this and the next two: variant minus baseline, -1 to 1
    "low",
    "high",
    "confidence",  # of the interval from low to high
)
"""The columns of `DIFFERENCES`."""


def read_differences(path: Path) -> tuple[str, list[Difference]]:
    """Reads the `differences.csv` of an ablation or a comparison.

    Returns:
      The baseline, "" if nothing was compared with it; and what `Findings` has of the others.

    Raises:
      UserError: it cannot be read, or is something else.
    """
    found: dict[tuple[str, str, tuple[str, ...], int], dict[str, Interval]] = {}
    try:
        header, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(header) != DIFFERENCE_COLUMNS:
            raise ValueError("its columns are others")
        baseline = ""
        for line in lines:
            one = dict(zip(header, line, strict=True))
            baseline = one["baseline"]
            key = (one["split"], one["variant"], tuple(one["seeds"].split("+")), int(one["images"]))
            interval = (float(one[column]) for column in ("difference", "low", "high"))
            found.setdefault(key, {})[one["metric"]] = Interval(*interval)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read ({error}); expected what ablate or compare writes"
        ) from error
    return baseline, [Difference(*key, intervals) for key, intervals in found.items()]


def write_differences(
    folder: Path, experiment: str, baseline: str, differences: Sequence[Difference]
) -> None:
    """Writes the `differences.csv` of an ablation or a comparison.

    Args:
      folder: where to.
      experiment: its name.
      baseline: the variant that the others are compared with.
      differences: of the others.
    """

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(DIFFERENCE_COLUMNS)
            for one in differences:
                for metric, interval in one.intervals.items():
                    head = [experiment, one.split, one.variant, baseline, metric]
                    values = [f"{value:.6f}" for value in interval]
                    lines.writerow([*head, "+".join(one.seeds), one.images, *values, CONFIDENCE])

    files.write_atomically(folder / DIFFERENCES, write)


def _seeds(rows: Sequence[Row], variant: str) -> list[str]:
    return list(dict.fromkeys(row["seed"] for row in rows if row["variant"] == variant))


def _check_same_images(split: str, variant: str, pairs: list[list[Predictions]]) -> np.ndarray:
    """Returns the labels, which all runs must have."""
    first = pairs[0][0]
    for one in [one for of in pairs for one in of]:
        for field in ("names", "labels"):
            if not np.array_equal(getattr(one, field), getattr(first, field)):
                raise UserError(
                    f"runs of '{variant}' and of the baseline were scored on other images or "
                    f"labels of {split}; runs of different records cannot be compared"
                )
    return first.labels


COMPARED = ("accuracy", "mean_class_accuracy")
"""The scores whose differences a table has; `differences.csv` has those of all."""

SCORES = {"accuracy": "accuracy", "mean_class_accuracy": "mean-class", "macro_f1": "macro-F1"}


def _tables(findings: Findings, split: str) -> list[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """Returns title, header and cells of each table of a split."""
    of_split = [row for row in findings.rows if row["split"] == split]
    tables = []
    for rule in dict.fromkeys(row["epoch_rule"] for row in of_split):
        rows = [row for row in of_split if row["epoch_rule"] == rule]
        columns = {"accuracy": "accuracy", "deduplicated_accuracy": "dedup.", **SCORES, **STRESS}
        columns = {name: title for name, title in columns.items() if numbers(rows, name)}
        cells = []
        for name in findings.variants:
            of_variant = [row for row in rows if row["variant"] == name]
            if of_variant:
                values = [
                    mean_cell([100 * value for value in numbers(of_variant, column)])
                    for column in columns
                ]
                cells.append([name, f"{len(of_variant)}", *values])
        title = f"{split}, {_RULES.get(rule, rule.replace('-', ' '))}, percent"
        if rule == f"best-on-{split}":
            title += ": the split that chose it, so too high"
        tables.append((title, ["variant", "seeds", *columns.values()], cells))
    cells = [
        [one.variant, seeds_cell(len(one.seeds))]
        + [difference_cell(one.intervals[metric]) for metric in COMPARED]
        for one in findings.differences
        if one.split == split
    ]
    if cells:
        title = f"{split}, last epoch, minus {findings.baseline}, points"
        header = ["variant", "seeds", *(SCORES[metric] for metric in COMPARED)]
        tables.append((title, header, cells))
    return tables


_RULES = {"last": "last epoch"}


def _notes(findings: Findings) -> list[str]:
    """What a reader must know of the tables."""
    notes = [
        "mean ± standard deviation over seeds; mean-class and macro-F1 are means over the classes"
    ]
    compared = {one.variant for one in findings.differences}
    if compared:
        percent = f"{100 * CONFIDENCE:g} %"
        notes.append(
            f"[low, high]: {percent} bootstrap interval over images and seeds, paired by both"
        )
        number = len(compared) * len(COMPARED)
        notes.append(
            f"{number} intervals on each split, each meant to leave out 0 once in "
            f"{1 / (1 - CONFIDENCE):.0f} times where nothing differs; where seeds differ far more "
            "than images make them, it is only about their range"
        )
    if any(len(one.seeds) == 1 for one in findings.differences):
        notes.append(ONE_SEED)
    started = {row["variant"] for row in findings.rows}
    if missing := [name for name in findings.variants if name not in started]:
        notes.append(f"no finished run yet: {', '.join(missing)}")
    return notes
