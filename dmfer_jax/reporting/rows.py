"""Results as rows of a CSV with fixed columns: one for each run, split and choice of the epoch.

Each row tells how to come to it once more: the command, the commit, the seed, the time it took and
on what. So a number in a table can always be traced to a row, and a row to a run.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmfer_jax import files
from dmfer_jax.errors import UserError

COLUMNS: tuple[str, ...] = (
    "experiment",  # what the run belongs to, such as "ferplus_cpu-components"
    "variant",  # which of it
    "seed",
    "dataset",  # with its variant
    "protocol",  # FERPlus: of the labels it is scored on; empty elsewhere
    "train_protocol",  # FERPlus: of the targets it was trained on
    "train_splits",  # joined by "+"
    "split",  # scored
    "epoch_rule",  # "last", or "best-on-valid": the best on that split
    "epoch",  # that was scored
    "images",
    "accuracy",  # this and the next four: 0 to 1
    "deduplicated_accuracy",  # without images that stand in an earlier row; empty if there are none
    "mean_class_accuracy",
    "macro_f1",
    "ece",
    "stress_occlusion_accuracy",  # mean over kinds and levels of harm that cover the face
    "stress_pose_accuracy",  # ... that turn it
    "stress_accuracy",  # ... of all; these three are empty where it was not harmed
    "parameters",
    "hours",  # of training, by the clock
    "cpu_hours",  # of all cores, for machines that do other work, too
    "machine",  # cores, processor and devices
    "commit",  # of the code, or its version
    "config_digest",  # the same for all seeds of a config
    "command",  # that trains this run
)
"""The columns, in order."""

STRESS = {
    "stress_occlusion_accuracy": "occlusion (stress)",
    "stress_pose_accuracy": "pose (stress)",
    "stress_accuracy": "stress",
}
"""What a table calls the columns of accuracy under harm."""

KINDS = {
    "stress_occlusion_accuracy": ("block", "eye_band", "mouth_band", "random_shape"),
    "stress_pose_accuracy": ("rotation", "perspective"),
}
"""The kinds of harm that such a column is the mean of; `stress_accuracy` is that of all."""

_SCORES = ("accuracy", "mean_class_accuracy", "macro_f1", "ece")
_KEY = ("experiment", "variant", "seed", "split", "epoch_rule")


def rows_of_report(
    report: Mapping[str, Any],
    *,
    experiment: str,
    variant: str,
    config_digest: str,
    command: str,
) -> list[dict[str, str]]:
    """Returns the rows of a run.

    Args:
      report: of the run, as `reporting.report` describes it.
      experiment: what the run belongs to.
      variant: which of it.
      config_digest: of its config, by `reproduce.config_digest`.
      command: that trains it, by `reproduce.train_command`.

    Returns:
      {column: text} for each checkpoint and split: the last epoch, then the one chosen on the
      validation split, also where that is the same.
    """
    train, machine = report.get("train") or {}, report["environment"]
    devices = f"{machine['devices']} x " if machine["devices"] > 1 else ""
    processor = f" of {machine['processor']}" if "processor" in machine else ""  # not of old runs
    device = machine.get("torch_device") or machine["device"]  # systems in PyTorch have one, too
    of_run = {
        "experiment": experiment,
        "variant": variant,
        "seed": report["seed"],
        "dataset": report["dataset"],
        "protocol": report.get("protocol"),
        "train_protocol": report.get("train_protocol"),
        "train_splits": "+".join(report["config"]["data"]["train_splits"]),
        "hours": _hours(train.get("seconds")),
        "cpu_hours": _hours(train.get("cpu_seconds")),
        "machine": f"{machine['cores']} cores{processor}, {devices}{device}",
        "commit": machine.get("commit") or machine.get("dmfer_jax"),
        "config_digest": config_digest,
        "command": command,
    }
    rows = []
    for name, checkpoint in report["checkpoints"].items():
        rule = f"best-on-{checkpoint.get('chosen_on', 'valid')}" if name == "best" else name
        for split, summary in checkpoint["splits"].items():
            scores = {score: _fraction(summary[score]) for score in _SCORES}
            values = of_run | {
                "split": split,
                "epoch_rule": rule,
                "epoch": f"{round(checkpoint['epoch'], 3):g}",
                "images": summary["examples"],
                **scores,
                "deduplicated_accuracy": _fraction(summary.get("deduplicated", {}).get("accuracy")),
                **_stress_scores(checkpoint.get("stress", {}).get(split)),
                "parameters": checkpoint.get("parameters"),
            }
            rows.append({column: _text(values[column]) for column in COLUMNS})
    return rows


def _stress_scores(found: Mapping[str, Any] | None) -> dict[str, str | None]:
    """The columns of what `stress.score_stress` found, as far as it was run."""
    if found is None:
        return dict.fromkeys(STRESS)
    levels = {
        column: [value for kind in kinds for value in found["kinds"][kind]["accuracy"]]
        for column, kinds in KINDS.items()
    }
    means = {column: sum(values) / len(values) for column, values in levels.items()}
    means["stress_accuracy"] = found["mean_accuracy"]
    return {column: _fraction(value) for column, value in means.items()}


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Reads the rows of a file.

    A last line without its end is what a copy or a full disk has cut short. It is left away with a
    note; whoever appends to the file mends it.

    Args:
      path: of the CSV.

    Returns:
      {column: text} for each row; none where there is no file.

    Raises:
      UserError: it is no such file; which line is wrong, and how.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as rows of results ({error})") from error
    whole, _, rest = text.rpartition("\n")
    if rest:
        print(f"{path}: the last line was cut short and is left away")
    rows = csv.reader(io.StringIO(whole))
    try:
        return _parse(path, rows)
    except csv.Error as error:
        raise UserError(
            f"{path}, line {rows.line_num}: {error}; expected a row of results"
        ) from None


def append_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Adds rows to a file, all of them or none; those of the same run and split are replaced.

    Several processes may add to one file.

    Args:
      path: of the CSV; it is made if it is not there.
      rows: of `rows_of_report`.

    Raises:
      UserError: what is there are no such rows, or they cannot be written.
    """
    path, new = Path(path), list(rows)
    keys = {row_key(row) for row in new}

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            lines.writeheader()
            lines.writerows([*kept, *new])
            file.flush()
            os.fsync(file.fileno())  # checkpoints are removed once their row is on the disk

    with files.one_at_a_time(path.parent):
        kept = [row for row in read_rows(path) if row_key(row) not in keys]
        files.write_atomically(path, write)


def _parse(path: Path, rows: Any) -> list[dict[str, str]]:
    """Returns what a `csv.reader` of a file reads."""
    header = next(rows, None)
    if header is None:
        return []
    if tuple(header) != COLUMNS:
        odd = sorted(set(header) ^ set(COLUMNS)) or ["their order"]
        raise UserError(
            f"{path}, line 1: the columns are not those of results; what differs: {', '.join(odd)}."
            " Move the file away; a new one is made from the runs beside it."
        )
    found = []
    for row in rows:
        if len(row) != len(COLUMNS):
            raise UserError(
                f"{path}, line {rows.line_num}: found {len(row)} columns, expected {len(COLUMNS)}. "
                "Delete this line; it is made anew from its run."
            )
        found.append(dict(zip(COLUMNS, row, strict=True)))
    return found


def row_key(row: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what a file has one row of: experiment, variant, seed, split and epoch rule."""
    return tuple(row[column] for column in _KEY)


def numbers(rows: Sequence[Mapping[str, str]], column: str) -> list[float]:
    """Returns a column as numbers, without the rows where it is empty."""
    return [value for value in scaled(rows, column) if value is not None]


def scaled(
    rows: Sequence[Mapping[str, str]], column: str, factor: float = 1.0
) -> list[float | None]:
    """Returns a column as numbers times a factor; None of the rows where it is empty."""
    return [factor * float(row[column]) if row[column] else None for row in rows]


def _text(value: Any) -> str:
    """One line, whatever a path in a command holds."""
    return "" if value is None else " ".join(str(value).splitlines())


def _fraction(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"


def _hours(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds / 3600:.4f}"
