"""The table of a comparison: what each system scored and what it cost, as means over seeds.

It is made of flat rows, one for each run and checkpoint, which stand in `compare.csv`; the printed
table and `table.md` are their means.
"""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from dmfer_jax.reporting import plain_json
from dmfer_jax.reporting.console import number, print_table
from dmfer_jax.reporting.report import HEADLINES, main_split

BASELINE = "plain_torch"
"""The system whose accuracy the others are timed to."""


class RunResult(NamedTuple):
    """What a run left behind.

    Attributes:
      system: its name.
      seed: its seed.
      report: of its training (see `reporting.report`).
      evaluation: a report of its last epoch on lists and under stress; None where not asked for.
      log: the rows of its metrics.jsonl.
      usage: of `usage.total`.
      size: `parameters` and `flops` (of the forward pass of one image).
      command: that repeats it.
    """

    system: str
    seed: int
    report: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    log: Sequence[Mapping[str, Any]]
    usage: Mapping[str, Any]
    size: Mapping[str, int]
    command: str


COLUMNS = (
    "system",
    "checkpoint",
    "seed",
    "dataset",
    "protocol",
    "split",
    "examples",
    *HEADLINES,
    "deduplicated_accuracy",
    "stress_mean_accuracy",
    "parameters",
    "flops",
    "images_per_second",
    "peak_bytes",
    "hours",
    "cpu_hours",
    "hours_to_baseline",
    "processes",
    "killed",
    "command",
)
"""Of `compare.csv`. `accuracy:NAME` of each further split and list stands behind them."""


def list_rows(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Returns one row for each run and checkpoint, in the order of the runs, None where unknown.

    Args:
      runs: of one comparison.
    """
    goals = {run.seed: _last_accuracy(run.log) for run in runs if run.system == BASELINE}
    return [
        _list_row(run, checkpoint, goals.get(run.seed))
        for run in runs
        for checkpoint in run.report["checkpoints"]
    ]


def list_predicted_row(
    name: str, summary: Mapping[str, Any], row: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the row of a system of which only predictions are known.

    Args:
      name: of the system.
      summary: of its predictions, as of `metrics.summarize`.
      row: of a run on the same split.
    """
    of_split = {key: row[key] for key in ("dataset", "protocol", "split")}
    return {"system": name, "checkpoint": "predictions", **of_split, **_list_scores(summary)}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, empty where unknown; the file is whole or not there."""
    further = dict.fromkeys(key for row in rows for key in row if key not in COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *further], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    plain_json.write_atomically(path, lambda part: part.write_text(text.getvalue(), "utf-8"))


def print_comparison(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Prints the means of the rows, as tables that fit 80 columns where there are few lists."""
    console = console or Console(highlight=False)
    for title, header, cells in _tables(rows):
        print_table(console, title, header, cells)
    for line in _notes(rows):
        console.print(line, markup=False)


def write_markdown(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the same tables as Markdown."""
    lines: list[str] = []
    for title, header, cells in _tables(rows):
        aligned = ["---", *["---:"] * (len(header) - 1)]
        table = [header, aligned, *cells]
        lines += [f"## {title}", "", *(f"| {' | '.join(map(_escape, row))} |" for row in table), ""]
    lines += [f"{line}  " for line in _notes(rows)]
    text = "\n".join(lines) + "\n"
    plain_json.write_atomically(path, lambda part: part.write_text(text, "utf-8"))


def _list_row(run: RunResult, checkpoint: str, goal: float | None) -> dict[str, Any]:
    found = run.report["checkpoints"][checkpoint]
    split = main_split(found["splits"])
    row = {
        "system": run.system,
        "checkpoint": checkpoint,
        "seed": run.seed,
        "dataset": run.report["dataset"],
        "protocol": run.report.get("protocol"),
        "split": split,
        **_list_scores(found["splits"][split]),
    }
    splits, stress = dict(found["splits"]), {}
    if checkpoint == "last" and run.evaluation:
        evaluated = run.evaluation["checkpoints"]["last"]
        splits |= evaluated["splits"]
        stress = evaluated.get("stress", {}).get(split) or {}
    train = run.report["train"]
    cpu_seconds = run.usage["cpu_seconds"]
    row |= {
        "stress_mean_accuracy": stress.get("mean_accuracy"),
        **{key: run.size[key] for key in ("parameters", "flops")},
        "images_per_second": train["images_per_second"],
        "peak_bytes": run.usage["peak_bytes"],
        "hours": train["seconds"] / 3600,
        "cpu_hours": None if cpu_seconds is None else cpu_seconds / 3600,
        "hours_to_baseline": _hours_to(goal, run.log),
        **{key: run.usage[key] for key in ("processes", "killed")},
        "command": run.command,
    }
    further = {name: one["accuracy"] for name, one in splits.items() if name != split}
    return row | {f"{_FURTHER}{name}": accuracy for name, accuracy in further.items()}


def _list_scores(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "examples": summary["examples"],
        **{key: summary[key] for key in HEADLINES},
        "deduplicated_accuracy": (summary.get("deduplicated") or {}).get("accuracy"),
    }


def _validations(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in log if row.get("kind") == "eval" and row.get("accuracy") is not None]


def _last_accuracy(log: Sequence[Mapping[str, Any]]) -> float | None:
    """The validation accuracy after the last epoch; None where an epoch's was not taken."""
    rows = _validations(log)
    return rows[-1]["accuracy"] if rows else None


def _hours_to(goal: float | None, log: Sequence[Mapping[str, Any]]) -> float | None:
    """Hours until the first epoch whose validation accuracy reaches a goal; None if none does."""
    if goal is None:
        return None
    reached = [row["seconds"] for row in _validations(log) if row["accuracy"] >= goal]
    return reached[0] / 3600 if reached else None


_SCORES: dict[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy", 100, 2),
    "deduplicated_accuracy": ("dedup.", 100, 2),
    "mean_class_accuracy": ("mean-class", 100, 2),
    "macro_f1": ("macro-F1", 1, 3),
    "ece": ("ECE", 1, 3),
}
"""Column of the rows -> its name in a table, the factor that it is shown with, and digits."""

_COSTS: dict[str, tuple[str, float, int]] = {
    "parameters": ("M params", 1e-6, 2),
    "flops": ("MFLOPs", 1e-6, 0),
    "images_per_second": ("images/s", 1, 0),
    "peak_bytes": ("GB", 1e-9, 2),
    "hours": ("hours", 1, 2),
    "cpu_hours": ("CPU h", 1, 2),
    "hours_to_baseline": ("h to plain", 1, 2),
}


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and cells: scores on the main split, on further ones, and what it cost."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["system"], row["checkpoint"]), []).append(row)
    # Both checkpoints of a run come from one training, and predictions from none of ours.
    trained = {group: members for group, members in groups.items() if group[1] == "last"}
    further: dict[str, tuple[str, float, int]] = {
        key: (key.removeprefix(_FURTHER), 100, 2)
        for key in dict.fromkeys(key for row in rows for key in row)
        if key.startswith(_FURTHER)
    }
    further["stress_mean_accuracy"] = ("stress", 100, 2)
    tables = []
    for title, columns, shown_groups in (
        (_title(rows), _SCORES, groups),
        ("Accuracy elsewhere", further, groups),
        ("What it cost", _COSTS, trained),
    ):
        shown = {key: how for key, how in columns.items() if any(_known(row, key) for row in rows)}
        header = ["system", "epoch", "seeds", *(name for name, _, _ in shown.values())]
        cells = [
            [system, "-" if checkpoint == "predictions" else checkpoint, _count(members)]
            + [_mean(members, key, factor, digits) for key, (_, factor, digits) in shown.items()]
            for (system, checkpoint), members in shown_groups.items()
        ]
        if cells and shown:
            tables.append((title, header, cells))
    return tables


_FURTHER = "accuracy:"


def _title(rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0]
    protocol = f", protocol {first['protocol']}" if first["protocol"] else ""
    return f"{first['dataset']}{protocol}: {first['examples']:,} images of {first['split']}"


def _count(members: Sequence[Mapping[str, Any]]) -> str:
    return "-" if members[0]["checkpoint"] == "predictions" else str(len(members))


def _known(row: Mapping[str, Any], key: str) -> bool:
    return row.get(key) is not None


def _mean(members: Sequence[Mapping[str, Any]], key: str, factor: float, digits: int) -> str:
    """Mean and standard deviation over the seeds; of how many, where some have no value."""
    values = [row[key] * factor for row in members if _known(row, key)]
    if not values:
        return "-"
    text = number(statistics.fmean(values), digits)
    if len(values) > 1 and len(set(values)) > 1:
        text += f" ± {number(statistics.stdev(values), digits)}"
    return text if len(values) == len(members) else f"{text} ({len(values)} of {len(members)})"


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "accuracy, dedup., mean-class and what stands elsewhere: in percent; means over seeds ± "
        "standard deviation",
        "last: after the last epoch; best: after the epoch chosen on the validation split",
        "GB: the most memory that the training's process had resident; hours: of training, with "
        "compiling and validation; CPU h: of all cores, from start to report",
        "h to plain: until an epoch's accuracy on the validation split reached that of "
        f"{BASELINE} after its last epoch, seed by seed",
    ]
    if any(row.get("killed") for row in rows):
        lines.append(
            "processes were killed and left no numbers: their CPU hours and memory are missing"
        )
    return lines


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
