"""The report of a run together with what was found of its checkpoints later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmfer_jax.reporting.report import read_report


def read_run_report(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the report of a run with what its checkpoints were scored on since: lists, and harm.

    Args:
      workdir: of the run; the reports that `dmfer_jax.evaluate` wrote are in its `evaluation/`.

    Returns:
      The report, as described above.

    Raises:
      UserError: a report is missing or damaged.
    """
    report = read_report(Path(workdir) / "report.json")
    for path in sorted((Path(workdir) / "evaluation").glob("*.json")):
        later = read_report(path)
        if not is_of_run(later, report):
            continue
        for evaluated in later["checkpoints"].values():
            lists = {name: one for name, one in evaluated["splits"].items() if "list" in one}
            for checkpoint in report["checkpoints"].values():
                if checkpoint["step"] == evaluated["step"]:
                    checkpoint["splits"].update(lists)
                    checkpoint.setdefault("stress", {}).update(evaluated.get("stress", {}))
    return report


_OF_RUN = ("seed", "records_sha256", "protocol", "train_protocol")
_OF_NETWORK = ("model", "loss", "optimizer", "augment", "data", "train")

MAY_CHANGE = (
    "init_from",  # a path; that the file is the same is checked in `initial`
    "data.source",
    "data.data_dir",
    "data.memory_gib",
    "data.device_gib",
    "data.workers",
    "data.test_splits",
    "train.log_every",
    "train.checkpoint_every",
    "train.eval_batch_size",
    "train.nonfinite",
)
"""Fields that do not change what a run computes."""


def is_of_run(evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether an evaluation is of a run, and of its records, as far as both say it.

    The folder may have held another run before, and its network may have been scored on others.

    Args:
      evaluation: a report of `evaluate`.
      report: of the run.
    """
    one, other = _told(evaluation), _told(report)
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _told(report: Mapping[str, Any]) -> dict[str, Any]:
    config: Mapping[str, Any] = report.get("config") or {}
    fields = {
        f"{part}.{name}": value
        for part in _OF_NETWORK
        for name, value in config.get(part, {}).items()
        # Of the dataset the digest of its records tells more than the name that was given.
        if f"{part}.{name}" not in (*MAY_CHANGE, "data.dataset")
    }
    start = {"init_from": (report.get("init_from") or {}).get("sha256")} if config else {}
    return {name: report[name] for name in _OF_RUN if name in report} | fields | start
