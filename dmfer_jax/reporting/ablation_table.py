"""What an ablation found: scores of each variant over its seeds, and how sure its difference is.

The last epoch is what counts. The epoch chosen on the validation split has a table of its own. A
difference is that of the last epochs, with the interval of `bootstrap.compare`; one of the same
seeds alone, and of the same images.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.bootstrap import CONFIDENCE, compare
from dmfer_jax.reporting.cells import (
    ONE_SEED,
    SOME_SEEDS,
    are_of_some,
    markdown_table,
    mean_cell,
    whole_cell,
)
from dmfer_jax.reporting.console import print_table
from dmfer_jax.reporting.differences import (
    COMPARED,
    Difference,
    difference_row,
    write_differences,
)
from dmfer_jax.reporting.predictions import Predictions
from dmfer_jax.reporting.rows import STRESS, numbers, scaled

Row = Mapping[str, str]
Said = Callable[[str, str], Mapping[str, Predictions]]
"""Takes a variant and a seed, and returns what that run said of each split in its last epoch, as
far as that was kept."""


class Findings(NamedTuple):
    """An ablation as far as it is done.

    Attributes:
      experiment: its name.
      baseline: the variant that the others are compared with.
      variants: {name: what of it was set}, in the order of the grid.
      rows: of all finished runs.
      differences: of all variants but the baseline from it, on all splits; and of those that are
        a step from another variant, from that one.
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
    steps: Mapping[str, str] | None = None,
) -> Findings:
    """Compares the variants with the baseline, as far as there are runs of the same seeds.

    Args:
      experiment: its name.
      baseline: one of the variants.
      variants: {name: what of it was set}; rows of others do not count.
      rows: of finished runs.
      said: what they said of each image.
      steps: {variant: the one that it is a step from}, which it is compared with, too.

    Raises:
      UserError: two runs were scored on other images.
    """
    rows = [row for row in rows if row["variant"] in variants]
    findings = Findings(experiment, baseline, variants, rows, [])
    seeds = {name: _seeds(rows, name) for name in variants}
    last = {(name, seed): said(name, seed) for name in variants for seed in seeds[name]}
    pairs = dict.fromkeys((name, baseline) for name in variants if name != baseline)
    pairs |= dict.fromkeys((steps or {}).items())
    for split in findings.splits:
        scored = {run for run, splits in last.items() if split in splits}
        for name, against in pairs:
            both = [s for s in seeds[name] if {(name, s), (against, s)} <= scored]
            if not both:
                continue
            runs = [[last[one, seed][split] for seed in both] for one in (against, name)]
            labels = _check_same_images(split, name, against, runs)
            before, after = (
                np.stack([one.probabilities.argmax(axis=1) for one in of]) for of in runs
            )
            intervals = compare(labels, before, after, runs[0][0].probabilities.shape[1])
            findings.differences.append(
                Difference(split, name, against, tuple(both), len(labels), intervals)
            )
    return findings


def keep_known(findings: Findings, known: Sequence[Difference]) -> Findings:
    """Returns findings with what was found before predictions were removed.

    Args:
      findings: of the runs whose predictions are there.
      known: differences of before; those over more seeds than there are now are kept.
    """
    found = {(one.split, one.variant, one.against): one for one in findings.differences}
    for one in known:
        now = found.get(key := (one.split, one.variant, one.against))
        more = set(one.seeds) > set(now.seeds if now else ())
        if more and {one.variant, one.against} <= findings.variants.keys():
            found[key] = one
    order = list(findings.variants)

    def place(one: Difference) -> tuple[int, bool, int]:
        step = one.against != findings.baseline
        return findings.splits.index(one.split), step, order.index(one.variant)

    return findings._replace(differences=sorted(found.values(), key=place))


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
    write_differences(folder, findings.experiment, findings.differences)


def _seeds(rows: Sequence[Row], variant: str) -> list[str]:
    return list(dict.fromkeys(row["seed"] for row in rows if row["variant"] == variant))


def _check_same_images(
    split: str, variant: str, against: str, runs: list[list[Predictions]]
) -> np.ndarray:
    """Returns the labels, which all runs must have."""
    first = runs[0][0]
    for one in [one for of in runs for one in of]:
        for field in ("names", "labels"):
            if not np.array_equal(getattr(one, field), getattr(first, field)):
                raise UserError(
                    f"runs of '{variant}' and of '{against}' were scored on other images or "
                    f"labels of {split}; runs of different records cannot be compared"
                )
    return first.labels


SCORES = {"accuracy": "accuracy", "mean_class_accuracy": "mean-class", "macro_f1": "macro-F1"}


def _tables(findings: Findings, split: str) -> list[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """Returns title, header and cells of each table of a split."""
    of_split = [row for row in findings.rows if row["split"] == split]
    tables = []
    for rule in dict.fromkeys(row["epoch_rule"] for row in of_split):
        rows = [row for row in of_split if row["epoch_rule"] == rule]
        title = f"{split}, {_RULES.get(rule, rule.replace('-', ' '))}"
        chosen = ": the split that chose it, so too high" * (rule == f"best-on-{split}")
        columns = {"accuracy": "accuracy", "deduplicated_accuracy": "dedup.", **SCORES}
        tables.append((f"{title}, percent{chosen}", *_score_cells(findings, rows, columns)))
        if numbers(rows, "stress_accuracy"):
            tables.append((f"{title}, percent", *_score_cells(findings, rows, STRESS)))
    found = [one for one in findings.differences if one.split == split]
    if from_baseline := [one for one in found if one.against == findings.baseline]:
        title = f"{split}, last epoch, minus {findings.baseline}, points"
        header = ["variant", "seeds", *COMPARED.values()]
        tables.append((title, header, [difference_row(one) for one in from_baseline]))
    if steps := [one for one in found if one.against != findings.baseline]:
        named = [one._replace(variant=f"{one.variant} - {one.against}") for one in steps]
        title = f"{split}, last epoch, each step by itself, points"
        header = ["step", "seeds", *COMPARED.values()]
        tables.append((title, header, [difference_row(one) for one in named]))
    return tables


def _score_cells(
    findings: Findings, rows: Sequence[Row], columns: Mapping[str, str]
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Header and cells of those columns that some row has."""
    columns = {name: title for name, title in columns.items() if numbers(rows, name)}
    cells = []
    for name in findings.variants:
        if of_variant := [row for row in rows if row["variant"] == name]:
            is_last = of_variant[0]["epoch_rule"] == "last"
            values = [scaled(of_variant, one, 100) for one in columns]
            shown = map(mean_cell if is_last else whole_cell, values)
            cells.append([name, f"{len(of_variant)}", *shown])
    return ["variant", "seeds", *columns.values()], cells


_RULES = {"last": "last epoch"}


def _notes(findings: Findings) -> list[str]:
    """What a reader must know of the tables."""
    notes = [
        "mean ± standard deviation over seeds; mean-class and macro-F1 are means over the classes"
    ]
    compared = {(one.variant, one.against) for one in findings.differences}
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
    tables = [table for split in findings.splits for table in _tables(findings, split)]
    if any(are_of_some(cells) for _, _, cells in tables):
        notes.append(SOME_SEEDS)
    started = {row["variant"] for row in findings.rows}
    if missing := [name for name in findings.variants if name not in started]:
        notes.append(f"no finished run yet: {', '.join(missing)}")
    return notes
