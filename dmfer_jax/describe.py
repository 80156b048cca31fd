"""What a report says of a run beside its numbers: what was trained on what, and how."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dmfer_jax.config import split_dataset
from dmfer_jax.data import builds
from dmfer_jax.reporting.environment import describe_environment


def describe_run(config: ConfigDict, dataset_dir: Path) -> dict[str, Any]:
    """Returns the part of a report that says what was run, and on what.

    Args:
      config: of the run.
      dataset_dir: of the records. Their full name is in the report, since numbers on another
        release of a dataset do not compare, and so is where they differ from what is published;
        `records_sha256` tells whether two runs had the very same ones.
    """
    records = describe_records(config, dataset_dir)
    data: Any = config.data
    follows = data.train_protocol or data.protocol
    return {
        **records,
        "train_protocol": follows if records["protocol"] else None,
        **_departures(config),
        "seed": config.seed,
        "config": _without_paths(config),
        "environment": describe_environment(),
    }


def describe_records(config: ConfigDict, dataset_dir: Path) -> dict[str, Any]:
    """Returns what a report says of the records that something is scored on.

    Args:
      config: of which the protocol and what is left out are read.
      dataset_dir: of the records.
    """
    data: Any = config.data
    dataset = builds.dataset_name(dataset_dir)
    differs = builds.facts(dataset_dir).get("differs")
    return {
        "dataset": dataset,
        "protocol": data.protocol if split_dataset(dataset)[0] == "ferplus" else None,
        "records_sha256": builds.records_digest(dataset_dir),
        **({"differs": differs} if differs else {}),
        **({"limit": data.limit} if data.limit else {}),
        **({"drop_classes": list(data.drop_classes)} if data.drop_classes else {}),
    }


def _departures(config: ConfigDict) -> dict[str, Any]:
    """What a reader must know of how a run was trained; nothing of what was left alone."""
    used: dict[str, Any] = {}
    if tuple(config.data.train_splits) != ("train",):
        used["train_splits"] = list(config.data.train_splits)
    if config.data.sampling != "natural":
        used["sampling"] = config.data.sampling
    if config.loss.class_weights != "none":
        used["class_weights"] = config.loss.class_weights
    return used


def _without_paths(config: ConfigDict) -> dict[str, Any]:
    """The config as a dict, without what it says of this machine's folders."""
    plain = config.to_dict()
    plain["init_from"] = Path(plain["init_from"]).name
    plain["data"] = {k: v for k, v in plain["data"].items() if k not in ("source", "data_dir")}
    return plain
