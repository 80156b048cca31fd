"""Reports and predictions of runs that never were, for tests of what is made from them."""

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dmfer_jax import files
from dmfer_jax.data.corruptions import CORRUPTIONS, LEVELS
from dmfer_jax.reporting.predictions import Predictions, write_run_predictions
from dmfer_jax.reporting.report import write_report
from dmfer_jax.reporting.rows import KINDS

CLASSES = ("neutral", "happiness")


def make_stress(mean: float = 0.25) -> dict[str, Any]:
    """Returns what a stress test found: 55 % where covered, 35 % where turned, a mean of choice."""
    found = {}
    for kind in CORRUPTIONS:
        first = 0.75 if kind in KINDS["stress_occlusion_accuracy"] else 0.55
        found[kind] = {"accuracy": [first - 0.1 * level for level in range(LEVELS)]}
    return {"mean_accuracy": mean, "kinds": found}


def make_report(seed: int = 0, accuracy: float = 0.75, config: Any = None) -> dict[str, Any]:
    """Returns the report of a run with all that a row can tell."""
    summary = {
        "examples": 4,
        "accuracy": accuracy,
        "mean_class_accuracy": 0.5,
        "macro_f1": 0.4,
        "ece": None,
        "deduplicated": {"accuracy": 2 / 3},
    }
    common = {"chosen_on": "valid", "parameters": 1234, "centers": None}
    splits = {"valid": summary, "test": summary}
    last = {"epoch": 2.0, "step": 12, **common, "splits": splits}
    return {
        "dataset": "ferplus",
        "protocol": "majority",
        "train_protocol": "votes",
        "seed": seed,
        "config": config or {"data": {"train_splits": ["train"]}},
        "environment": {"cores": 2, "devices": 1, "device": "cpu", "commit": "v0-1-gabc"},
        "train": {"seconds": 1800.0, "cpu_seconds": 3240.0, "steps": 12},
        "checkpoints": {
            "last": {**last, "stress": {"valid": make_stress()}},
            "best": {**last, "epoch": 1.0, "step": 6},
        },
    }


def make_predictions(right: list[int]) -> Predictions:
    """Returns predictions of images of class 0 that are right where there is a 1."""
    likely = np.where(np.array(right) == 1, 0.9, 0.2)
    return Predictions(
        np.array([f"{number}.png" for number in range(len(right))]),
        np.zeros(len(right), np.int32),
        np.stack([likely, 1 - likely], axis=1).astype(np.float32),
    )


def say_of_both(right: list[int]) -> dict[str, Predictions]:
    """Returns the same predictions of a validation and a test split."""
    return {split: make_predictions(right) for split in ("valid", "test")}


def leave_stress(workdir: Path) -> None:
    """Writes what scoring the last epoch of such a run under harm leaves there."""
    last = {"epoch": 2.0, "step": 12, "splits": {}, "stress": {"valid": make_stress()}}
    write_report(workdir / "evaluation" / "last_valid_stress.json", {"checkpoints": {"last": last}})


def leave_run(workdir: Path, config: ConfigDict, right: list[int]) -> None:
    """Writes what a finished run of a config leaves in its folder."""
    (workdir / "checkpoints" / "12").mkdir(parents=True)
    text = config.to_json_best_effort()
    files.write_atomically(workdir / "config.json", lambda part: part.write_text(text))
    write_run_predictions(workdir / "predictions.npz", CLASSES, say_of_both(right))
    report = make_report(config.seed, float(np.mean(right)), config.to_dict())
    del report["checkpoints"]["last"]["stress"]
    write_report(workdir / "report.json", report)
