"""Training from beginning to end, interrupted and not, on a tiny experiment."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dmfer_jax import (
    checkpoint,
    checkpoint_record,
    evaluate,
    export,
    feeding,
    loop,
    run_folder,
    sharding,
    state,
    steps,
    subjects,
    train,
)
from dmfer_jax.data import builds, sources
from dmfer_jax.errors import UserError
from dmfer_jax.optimizer import make_optimizer
from dmfer_jax.reporting import figures
from dmfer_jax.reporting.predictions import read_run_predictions
from dmfer_jax.reporting.writers import read_jsonl

TOTAL_STEPS = 12  # 48 faces, 2 epochs, batches of 8


def saved_state(workdir: Path, which: str = "last"):
    """Returns a checkpoint's state as NumPy arrays."""
    config = run_folder.load_config(workdir)
    model = state.make_model(config, 8)
    optimizer = make_optimizer(config, lambda count: 0.0 * count)
    like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    with checkpoint.Checkpoints(workdir) as checkpoints:
        step = checkpoints.step(which)
        assert step is not None
        loaded = checkpoints.load(step, like, sharding.replicated(sharding.make_mesh()))
    return jax.device_get(loaded)


def logged(workdir: Path) -> list[dict]:
    """The log without what depends on the machine."""
    timed = ("images_per_second", "input_wait", "seconds", "cpu_seconds")
    rows = read_jsonl(workdir / "metrics.jsonl")
    return [{key: row[key] for key in row if key not in timed} for row in rows]


@pytest.fixture
def without_figures(monkeypatch):
    """Draws nothing: a quarter of a run's time, which one test looks at."""
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])


def send_signal_before_step(monkeypatch, step: int, number: signal.Signals):
    """Makes the process get a signal while it fetches the batch of a step."""
    honest = feeding.Feed.train_batches

    def interrupted(self, *args, start_step, **kwargs):
        batches = honest(self, *args, start_step=start_step, **kwargs)
        for count, batch in enumerate(batches, start=start_step + 1):
            if count == step:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(feeding.Feed, "train_batches", interrupted)


@pytest.mark.usefixtures("without_figures")
def test_resumed_run_equals_uninterrupted_run(tiny_config, finished, tmp_path, monkeypatch, capsys):
    whole, whole_report = finished
    halves = tmp_path / "halves"
    with monkeypatch.context() as patch:
        send_signal_before_step(patch, 5, signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            train.train(tiny_config, halves)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert "Saved at step 5 of 12; the same command goes on from there." in capsys.readouterr().out

    # The rest is read from disk, by another number of workers.
    tiny_config.data.memory_gib, tiny_config.data.workers = 0.0, 2
    report = train.train(tiny_config, halves)
    assert "going on from step 5 of 12" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, saved_state(whole), saved_state(halves))
    assert report["train"]["cpu_seconds"] > 0
    assert report["checkpoints"] == whole_report["checkpoints"]
    assert logged(halves) == logged(whole)  # step 5 was saved between two lines
    assert [row["step"] for row in logged(whole)] == [2, 4, 6, 6, 8, 10, 12, 12]


@pytest.mark.usefixtures("without_figures")
def test_a_lost_best_checkpoint_is_told(tiny_config, finished, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    log = workdir / "metrics.jsonl"
    rows = [row for row in read_jsonl(log) if row["step"] <= 6]
    rows[-1]["accuracy"] = 1.0  # as if the first epoch had been the best
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.rmtree(workdir / "checkpoints" / "6")
    report = train.train(tiny_config, workdir)
    expected = "the best epoch ended at step 6, but its checkpoint was damaged or removed"
    assert report["best_lost"].startswith(expected)
    assert expected in capsys.readouterr().out


@pytest.mark.usefixtures("without_figures")
def test_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tiny_config, finished, tmp_path, capsys
):
    whole, whole_report = finished
    workdir = shutil.copytree(whole, tmp_path / "run")
    (workdir / "checkpoints" / "12" / "state" / "_METADATA").write_text("{}")
    report = train.train(tiny_config, workdir)
    printed = capsys.readouterr().out
    assert "checkpoint of step 12 is damaged" in printed
    assert "going on from step 6 of 12" in printed
    assert report["checkpoints"] == whole_report["checkpoints"]
    assert logged(workdir) == logged(whole)
    jax.tree.map(np.testing.assert_array_equal, saved_state(whole), saved_state(workdir))


@pytest.mark.usefixtures("without_figures")
def test_checkpoint_that_cannot_be_written_stops_the_run(tiny_config, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tiny_config.train.checkpoint_every = 2
    monkeypatch.setattr(checkpoint_record, "write_record", fail)
    with pytest.raises(UserError, match=r"checkpoint of step 2 could not .* No space left on dev"):
        train.train(tiny_config, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.usefixtures("without_figures")
def test_other_records_are_refused(tiny_config, finished, tmp_path, monkeypatch):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    monkeypatch.setattr(builds, "records_digest", lambda folder: "f" * 64)
    with pytest.raises(UserError, match=r"those in .* of digest f+\. Give the records"):
        train.train(tiny_config, workdir)


def test_run_leaves_a_report_that_says_what_was_done(tiny_config, finished):
    workdir, report = finished
    assert json.loads((workdir / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["dataset"] == "synthetic_faces/tiny"
    assert report["seed"] == 0
    assert report["train"]["steps"] == TOTAL_STEPS
    for name in ("last", "best"):
        entry = report["checkpoints"][name]
        assert list(entry["splits"]) == ["valid", "test", "test_occlusion", "test_pose"]
        assert all(summary["examples"] == 16 for summary in entry["splits"].values())
        assert np.shape(entry["centers"]["cosines"]) == (8, 8)
    assert report["checkpoints"]["last"]["step"] == TOTAL_STEPS
    assert str(workdir) not in json.dumps(report)


def test_run_leaves_what_it_said_of_each_image_in_its_last_epoch(finished):
    workdir, report = finished
    class_names, said = read_run_predictions(workdir / "predictions.npz")
    splits = report["checkpoints"]["last"]["splits"]
    assert list(said) == list(splits)
    for name, summary in splits.items():
        confusion = np.zeros((8, 8), int)
        np.add.at(confusion, (said[name].labels, said[name].probabilities.argmax(1)), 1)
        assert confusion.tolist() == summary["confusion"]
        assert summary["labels"] == list(class_names)
        assert len(set(said[name].names)) == 16


def test_time_goes_on_from_that_of_the_checkpoint():
    note = {"seconds": 100.0, "cpu_seconds": 50.0, "epoch": 1.0}
    time = loop.go_on_counting(note, loop.read_clocks())()
    assert 100 <= time["seconds"] < 110
    assert 50 <= time["cpu_seconds"] < 60


def test_best_epoch_is_the_one_of_highest_validation_accuracy(finished):
    workdir, report = finished
    rows = [row for row in read_jsonl(workdir / "metrics.jsonl") if row["kind"] == "eval"]
    assert {row["split"] for row in rows} == {"valid"}  # no test split is looked at in between
    assert [row["step"] for row in rows] == [6, 12]
    best = max(rows, key=lambda row: (row["accuracy"], row["step"]))
    assert report["checkpoints"]["best"]["step"] == best["step"]
    found = report["checkpoints"]["best"]["splits"]["valid"]["accuracy"]
    assert found == pytest.approx(best["accuracy"])


def test_run_leaves_figures_and_logs(finished):
    workdir, _ = finished
    figures = sorted(path.name for path in (workdir / "figures").iterdir())
    assert "training.png" in figures
    assert any("test_occlusion_confusion" in name for name in figures)
    for name in figures:
        with Image.open(workdir / "figures" / name) as picture:
            assert min(picture.size) > 300
    assert list((workdir / "tensorboard").iterdir())


@pytest.mark.usefixtures("without_figures")
def test_finished_run_started_again_only_reports(tiny_config, finished):
    workdir, report = finished
    before = saved_state(workdir)
    again = train.train(tiny_config, workdir)
    assert again["checkpoints"] == report["checkpoints"]
    jax.tree.map(np.testing.assert_array_equal, before, saved_state(workdir))


def test_evaluation_of_a_checkpoint_repeats_the_report(finished):
    workdir, report = finished
    again = evaluate.evaluate(subjects.of_run(workdir, "last"), ["test_pose"])
    expected = report["checkpoints"]["last"]["splits"]["test_pose"]
    assert again["checkpoints"]["last"]["splits"]["test_pose"] == expected


def test_another_config_in_the_same_folder_is_refused_by_field(tiny_config, finished):
    workdir, _ = finished
    tiny_config.loss.margin = 0.3
    tiny_config.train.log_every = 7  # may change
    with pytest.raises(UserError, match=r"loss\.margin was 0\.2 and is 0\.3") as refused:
        train.train(tiny_config, workdir)
    assert "log_every" not in str(refused.value)


@pytest.mark.usefixtures("without_figures")
def test_training_on_the_validation_split_chooses_no_epoch(tiny_config, data_dir, tmp_path):
    tiny_config.data.train_splits = ("valid", "train")
    tiny_config.data.limit = 32  # with 16 of valid, as many steps as the other runs: one program
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    names = train.start_run(tiny_config, tmp_path, folder).train.names.tolist()
    assert (
        names[:16]
        == sources.load_split(folder, "valid", tiny_config.data, train=False).names.tolist()
    )
    report = train.train(tiny_config, tmp_path)
    assert report["train_splits"] == ["valid", "train"]
    assert report["train"]["examples"] == len(names) == 48
    assert list(report["checkpoints"]) == ["last"]
    assert list(report["checkpoints"]["last"]["splits"]) == ["test", "test_occlusion", "test_pose"]
    assert {row["kind"] for row in read_jsonl(tmp_path / "metrics.jsonl")} == {"train"}


def test_training_on_all_that_could_be_scored_is_refused(tiny_config, tmp_path):
    tiny_config.data.train_splits = ("train", "valid")
    tiny_config.data.test_splits = ("test_of_tomorrow",)
    with pytest.raises(UserError, match="nothing would be left to score"):
        train.train(tiny_config, tmp_path)


def test_a_model_to_hand_over_is_trained_on_all_and_scored_on_nothing(
    tiny_config, tmp_path, capsys
):
    tiny_config.data.train_splits = ("train", "valid")
    tiny_config.data.test_splits = ()
    tiny_config.data.limit = 32
    report = train.train(tiny_config, tmp_path)
    assert report["train"]["examples"] == 48
    assert [one["splits"] for one in report["checkpoints"].values()] == [{}]
    assert "Nothing was scored" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["training.png"]
    assert export.take_from_run(tmp_path, "last")[0].scores is None


@pytest.mark.usefixtures("without_figures")
def test_missing_test_splits_are_named_and_not_scored(tiny_config, finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    tiny_config.data.test_splits = ("test", "test_of_tomorrow")
    report = train.train(tiny_config, workdir)
    assert report["not_scored"] == ["test_of_tomorrow"]
    assert list(report["checkpoints"]["last"]["splits"]) == ["valid", "test"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 49, "49: the global batch, over 4 devices it is 12.25 a device"),
        ("batch_size", 64, "more than the 48 training examples"),
    ],
)
def test_batch_that_cannot_be_is_refused_before_a_run_begins(
    tiny_config, tmp_path, field, value, message
):
    tiny_config.train[field] = value
    with pytest.raises(UserError, match=message):
        train.train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluating_where_there_is_no_run_says_so(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        evaluate.evaluate(subjects.of_run(tmp_path, "last"), ["valid"])


def test_evaluating_a_split_that_is_not_there_names_those_that_are(finished):
    workdir, _ = finished
    with pytest.raises(UserError, match=r"no split 'tset'; it has .*test_pose"):
        evaluate.evaluate(subjects.of_run(workdir, "last"), ["tset"])


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("device_gib", [1.0, 0.0])  # gathered on the devices, or put there
def test_functions_are_traced_once_and_the_state_before_is_given_up(
    tiny_config, finished, tmp_path, monkeypatch, device_gib
):
    tiny_config.data.device_gib = device_gib
    tiny_config.data.test_splits = ("test",)
    made: dict[str, list] = {}

    def keep(module, name):
        honest = getattr(module, name)

        def keeping(*args):
            made.setdefault(name, []).append(honest(*args))
            return made[name][-1]

        monkeypatch.setattr(module, name, keeping)

    keep(steps, "example_losses")  # of the training step alone, asked for whenever it is traced
    keep(steps, "make_eval_step")
    keep(train, "start_run")
    keep(train, "init_or_restore")
    report = train.train(tiny_config, tmp_path)
    # 16 faces in batches of 12: the last one of each evaluation is padded.
    (run,) = made["start_run"]
    assert len(made["example_losses"]) == 1
    compiled = made["make_eval_step"]
    if device_gib:
        compiled += [run.train_feed.gather, run.valid_feed.gather]
    assert [function._cache_size() for function in compiled] == [1] * len(compiled)
    ((before, _),) = made["init_or_restore"]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    # Batches and results are the same, wherever the images lie.
    expected = finished[1]["checkpoints"]["last"]["splits"]
    found = report["checkpoints"]["last"]["splits"]
    assert found == {name: expected[name] for name in ("valid", "test")}
    assert 0 <= report["train"]["input_wait_share"] < 1
    logged = [row for row in read_jsonl(tmp_path / "metrics.jsonl") if row["kind"] == "train"]
    assert all("input_wait" in row for row in logged)
