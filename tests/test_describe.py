"""A report says what its numbers are of: dataset, release, protocol, and what was changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from dmfer_jax.config import get_config
from dmfer_jax.describe import describe_run


def fake_build(folder: Path, name: str, variant: str = "", **facts: Any) -> Path:
    """Writes what is read of a build to describe a run on it."""
    info = {"name": name, **({"configName": variant} if variant else {})}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "metadata.json").write_text(json.dumps(facts))
    return folder


def test_only_ferplus_has_a_protocol(tmp_path):
    config: Any = get_config()
    config.data.train_protocol = "votes"
    told = describe_run(config, fake_build(tmp_path, "ferplus", differs=[]))
    assert (told["dataset"], told["protocol"]) == ("ferplus", "majority")
    assert told["train_protocol"] == "votes"
    told = describe_run(config, fake_build(tmp_path, "affectnet", "new", differs=[]))
    assert (told["dataset"], told["protocol"], told["train_protocol"]) == (
        "affectnet/new",
        None,
        None,
    )


def test_nothing_is_said_of_what_was_left_alone(tmp_path):
    told = describe_run(get_config(), fake_build(tmp_path, "rafdb", "aligned", differs=[]))
    changes = {"differs", "train_splits", "limit", "sampling", "class_weights", "drop_classes"}
    assert not changes & told.keys()


@pytest.mark.parametrize(
    ("field", "value", "key", "expected"),
    [
        ("data.drop_classes", ("contempt",), "drop_classes", ["contempt"]),
        ("data.sampling", "square_root", "sampling", "square_root"),
        ("loss.class_weights", "balanced", "class_weights", "balanced"),
        ("data.train_splits", ("train", "valid"), "train_splits", ["train", "valid"]),
        ("data.limit", 100, "limit", 100),
    ],
)
def test_whatever_was_changed_is_said(tmp_path, field, value, key, expected):
    config: Any = get_config()
    section, name = field.split(".")
    config[section][name] = value
    assert describe_run(config, fake_build(tmp_path, "affectnet", "new"))[key] == expected


def test_records_that_are_not_as_published_are_said_to_differ(tmp_path):
    differs = ["train, fear: 280 images; published are 281"]
    folder = fake_build(tmp_path, "rafdb", "aligned", layout="class folders", differs=differs)
    assert describe_run(get_config(), folder)["differs"] == differs


def test_paths_of_this_machine_are_left_out(tmp_path):
    config: Any = get_config()
    config.data.source = "/home/me/faces"
    told = describe_run(config, fake_build(tmp_path, "ferplus"))
    assert not {"source", "data_dir"} & told["config"]["data"].keys()
