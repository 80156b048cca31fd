"""Evaluation of a checkpoint: on splits and lists, and where the records have moved."""

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dmfer_jax import evaluate, run_folder, subjects
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting.predictions import read_predictions
from tests.conftest import make_tiny_config, save_random_run
from tests.data_builders import ferplus_files


@pytest.fixture(scope="module")
def ferplus_config(tmp_path_factory: pytest.TempPathFactory) -> ConfigDict:
    """Twelve FERPlus rows, of which test has fer0032220 (neutral) and fer0032221 (surprise)."""
    folder = tmp_path_factory.mktemp("ferplus")
    config = make_tiny_config(folder / "records")
    config.data.dataset = "ferplus"
    ferplus_files.build(ferplus_files.write_source(folder / "source"), folder / "records")
    config.data.test_splits = ("test",)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, ferplus_config: ConfigDict) -> Path:
    """A run of which random weights were saved, and whose config names folders that are gone."""
    folder = tmp_path_factory.mktemp("run")
    moved = ferplus_config.copy_and_resolve_references()
    moved.data.data_dir = moved.data.source = str(folder / "gone")
    return save_random_run(folder, moved, EXPRESSION_NAMES)


def evaluate_run(
    workdir: Path, which: str, names: Sequence[str] = (), lists: str = "", **options: Any
) -> dict[str, Any]:
    """The report of a checkpoint of a run."""
    places = {name: options.pop(name) for name in ("data_dir", "source") if name in options}
    subject = subjects.of_run(workdir, which, with_lists=bool(lists), **places)
    return evaluate.evaluate(subject, names, lists=lists, **options)


@pytest.fixture
def places(ferplus_config: ConfigDict) -> dict[str, str]:
    """Where the run's records are now."""
    return {"data_dir": ferplus_config.data.data_dir}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Lists of which two names, one name and no name are in the test split."""
    occlusion = ["2_fer0032221.png 8 1", "0_fer0032220.png 8 0", "2_fer0032221.png 8 1"]
    (tmp_path / "jianfei_occlusion_list.txt").write_bytes("\r\n".join(occlusion).encode())
    (tmp_path / "pose_30_ferplus_list.txt").write_text("3/fer0032220.jpg\n0/fer0000000.jpg\n")
    (tmp_path / "pose_45_ferplus_list.txt").write_text("0/fer0000000.jpg\n")
    return tmp_path


def test_lists_are_scored_as_further_splits(workdir, lists, places):
    report = evaluate_run(workdir, "last", lists=str(lists), **places)
    splits = report["checkpoints"]["last"]["splits"]
    assert list(splits) == ["test", "occlusion", "pose_30"]
    # The list's two images are all that test has, so the scores are the same.
    for key in ("examples", "accuracy", "confusion", "loss"):
        assert splits["occlusion"][key] == splits["test"][key]
    assert splits["occlusion"]["list"] == {
        "lines": 3,
        "distinct": 2,
        "published": 605,
        "repeated": 1,
        "found": 2,
        "missing": 0,
        "relabelled": 0,
        "repeated_lines": [3],
        "missing_names": [],
    }
    pose = splits["pose_30"]
    assert pose["confusion"][0] == splits["test"]["confusion"][0]  # the one neutral face
    assert (pose["examples"], pose["list"]["relabelled"]) == (1, 1)
    assert pose["list"]["missing_names"] == ["fer0000000"]
    assert "pose_45: not scored. None of its 1 names" in report["lists_not_scored"]["pose_45"]


def test_names_are_looked_for_in_the_splits_that_are_named(workdir, lists, places):
    report = evaluate_run(workdir, "last", ["test", "train"], lists=str(lists), **places)
    splits = report["checkpoints"]["last"]["splits"]
    assert list(splits) == ["test", "train", "occlusion", "pose_30"]
    # fer0000000 has no majority, so it is in no split under this protocol.
    assert splits["pose_30"]["list"]["missing_names"] == ["fer0000000"]
    in_valid = evaluate_run(workdir, "last", ["valid"], lists=str(lists), **places)
    assert list(in_valid["checkpoints"]["last"]["splits"]) == ["valid"]
    assert list(in_valid["lists_not_scored"]) == ["occlusion", "pose_30", "pose_45"]


def options(**given: Any) -> SimpleNamespace:
    """The flags of the command, those given and the others as they are unless told."""
    texts = (
        "workdir",
        "model",
        "dataset",
        "protocol",
        "lists",
        "predictions",
        "data_dir",
        "source",
    )
    unless_told = {**dict.fromkeys(texts, ""), "splits": [], "drop_classes": [], "stress": False}
    processes = {"coordinator": "", "processes": None, "process": None}
    return SimpleNamespace(**(unless_told | {"checkpoint": None, **processes} | given))


def test_command_leaves_a_report_figures_and_a_last_line_of_json(
    workdir, lists, places, monkeypatch, capsys
):
    given = {"workdir": workdir, "lists": str(lists), **places}
    monkeypatch.setattr(evaluate, "flags", SimpleNamespace(FLAGS=options(**given)))
    evaluate.main([])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    splits = line["checkpoints"]["last"]["splits"]
    assert list(splits) == ["test", "occlusion", "pose_30"]
    assert splits["pose_30"]["list"]["missing"] == 1
    assert list(line["lists_not_scored"]) == ["pose_45"]
    folder = workdir / "evaluation"
    written = json.loads((folder / "last_test_occlusion_pose_30_pose_45.json").read_text())
    assert written["checkpoints"]["last"]["splits"]["pose_30"]["list"]["missing_names"]
    assert all(str(place) not in json.dumps(written) for place in given.values())
    assert (folder / "figures" / "last_pose_30_confusion.png").is_file()


def test_without_splits_or_lists_the_validation_split_is_scored(workdir, places):
    report = evaluate_run(workdir, "best", **places)
    assert list(report["checkpoints"]["best"]["splits"]) == ["valid"]


def test_records_of_other_classes_than_the_run_are_refused(workdir, places, tmp_path):
    moved = shutil.copytree(workdir, tmp_path / "run")
    config = run_folder.load_config(moved)
    config.data.drop_classes = ("contempt",)
    (moved / "config.json").write_text(config.to_json_best_effort())
    with pytest.raises(UserError, match=r"tells apart neutral, .*, contempt, and the classes of"):
        evaluate_run(moved, "last", ["test"], **places)


def test_run_without_test_splits_asks_for_the_split(workdir, places, tmp_path):
    moved = shutil.copytree(workdir, tmp_path / "run")
    config = run_folder.load_config(moved)
    config.data.train_splits, config.data.test_splits = ("train", "valid"), ()
    (moved / "config.json").write_text(config.to_json_best_effort())
    with pytest.raises(UserError, match="no test splits; name what to score with --splits"):
        evaluate_run(moved, "last", **places)


def test_records_that_are_not_there_are_built_from_where_the_source_is_now(workdir, monkeypatch):
    asked = []

    def build(*places: str) -> Path:
        asked.append(places)
        raise UserError("built enough")

    monkeypatch.setattr(evaluate, "ensure_built", build)
    moves: list[dict[str, Any]] = [{"source": "here"}, {"data_dir": "there"}, {}]
    for moved in moves:
        with pytest.raises(UserError, match="built enough"):
            evaluate_run(workdir, "last", **moved)
    gone = str(workdir / "gone")
    assert asked == [("ferplus", "here", gone), ("ferplus", gone, "there"), ("ferplus", gone, gone)]


def test_lists_that_do_not_fit_are_refused_before_anything_is_built(workdir, tmp_path):
    (tmp_path / "rafdb_occlusion_list.txt").write_text("test_0003_aligned 3 4\n")
    with pytest.raises(UserError, match="found lists of rafdb, expected those of 'ferplus'"):
        evaluate_run(workdir, "last", lists=str(tmp_path))


def printed(report: dict) -> str:
    output = io.StringIO()
    reports.print_report(report, Console(file=output, width=80, highlight=False))
    assert max(map(len, output.getvalue().splitlines())) <= 80
    return output.getvalue()


def test_printed_report_says_what_of_the_lists_was_found(workdir, lists, places):
    names = "".join(f"0/fer00000{number:02d}.jpg\n" for number in range(10, 22))
    with (lists / "pose_30_ferplus_list.txt").open("a") as file:
        file.write(names)
    text = printed(evaluate_run(workdir, "last", lists=str(lists), **places))
    rows = [line.split() for line in text.splitlines()]
    assert ["occlusion", "3", "2", "605", "1", "2", "0", "0"] in rows
    assert ["pose_30", "14", "14", "1,170", "0", "1", "13", "1"] in rows
    text = " ".join(text.split())
    assert "occlusion: not the list as published" in text
    assert "occlusion: lines that repeat an earlier one, counted once: 3 " in text
    assert "not scored: fer0000000, fer0000010, fer0000011 and 10 more" in text
    assert "pose_30: 1 of its labels differ from the records', which count" in text
    assert "occlusion: incomplete: its score cannot stand beside other people's" in text
    assert "pose_45: not scored. None of its 1 names" in text


def test_predictions_are_written_of_each_image_and_not_of_the_lists(
    workdir, lists, places, tmp_path
):
    path = tmp_path / "said.csv"
    report = evaluate_run(
        workdir, "last", ["test"], lists=str(lists), predictions=str(path), **places
    )
    names, probabilities = read_predictions(path, EXPRESSION_NAMES)
    assert [name.partition(".")[0] for name in names] == ["fer0032220", "fer0032221"]
    with path.open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["neutral", "surprise"]
    confusion = np.zeros((8, 8), int)
    for label, predicted in zip([0, 2], probabilities.argmax(1), strict=True):
        confusion[label, predicted] += 1
    assert report["checkpoints"]["last"]["splits"]["test"]["confusion"] == confusion.tolist()


def test_predictions_of_several_splits_do_not_go_into_one_file(workdir, places):
    with pytest.raises(UserError, match=r"one file, and 2 splits are scored \(valid, test\)"):
        evaluate_run(workdir, "last", ["valid", "test"], predictions="said.csv", **places)
