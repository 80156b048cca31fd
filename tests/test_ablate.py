"""An ablation from plan to table: what is run, that it goes on, and that nothing is run twice."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmfer_jax import ablate, ablation, run_lock, run_queue
from dmfer_jax.ablation import ROWS, Ablation
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import result_tables, rows
from dmfer_jax.reporting.predictions import read_run_predictions
from tests.made_up import leave_stress
from tests.tiny_ablation import CONFIG, GRID, Trainer, plan


@pytest.fixture
def planned(tmp_path: Path) -> Ablation:
    """Two variants with two seeds; a third one sets what holds anyway."""
    (tmp_path / "tiny.py").write_text(CONFIG)
    (tmp_path / "parts.py").write_text(GRID)
    return plan(tmp_path)


def test_runs_are_planned_seed_by_seed_without_what_is_the_baseline_itself(planned):
    assert planned.experiment == "tiny-parts"
    assert planned.same == ("shaken",)
    assert list(planned.variants) == ["plain", "cosine"]
    expected = ["plain, seed 0", "cosine, seed 0", "plain, seed 1", "cosine, seed 1"]
    assert [run.name for run in planned.runs] == expected
    assert set(ablation.find_states(planned).values()) == {"left"}
    assert not planned.out.exists()


def test_a_value_that_the_loss_has_no_use_for_is_the_baseline_itself(planned, tmp_path):
    for name, left in (("none", []), ("center", ["weight=0.3", "center_rate=0.9"])):
        fields = {"loss.name": name, "loss.centers": "state", "loss.center_rate": 0.5}
        changed = planned.config.copy_and_resolve_references()
        changed.update_from_flattened_dict(fields)
        of_loss = ablation.plan(planned.config_path, changed, "sensitivity", 1, tmp_path, ())
        assert {"margin=0.3", "scale=8"} <= {*of_loss.same}
        assert {*left} <= {*of_loss.variants}
        if not left:
            assert list(of_loss.variants) == ["as_configured"]


def test_only_names_variants_of_the_grid(planned, tmp_path):
    assert [run.name for run in plan(tmp_path, 1, ("cosine",)).runs] == ["cosine, seed 0"]
    assert plan(tmp_path, 1, ("plain", "plain")).runs == plan(tmp_path, 1, ("plain",)).runs
    with pytest.raises(UserError, match="'cosin' is no variant of the grid; there are plain, cos"):
        plan(tmp_path, 1, ("cosin",))
    with pytest.raises(UserError, match="'shaken' is the baseline itself here"):
        plan(tmp_path, 1, ("shaken",))


def test_finished_runs_have_their_rows_and_are_not_run_again(planned, tmp_path):
    trainer = Trainer(planned)
    assert ablation.run_all(planned, trainer) == []
    assert len(trainer.names) == 4
    found = rows.read_rows(planned.out / ROWS)
    assert [(row["variant"], row["seed"]) for row in found[::4]] == [
        ("plain", "0"),
        ("cosine", "0"),
        ("plain", "1"),
        ("cosine", "1"),
    ]
    assert found[4]["command"].startswith("python -m dmfer_jax.train --config=tiny.py")
    assert len({row["config_digest"] for row in found}) == 2
    for run in planned.runs:
        assert not (run.workdir / "checkpoints").exists()
        assert (run.workdir / "predictions.npz").is_file()
    before = (planned.out / ROWS).read_bytes()
    ablation.run_all(planned, trainer)
    more = plan(tmp_path, 3)
    later = Trainer(more)
    ablation.run_all(more, later)
    assert len(trainer.names) == 4
    assert later.names == ["plain, seed 2", "cosine, seed 2"]
    assert (planned.out / ROWS).read_bytes().startswith(before)


def test_harm_is_scored_behind_each_training_and_stands_in_rows_and_tables(planned, tmp_path):
    harmed = plan(tmp_path, stress=True)
    trainer = Trainer(harmed)
    ablation.run_all(harmed, trainer)
    assert trainer.names == trainer.harmed == [run.name for run in harmed.runs]
    found = rows.read_rows(harmed.out / ROWS)
    said = {row["stress_pose_accuracy"] for row in found if row["epoch_rule"] == "last"}
    assert said == {"0.350000", ""}  # valid, test
    ablate.show_findings(harmed)
    table = (harmed.out / "table.md").read_text()
    assert "| variant | seeds | occlusion (stress) | pose (stress) | stress |" in table
    page = "<!-- results: out -->\n<!-- end of results -->"
    assert "pose (stress) | stress |" in result_tables.render_page(page, tmp_path)


def test_harm_that_is_asked_for_later_is_scored_as_long_as_there_are_checkpoints(planned, tmp_path):
    ablation.run_all(planned, Trainer(planned), keep_checkpoints=True)
    shutil.rmtree(planned.runs[0].workdir / "checkpoints")
    leave_stress(planned.runs[1].workdir)  # the process was killed before it added the row
    harmed = plan(tmp_path, stress=True)
    assert list(ablation.find_states(harmed).values()) == ["done", *["trained"] * 3]
    trainer = Trainer(harmed)
    ablation.run_all(harmed, trainer)
    assert trainer.names == []
    assert trainer.harmed == [run.name for run in harmed.runs[2:]]
    found = [row for row in rows.read_rows(harmed.out / ROWS) if row["split"] == "valid"]
    last = [row["stress_accuracy"] for row in found if row["epoch_rule"] == "last"]
    assert sorted(last) == ["", *["0.250000"] * 3]
    assert set(ablation.find_states(harmed).values()) == {"done"}
    assert ablation.list_unharmed(harmed) == ["plain, seed 0"]  # whose checkpoints are gone
    assert ablation.list_unharmed(planned) == []


def test_harm_is_scored_on_records_that_have_moved_since(planned, tmp_path):
    ablation.run_all(planned, Trainer(planned), keep_checkpoints=True)
    moved = plan(tmp_path, fields={"data.data_dir": "elsewhere"}, stress=True)
    trainer = Trainer(moved)  # which looks for the place in the command
    ablation.run_all(moved, trainer)
    assert len(trainer.harmed) == 4


@pytest.mark.parametrize(
    ("field", "value"), [("limit", 5), ("drop_classes", ("fear",)), ("valid_split", "test")]
)
def test_variant_that_would_be_scored_on_other_images_is_refused_before_it_is_run(
    planned, tmp_path, field, value
):
    extra = f'"other": none | {{"data.{field}": {value!r}}}, '
    (tmp_path / "parts.py").write_text(GRID.replace('"cosine"', f'{extra}"cosine"'))
    with pytest.raises(UserError, match=rf"'other' has data\.{field}=.* other images or labels"):
        plan(tmp_path)


def test_run_whose_row_was_lost_gets_it_back_from_its_report(planned):
    ablation.run_all(planned, Trainer(planned), keep_checkpoints=True)
    assert (planned.runs[0].workdir / "checkpoints").is_dir()
    path = planned.out / ROWS
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert ablation.find_states(planned)["cosine, seed 1"] == "trained"
    trainer = Trainer(planned)
    ablation.run_all(planned, trainer)
    assert trainer.names == []
    assert path.read_bytes() == whole


def test_rows_stay_good_when_the_folder_of_a_run_is_gone(planned, capsys):
    ablation.run_all(planned, Trainer(planned))
    shutil.rmtree(planned.runs[1].workdir)
    assert set(ablation.find_states(planned).values()) == {"done"}
    ablate.show_findings(planned)
    said = capsys.readouterr().out
    assert "predictions.npz is gone, so cosine, seed 0 is compared with nothing anew" in said
    assert "cosine 1*" in " ".join(said.split())  # the seed that is left


def test_differences_that_are_known_outlive_the_predictions(planned):
    ablation.run_all(planned, Trainer(planned))
    ablate.show_findings(planned)
    files = [planned.out / name for name in ("differences.csv", "table.md")]
    before = [file.read_text() for file in files]
    for run in planned.runs:
        shutil.rmtree(run.workdir)
    ablate.show_findings(planned)
    assert [file.read_text() for file in files] == before
    assert "0+1" in before[0]


def test_table_of_another_experiment_is_refused(planned):
    ablation.run_all(planned, Trainer(planned))
    with pytest.raises(UserError, match="is of the experiment 'tiny-parts'"):
        ablate.show_findings(planned._replace(experiment="tiny-losses"))


def test_what_leaves_nothing_to_score_is_refused_before_it_is_run(tmp_path, planned):
    with pytest.raises(UserError, match="nothing would be left to score"):
        plan(tmp_path, fields={"data.train_splits": ("train", "valid"), "data.test_splits": ()})


def test_run_of_another_config_under_the_same_name_is_refused_by_field(planned, tmp_path):
    ablation.run_all(planned, Trainer(planned))
    other = plan(tmp_path, fields={"optimizer.learning_rate": 0.5})
    with pytest.raises(UserError, match=r"optimizer\.learning_rate was 1\.0 and is 0\.5"):
        ablation.find_states(other)
    started = plan(tmp_path, fields={"init_from": "some/face.safetensors"})
    with pytest.raises(UserError, match=r"init_from was '' and is 'face\.safetensors'"):
        ablation.find_states(started)
    scored = plan(tmp_path, fields={"data.test_splits": ()})
    with pytest.raises(UserError, match=r"test_splits was \('test',\) and is \(\)"):
        ablation.find_states(scored)
    for run in planned.runs:
        shutil.rmtree(run.workdir)
    with pytest.raises(UserError, match="the rows of plain, seed 0 are of a config of digest"):
        ablation.find_states(other)
    with pytest.raises(UserError, match="is of the experiment 'tiny-parts', and this one is 'tiny"):
        ablation.find_states(planned._replace(experiment="tiny-losses"))


def test_runs_of_two_configs_stand_in_no_table_whichever_are_run(planned, tmp_path):
    first = plan(tmp_path, only=("plain",))
    ablation.run_all(first, Trainer(first))
    fields = {"optimizer.learning_rate": 0.5}
    of_other = r"plain/seed0 is of .*: optimizer\.learning_rate was 1\.0 and is 0\.5"
    with pytest.raises(UserError, match=of_other):
        ablation.run_all(plan(tmp_path, only=("cosine",), fields=fields), Trainer(planned))
    with pytest.raises(UserError, match=of_other):
        ablate.show_findings(plan(tmp_path, fields=fields))
    assert not (planned.out / "cosine").exists()
    assert not (planned.out / "table.md").exists()


def test_failed_run_keeps_no_other_from_being_done_and_is_tried_again(planned):
    trainer = Trainer(planned, {"cosine, seed 0": 2})
    assert ablation.run_all(planned, trainer) == ["cosine, seed 0"]
    assert len(trainer.names) == 4
    again = Trainer(planned)
    assert ablation.run_all(planned, again) == []
    assert again.names == ["cosine, seed 0"]


def test_run_that_a_killed_ablation_left_training_is_not_begun_beside_it(planned):
    (run, *_), trainer = planned.runs, Trainer(planned)
    with run_lock.lock(run.workdir), pytest.raises(UserError, match="is in use by"):
        ablation.run_all(planned, trainer)
    assert not trainer.names
    assert ablation.run_all(planned, trainer) == []


@pytest.mark.parametrize("status", [129, 143])
def test_interrupted_ablation_says_how_to_go_on(planned, capsys, status):
    with pytest.raises(SystemExit) as stopped:
        ablation.run_all(planned, Trainer(planned, {"plain, seed 1": status}))
    assert stopped.value.code == 143
    expected = "Runs left: 2. The same command goes on with plain, seed 1."
    assert expected in capsys.readouterr().out
    trainer = Trainer(planned)
    ablation.run_all(planned, trainer)
    assert trainer.names == ["plain, seed 1", "cosine, seed 1"]


def test_signal_is_handed_on_once_and_waited_for(tmp_path):
    script = """
import signal, sys, time
def stop(number, frame):
    signal.signal(number, signal.SIG_DFL)  # a second one would end it here
    time.sleep(1.2)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1], "w").close()
time.sleep(60)
"""
    ready = tmp_path / "ready"

    class Noticed:
        """As if the signal came when the process was ready for it."""

        @property
        def signal(self) -> int | None:
            return signal.SIGTERM if ready.exists() else None

    noticed: Any = Noticed()
    assert run_queue.train_apart([sys.executable, "-c", script, str(ready)], noticed) == 143


def test_closed_terminal_leaves_no_training_that_nobody_owns():
    training = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    script = """
import signal, sys
from dmfer_jax.run_queue import train_apart
from dmfer_jax.interruption import Interruption
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
with Interruption() as interruption:
    sys.exit(-train_apart([sys.executable, "-c", sys.argv[1]], interruption))
"""
    command = [sys.executable, "-c", script, training]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGHUP)
        try:
            assert parent.wait(timeout=30) == signal.SIGHUP  # which the training ended of
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def test_run_is_an_ordinary_training_whose_row_tells_what_it_said_of_each_image(
    planned, tmp_path, data_dir, capsys
):
    one_seed = plan(tmp_path, 1, ("plain",), {"data.data_dir": str(data_dir)})
    assert ablation.run_all(one_seed) == []
    ablate.show_findings(one_seed)
    said = capsys.readouterr().out
    assert "run 1 of 1: plain, seed 0" in said
    assert "no finished run yet: cosine" in said
    found = rows.read_rows(one_seed.out / ROWS)
    assert [row["epoch_rule"] for row in found[:4]] == ["last"] * 2 + ["best-on-valid"] * 2
    for row in found:
        assert all(row[column] for column in ("commit", "cpu_hours", "parameters"))
        assert str(tmp_path) not in row["command"]
    splits = read_run_predictions(one_seed.runs[0].workdir / "predictions.npz")[1]
    assert [row["split"] for row in found[:2]] == list(splits)
    for row, split in zip(found[:2], splits.values(), strict=True):
        right = (split.probabilities.argmax(1) == split.labels).mean()
        assert float(row["accuracy"]) == pytest.approx(right, abs=1e-6)
    ablate.print_plan(one_seed)
    assert "1 runs: 1 done, 0 to do" in capsys.readouterr().out


def test_table_and_figure_are_made_of_the_runs_that_are_done(planned, capsys):
    ablation.run_all(planned, Trainer(planned))
    ablate.show_findings(planned)
    assert "2 intervals on each split" in capsys.readouterr().out
    for name in ("table.md", "differences.csv", "ablation.png", "ablation.pdf"):
        assert (planned.out / name).is_file()
    table = result_tables.render_page(
        "<!-- results: out -->\n<!-- end of results -->", planned.out.parent
    )
    assert re.search(r"`cosine` .* [+-]0\.00 \[.*\] \| 2 \|", table)


def test_seed_and_nothing_done_are_told_in_plain_words(planned, monkeypatch):
    with pytest.raises(UserError, match=r"runs\.csv has no row of this grid: nothing is done"):
        ablate.show_findings(planned)
    monkeypatch.setattr(ablate.config_flags, "get_override_values", lambda flag: {"seed": 1})
    monkeypatch.setattr(ablate, "flags", SimpleNamespace(FLAGS={"config": None}))
    with pytest.raises(UserError, match=r"--seeds=3 runs seeds 0, 1 and 2"):
        ablate.main([])
