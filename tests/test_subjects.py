"""The network of a file, scored on records: as its run is, and on other classes."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dmfer_jax import evaluate, export, subjects
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.reporting import report as reports
from tests.conftest import make_tiny_config, save_random_run
from tests.test_evaluate import options


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A run of random weights."""
    config = make_tiny_config(data_dir)
    return save_random_run(tmp_path_factory.mktemp("run"), config, EXPRESSION_NAMES)


@pytest.fixture(scope="module")
def model(workdir: Path) -> str:
    """The file of that run's network."""
    path = workdir / "model.safetensors"
    export.export(workdir, "last", path)
    return str(path)


def score(model: str, data_dir: Path, names: Any = (), **options: Any) -> dict[str, Any]:
    subject = subjects.of_model(model, "synthetic_faces/tiny", data_dir=str(data_dir), **options)
    subject.config.train.eval_batch_size = 12  # compiled for the run already
    return evaluate.evaluate(subject, names)


def test_file_has_the_scores_of_its_run(model, workdir, data_dir):
    expected = evaluate.evaluate(subjects.of_run(workdir, "last"), ["test"])
    found = score(model, data_dir)
    assert found["checkpoints"].keys() == {"last"}
    (ours,), (theirs,) = (
        one["checkpoints"]["last"]["splits"].values() for one in (found, expected)
    )
    assert ours["confusion"] == theirs["confusion"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert found["records_sha256"] == expected["records_sha256"]
    assert found["model"]["file"] == "model.safetensors"
    assert str(data_dir) not in json.dumps(found)
    assert "seen" not in found


def test_records_of_fewer_classes_are_scored_among_all_that_the_model_knows(model, data_dir):
    (whole,), (fewer,) = (
        score(model, data_dir, drop_classes=drop)["checkpoints"]["last"]["splits"].values()
        for drop in ((), ("contempt", "neutral"))
    )
    expected = np.array(whole["confusion"])
    expected[[0, 7]] = 0
    assert fewer["confusion"] == expected.tolist()
    assert fewer["examples"] == 12


def test_faces_that_the_model_was_trained_on_are_told(model, data_dir):
    found = score(model, data_dir, ["train"])
    assert found["seen"] == ["train"]
    assert any("trained on train" in line for line in reports._heading(found))
    line = json.loads(reports.json_line(found))
    assert (line["seen"], line["model"]["file"]) == (["train"], "model.safetensors")


def test_command_writes_beside_where_it_is_called(model, data_dir, tmp_path, monkeypatch, capsys):
    given = options(model=model, dataset="synthetic_faces/tiny", data_dir=str(data_dir))
    monkeypatch.setattr(evaluate, "flags", SimpleNamespace(FLAGS=given))
    monkeypatch.chdir(tmp_path)
    evaluate.main([])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["checkpoints"]["last"]["splits"]["test"]["examples"] == 16
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    folder = Path("evaluation", f"model-{digest[:8]}", "synthetic_faces", "tiny")
    assert (folder / "last_test.json").is_file()
    assert (folder / "figures" / "last_test_confusion.png").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either --workdir, the folder of a run, or --model"),
        ({"workdir": "a", "model": "b"}, r"\(both are given\)"),
        ({"workdir": "a", "dataset": "rafdb"}, "--dataset goes with --model"),
        ({"workdir": "a", "drop_classes": ["fear"]}, "--drop_classes goes with --model"),
        ({"model": "a"}, "--model needs --dataset"),
        ({"model": "a", "dataset": "b", "checkpoint": "best"}, "--checkpoint goes with --workdir"),
        ({"model": "none", "dataset": "rafdb"}, "there is no model 'none'"),
        ({"model": "ferplus-small", "dataset": "no"}, "data.dataset is 'no'"),
        ({"model": "ferplus-small", "dataset": "ferplus", "protocol": "x"}, "protocol is 'x'"),
        (
            {"model": "ferplus-small", "dataset": "rafdb", "protocol": "x"},
            "--protocol is about FER",
        ),
    ],
)
def test_flags_that_say_nothing_or_too_much_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        evaluate.find_subject(options(**given))


def test_each_protocol_and_choice_of_classes_has_a_folder_of_its_own():
    def folder(**given: Any) -> str:
        given = {"model": "ferplus-small", "dataset": "ferplus", **given}
        return str(evaluate.find_subject(options(**given)).folder)

    assert folder() == "evaluation/ferplus-small/ferplus/majority"
    assert folder(protocol="plurality") == "evaluation/ferplus-small/ferplus/plurality"
    fewer = folder(drop_classes=["contempt", "fear"])
    assert fewer == "evaluation/ferplus-small/ferplus/majority/without_contempt_fear"
    other = folder(dataset="rafdb", drop_classes=["fear"])
    assert other == "evaluation/ferplus-small/rafdb/without_fear"
