"""The table of a comparison: what each system scored, how sure its lead is, and what it cost.

Scores are rows of results (see `rows`), a system being their variant; costs are rows of their own,
one for each run. Differences from the baseline are paired by images and seeds, as in an ablation.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import ablation_table
from dmfer_jax.reporting.bootstrap import CONFIDENCE
from dmfer_jax.reporting.cells import (
    ONE_SEED,
    SOME_SEEDS,
    are_of_some,
    markdown_table,
    mean_cell,
    whole_cell,
)
from dmfer_jax.reporting.console import number, print_table
from dmfer_jax.reporting.differences import (
    COMPARED,
    Difference,
    difference_row,
    read_differences,
    write_differences,
)
from dmfer_jax.reporting.report import main_split
from dmfer_jax.reporting.rows import COLUMNS, STRESS, numbers, read_rows, scaled

Row = Mapping[str, str]

COST_COLUMNS = (
    "system",
    "seed",
    "flops",  # floating point operations of the forward pass of one image
    "images_per_second",  # of steps, without compiling and evaluating; of the last process
    "peak_bytes",  # the most memory that the process of the training had resident
    "hours",  # of training, by the clock, with compiling and validation
    "cpu_hours",  # the same of all cores
    "hours_to_baseline",  # until an epoch was as accurate on valid as the baseline in its last one
    "cpu_hours_to_baseline",
)
"""The columns of `costs.csv`."""

_NUMBERS = COST_COLUMNS[2:]

ROWS = "compare.csv"
"""In the folder of a comparison, its rows of results."""

PREDICTIONS = "predictions"
"""The epoch rule of a system of which only predictions are known."""


class Comparison(NamedTuple):
    """What is known of the systems, as far as they are trained.

    Attributes:
      baseline: the system that the others are compared with.
      rows: of results, of all runs and of predictions; the systems in the order of the tables.
      costs: one for each run, by `COST_COLUMNS`; None where unknown.
      differences: of `ablation_table.find`.
    """

    baseline: str
    rows: Sequence[Row]
    costs: Sequence[Mapping[str, Any]]
    differences: Sequence[Difference]

    @property
    def split(self) -> str:
        """The split of the first table."""
        return main_split([row["split"] for row in self.rows])


def list_cost(
    system: str,
    report: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    cost: Mapping[str, Any],
    goal: float | None,
) -> dict[str, Any]:
    """Returns what a run cost, by `COST_COLUMNS`.

    Args:
      system: its name.
      report: of the run.
      log: the rows of its metrics.jsonl.
      cost: its `flops` and `peak_bytes`, as far as they are known.
      goal: the validation accuracy of the baseline with the same seed after its last epoch.
    """
    train = report["train"]
    speeds = [row["images_per_second"] for row in log if row["kind"] == "train"]
    scored = list_validations(log)
    reached = {}
    if goal is not None:
        reached = next((row for row in scored if row["accuracy"] >= goal), {})
    return {
        "system": system,
        "seed": report["seed"],
        **{key: cost.get(key) for key in ("flops", "peak_bytes")},
        "images_per_second": speeds[-1] if speeds else None,
        "hours": _hours(train["seconds"]),
        "cpu_hours": _hours(train.get("cpu_seconds")),
        "hours_to_baseline": _hours(reached.get("seconds")),
        "cpu_hours_to_baseline": _hours(reached.get("cpu_seconds")),
    }


def list_validations(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rows of a log that tell an epoch's validation accuracy."""
    return [row for row in log if row["kind"] == "eval" and row.get("accuracy") is not None]


def find_differences(
    baseline: str, rows: Sequence[Row], said: ablation_table.Said
) -> list[Difference]:
    """Compares systems with the baseline, on the splits that runs keep their predictions of.

    Args:
      baseline: one of the systems; nothing is compared where it has no run yet.
      rows: of results.
      said: as of `ablation_table.find`.

    Raises:
      UserError: two runs were scored on other images.
    """
    last = [row for row in rows if row["epoch_rule"] == "last"]
    systems: dict[str, dict[str, Any]] = {row["variant"]: {} for row in last}
    if baseline not in systems:
        return []
    runs = dict.fromkeys((row["variant"], row["seed"]) for row in last)
    known = {split for run in runs for split in said(*run)}  # those of lists are not kept
    of_known = [row for row in last if row["split"] in known]
    return ablation_table.find("", baseline, systems, of_known, said).differences


def list_predicted_row(name: str, summary: Mapping[str, Any], like: Row) -> dict[str, str]:
    """Returns the row of results of a system of which only predictions are known.

    Args:
      name: of the system.
      summary: of its predictions, as of `metrics.summarize`.
      like: a row of the same split.
    """
    same = ("experiment", "dataset", "protocol", "split")
    scores = {key: summary[key] for key in ("accuracy", "mean_class_accuracy", "macro_f1", "ece")}
    scores["deduplicated_accuracy"] = (summary.get("deduplicated") or {}).get("accuracy")
    return {
        **dict.fromkeys(COLUMNS, ""),
        **{key: like[key] for key in same},
        "variant": name,
        "epoch_rule": PREDICTIONS,
        "images": str(summary["examples"]),
        **{key: "" if value is None else f"{value:.6f}" for key, value in scores.items()},
    }


def print_comparison(found: Comparison, console: Console | None = None) -> None:
    """Prints the tables; they fit 80 columns where there are few lists."""
    console = console or Console(highlight=False)
    for title, header, cells in _tables(found):
        print_table(console, title, header, cells)
    console.print()
    for note in _notes(found):
        console.print(note, markup=False)


def render_comparison(found: Comparison) -> str:
    """Returns the tables, and what a reader must know of them, in Markdown."""
    lines: list[str] = []
    for title, header, cells in _tables(found):
        lines += [f"**{title}**", "", *markdown_table(header, cells), ""]
    return "\n".join([*lines, *(f"- {note}" for note in _notes(found))])


def write_comparison(folder: Path, found: Comparison) -> None:
    """Writes `table.md`, and what it is made from.

    That is the rows of results as `compare.csv`, `costs.csv`, and `differences.csv`.
    """
    files.write_text(folder / "table.md", render_comparison(found) + "\n")
    files.write_text(folder / ROWS, _as_csv(COLUMNS, found.rows))
    files.write_text(folder / "costs.csv", _as_csv(COST_COLUMNS, found.costs))
    experiment = found.rows[0]["experiment"]
    write_differences(folder, experiment, found.differences)


def read_comparison(folder: Path) -> Comparison:
    """Reads what `write_comparison` wrote.

    Raises:
      UserError: a file cannot be read, or nothing was compared yet.
    """
    rows = read_rows(folder / ROWS)
    differences = read_differences(folder)
    if not rows:
        raise UserError(f"{folder / ROWS} has no rows: nothing has been compared yet")
    path = folder / "costs.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            costs = [
                {**line, **{key: float(line[key]) if line[key] else None for key in _NUMBERS}}
                for line in lines
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); expected what compare writes") from error
    baseline = differences[0].against if differences else rows[0]["variant"]
    return Comparison(baseline, rows, costs, differences)


def _tables(found: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and cells: the main split, the lead there, what else was scored, the costs."""
    first = next(row for row in found.rows if row["split"] == found.split)
    protocol = f", protocol {first['protocol']}" if first["protocol"] else ""
    title = f"{first['dataset']}{protocol}: {int(first['images']):,} images of {found.split}"
    tables = [
        (title, *_score_cells(found)),
        (f"Last epoch on {found.split}, less {found.baseline}", *_difference_cells(found)),
        ("Accuracy elsewhere", *_further_cells(found)),
        ("What it cost", *_cost_cells(found)),
    ]
    return [(title, header, cells) for title, header, cells in tables if cells]


def _score_cells(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The scores on the main split, of each system and epoch rule."""
    columns = {
        "accuracy": ("accuracy", 100, 2),
        "deduplicated_accuracy": ("dedup.", 100, 2),
        "mean_class_accuracy": ("mean-class", 100, 2),
        "macro_f1": ("macro-F1", 1, 3),
        "ece": ("ECE", 1, 3),
    }
    rows = [row for row in found.rows if row["split"] == found.split]
    columns = {key: how for key, how in columns.items() if numbers(rows, key)}
    cells = [
        [system, rule, str(len(of)) if rule != PREDICTIONS else "-"]
        + [
            mean_cell(scaled(of, key, factor), digits)
            for key, (_, factor, digits) in columns.items()
        ]
        for (system, rule), of in _grouped(rows).items()
    ]
    return ["system", "epoch", "seeds", *(name for name, _, _ in columns.values())], cells


def _difference_cells(found: Comparison) -> tuple[list[str], list[list[str]]]:
    cells = [difference_row(one) for one in found.differences if one.split == found.split]
    return ["system", "seeds", *COMPARED.values()], cells


def _further_cells(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The accuracy on other splits and on lists, and on the main split under harm."""
    on_main = [row for row in found.rows if row["split"] == found.split]
    splits = list(dict.fromkeys(row["split"] for row in found.rows if row["split"] != found.split))
    harm = {column: name for column, name in STRESS.items() if numbers(on_main, column)}
    cells = []
    for (system, rule), of in _grouped(found.rows).items():
        on = {(row["split"], row["seed"]): row for row in of}
        seeds = list(dict.fromkeys(row["seed"] for row in of))
        asked = [(split, "accuracy") for split in splits] + [(found.split, one) for one in harm]
        values = [[_percent(on.get((split, s)), one) for s in seeds] for split, one in asked]
        shown = [(whole_cell if rule == "best" else mean_cell)(of_seeds) for of_seeds in values]
        if set(shown) != {"-"}:
            cells.append([system, rule, *shown])
    return ["system", "epoch", *splits, *harm.values()], cells if splits or harm else []


def _cost_cells(found: Comparison) -> tuple[list[str], list[list[str]]]:
    columns = {
        "flops": ("MFLOPs", 1e-6, 0),
        "images_per_second": ("images/s", 1, 0),
        "peak_bytes": ("GB", 1e-9, 2),
        "hours": ("hours", 1, 2),
        "cpu_hours": ("CPU h", 1, 2),
        "hours_to_baseline": ("to base", 1, 2),
        "cpu_hours_to_baseline": ("CPU h", 1, 2),
    }
    cells = []
    for system in dict.fromkeys(cost["system"] for cost in found.costs):
        of = [cost for cost in found.costs if cost["system"] == system]
        row = next(row for row in found.rows if row["variant"] == system)
        shown = [system, number(float(row["parameters"]) / 1e6, 2)]
        for key, (_, factor, digits) in columns.items():
            values = [None if cost[key] is None else factor * cost[key] for cost in of]
            shown.append(mean_cell(values, digits, between=""))
        cells.append(shown)
    return ["system", "M params", *(name for name, _, _ in columns.values())], cells


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        rule = "best" if row["epoch_rule"].startswith("best") else row["epoch_rule"]
        groups.setdefault((row["variant"], rule), []).append(row)
    return groups


def _percent(row: Row | None, column: str) -> float | None:
    return 100 * float(row[column]) if row and row[column] else None


def _notes(found: Comparison) -> list[str]:
    """What a reader must know of the tables."""
    notes = [
        "accuracy, dedup., mean-class: in percent; mean ± standard deviation over seeds",
        "last: after the last epoch; best: after the epoch chosen on the validation split, whose "
        "own score is too high there",
    ]
    if found.differences:
        notes.append(
            f"[low, high]: {100 * CONFIDENCE:g} % bootstrap interval over images and seeds, paired "
            "by both; points"
        )
    if any(len(one.seeds) == 1 for one in found.differences):
        notes.append(ONE_SEED)
    notes += [
        "costs are means over seeds; GB: the most memory that the process of the training had; "
        "hours: of training, with compiling and validation; CPU h: the same of all cores",
        f"to base: hours until an epoch's accuracy on the validation split reached that of "
        f"{found.baseline} after its last epoch, seed by seed; (1/3): one seed of three did",
    ]
    if are_of_some(_further_cells(found)[1]):
        notes.append(SOME_SEEDS)
    if len(machines := {row["machine"] for row in found.rows if row["machine"]}) > 1:
        notes.append(f"times are of several machines: {'; '.join(sorted(machines))}")
    return notes


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    lines = csv.DictWriter(text, columns, lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    return text.getvalue()
