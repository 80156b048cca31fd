"""A comparison: what it trains, what it refuses, and that it goes on. Nothing is trained here."""

import csv
import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from dmfer_jax import compare, compare_plan, compare_results, compared_run, run_lock
from dmfer_jax.building import ensure_built
from dmfer_jax.compare_plan import Plan
from dmfer_jax.compared_run import SYSTEMS
from dmfer_jax.data import sources
from dmfer_jax.errors import UserError
from dmfer_jax.interruption import Interruption
from dmfer_jax.reporting import writers
from dmfer_jax.reporting.predictions import write_predictions
from dmfer_jax.reporting.report import write_report
from tests.made_up import leave_run, make_report, make_stress

ROOT = Path(__file__).parents[1]
RIGHT = {
    "dmfer_jax": [1, 1, 1, 0],
    "plain_torch": [1, 0, 1, 0],
    "dan_torch": [1, 0, 1, 1],
}


@pytest.fixture(autouse=True)
def _torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here needs it."""
    honest = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: honest("json" if name == "torch" else name)
    )


@pytest.fixture
def plan(tiny_config: ConfigDict, tmp_path: Path) -> Plan:
    return Plan(
        str(ROOT / "configs" / "synthetic.py"),
        tiny_config,
        tmp_path / "out",
        systems=("dmfer_jax", "plain_torch"),
        seeds=2,
    )


class Trainer:
    """Stands for the processes that train: leaves made-up runs, and remembers them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.runs: list[tuple[str, int]] = []
        self.fails: set[tuple[str, int]] = set()
        self.before: Callable[[Interruption], None] = lambda interruption: None

    def __call__(self, command: list[str], interruption: Interruption) -> int:
        assert command[1:3] == ["-m", "dmfer_jax.compared_run"]
        given = dict(flag.lstrip("-").split("=") for flag in command[3:] if "=" in flag)
        system, seed = given["system"], int(given["seed"])
        self.runs.append((system, seed))
        self.before(interruption)
        if (system, seed) in self.fails:
            return 2
        config = compared_run.config_of(self.plan.config, system, seed)
        workdir = self.plan.run_dir(system, seed)
        leave_run(workdir, config, RIGHT[system])
        log = writers.JsonlLog(workdir / "metrics.jsonl", 0)
        last = np.mean(RIGHT[system])
        log.write(6, kind="eval", accuracy=last - 0.25, seconds=36.0, cpu_seconds=45.0)
        log.write(12, kind="eval", accuracy=last, seconds=90.0, cpu_seconds=99.0)
        log.close()
        compared_run.keep_cost(workdir, peak_bytes=10**9, flops=10**6)
        return 0


def test_every_system_is_trained_with_every_seed_once_and_compared(plan, capsys):
    trainer = Trainer(plan)
    compare.compare(plan, trainer)
    assert trainer.runs == [
        ("dmfer_jax", 0), ("plain_torch", 0), ("dmfer_jax", 1), ("plain_torch", 1)
    ]  # fmt: skip
    text = capsys.readouterr().out
    assert "Last epoch on test, less plain_torch" in text
    with (plan.out / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2  # systems, seeds, epoch rules, splits
    assert {row["experiment"] for row in rows} == {"synthetic-compare"}
    assert str(plan.out) not in (plan.out / "compare.csv").read_text()
    first = rows[0]["command"]
    assert first.startswith("python -m dmfer_jax.compare --config=configs/synthetic.py ")
    assert "--config.seed=0" in first
    assert first.endswith("--systems=dmfer_jax --seeds=1")

    with (plan.out / "costs.csv").open(newline="") as file:
        to_baseline = {row["system"]: row["hours_to_baseline"] for row in csv.DictReader(file)}
    # Ours is half right after its first epoch, the baseline after its last.
    assert to_baseline == {"dmfer_jax": "0.01", "plain_torch": "0.025"}

    compare.compare(plan, trainer)
    assert len(trainer.runs) == 4  # nothing was trained twice
    compare.compare(plan._replace(seeds=3), trainer)
    assert trainer.runs[4:] == [("dmfer_jax", 2), ("plain_torch", 2)]


def test_a_run_that_fails_keeps_no_other_from_being_done_and_is_tried_again(plan):
    trainer = Trainer(plan)
    trainer.fails = {("plain_torch", 0)}
    with pytest.raises(UserError, match=r"1 of 4 runs failed, .*: plain_torch, seed 0\. The same"):
        compare.compare(plan, trainer)
    assert (plan.out / "table.md").is_file()
    trainer.fails = set()
    compare.compare(plan, trainer)
    assert trainer.runs[4:] == [("plain_torch", 0)]


def test_an_interrupted_comparison_ends_with_its_run_and_has_the_table_of_those_before(plan):
    trainer = Trainer(plan)

    def interrupt_the_second(_: Interruption) -> None:
        if len(trainer.runs) == 2:
            signal.raise_signal(signal.SIGTERM)

    trainer.before = interrupt_the_second
    with pytest.raises(SystemExit) as stopped:
        compare.compare(plan, trainer)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert len(trainer.runs) == 2
    assert "dmfer_jax" in (plan.out / "table.md").read_text()


def test_a_training_that_was_asked_to_stop_stops_the_comparison(plan):
    asked: list[list[str]] = []

    def stopped_by_somebody(command: list[str], _: Interruption) -> int:
        asked.append(command)
        return 128 + signal.SIGTERM

    with pytest.raises(SystemExit):
        compare.compare(plan, stopped_by_somebody)
    assert len(asked) == 1


def test_a_run_that_a_killed_comparison_left_training_is_not_begun_beside_it(plan):
    trainer = Trainer(plan)
    in_use = pytest.raises(UserError, match=r"seed0 is in use by .*give another --out")
    with run_lock.lock(plan.run_dir("dmfer_jax", 0)), in_use:
        compare.compare(plan, trainer)
    assert not trainer.runs
    compare.compare(plan, trainer)
    assert len(trainer.runs) == 4


def test_seeds_may_be_trained_one_by_one_in_one_folder(plan, tiny_config):
    second = tiny_config.copy_and_resolve_references()
    second.seed = 1
    compare.compare(plan._replace(seeds=1), Trainer(plan))
    trainer = Trainer(plan)
    compare.compare(plan._replace(config=second, seeds=1), trainer)
    assert trainer.runs == [("dmfer_jax", 1), ("plain_torch", 1)]
    trainer = Trainer(plan)
    compare.compare(plan, trainer)
    assert not trainer.runs


def test_lists_and_stress_asked_for_later_are_scored_without_training(plan, monkeypatch):
    monkeypatch.setattr(compared_run, "digest_lists", lambda path, dataset: f"digest of {path}")
    compare.compare(plan, Trainer(plan))
    asked = plan._replace(lists="some/lists", stress=True)
    seen = []

    def score(command: list[str], interruption: Interruption) -> int:
        seen.append(command[-2:])
        given = dict(flag.lstrip("-").split("=") for flag in command[3:] if "=" in flag)
        workdir = plan.run_dir(given["system"], int(given["seed"]))
        found = make_report(int(given["seed"]), 0.5)
        last = found["checkpoints"]["last"]
        last["splits"] = {"pose_30": {**last["splits"]["test"], "list": {}}}
        last["stress"] = {"test": make_stress(0.125)}
        found[compared_run.LISTS] = f"digest of {given['lists']}"
        for name in compared_run.EVALUATIONS:
            write_report(compared_run.evaluation_path(workdir, name), found)
        return 0

    compare.compare(asked, score)
    assert seen == [["--lists=some/lists", "--stress"]] * 4
    table = (plan.out / "table.md").read_text()
    assert "| valid | pose_30 | occlusion (stress) | pose (stress) | stress |" in table
    assert "| 55.00±0.00 | 35.00±0.00 | 12.50±0.00 |" in table
    compare.compare(plan, score)  # what was scored stays in the table
    assert len(seen) == 4
    assert "pose_30" in (plan.out / "table.md").read_text()
    compare.compare(asked._replace(lists="other/lists"), score)  # what others said is no score
    assert seen[4:] == [["--lists=other/lists", "--stress"]] * 4


def test_another_config_is_refused_in_the_same_folder(plan, tiny_config):
    compare.compare(plan, Trainer(plan))
    changed = tiny_config.copy_and_resolve_references()
    changed.model.width = 0.25
    with pytest.raises(UserError, match=r"another config: model\.width was 0\.125 and is 0\.25"):
        compare.compare(plan._replace(config=changed), Trainer(plan))
    changed = tiny_config.copy_and_resolve_references()
    changed.init_from = "some/face.safetensors"
    with pytest.raises(UserError, match=r"init_from was '' and is 'face\.safetensors'"):
        compare.compare(plan._replace(config=changed), Trainer(plan))
    changed.init_from, changed.data.source = "", "elsewhere"
    compare.compare(plan._replace(config=changed), Trainer(plan))
    assert json.loads((plan.out / "config.json").read_text())["data"]["source"] == "elsewhere"


def test_predictions_of_another_system_join_the_table(plan, tiny_config, tmp_path):
    compare.compare(plan, Trainer(plan))
    data = tiny_config.data
    folder = ensure_built(data.dataset, "", data.data_dir)
    split = sources.load_split(folder, "test", data, train=False)
    certain = np.eye(len(split.class_names), dtype=np.float32)[split.labels]
    path = tmp_path / "said.csv"
    write_predictions(path, split.identifiers, split.class_names, certain)
    joined = plan._replace(predictions={"oracle": path})
    compare.compare(joined, Trainer(plan))
    assert "| oracle | predictions | - | 100.00 |" in (plan.out / "table.md").read_text()
    write_predictions(path, split.identifiers[1:], split.class_names, certain[1:])
    with pytest.raises(UserError, match=r"said\.csv: there is no row for 1 of the"):
        compare_results.find(joined)
    trainer, anew = Trainer(plan), joined._replace(out=tmp_path / "anew")
    with pytest.raises(UserError, match=r"said\.csv: there is no row for 1 of the"):
        compare.compare(anew, trainer)
    assert trainer.runs == []


def test_a_narrower_command_leaves_in_the_table_what_was_done_before(plan, tiny_config, tmp_path):
    data = tiny_config.data
    split = sources.load_split(
        ensure_built(data.dataset, "", data.data_dir), "test", data, train=False
    )
    certain = np.eye(len(split.class_names), dtype=np.float32)[split.labels]
    write_predictions(tmp_path / "said.csv", split.identifiers, split.class_names, certain)
    compare.compare(plan._replace(predictions={"oracle": tmp_path / "said.csv"}), Trainer(plan))
    names = ("table.md", "compare.csv", "costs.csv", "differences.csv")
    before = [(plan.out / name).read_text() for name in names]
    second = tiny_config.copy_and_resolve_references()
    second.seed = 1
    trainer = Trainer(plan)
    compare.compare(plan._replace(config=second, seeds=1, systems=("dmfer_jax",)), trainer)
    assert trainer.runs == []
    assert [(plan.out / name).read_text() for name in names] == before


def test_without_the_plain_network_the_first_system_is_what_others_are_compared_with(plan):
    ours = plan._replace(systems=("dan_torch", "dmfer_jax"))
    compare.compare(ours, Trainer(ours))
    assert "Last epoch on test, less dmfer_jax" in (plan.out / "table.md").read_text()


def test_a_run_of_another_config_that_was_put_there_is_no_row(plan):
    compare.compare(plan, Trainer(plan))
    other = plan.config.copy_and_resolve_references()
    other.model.width = 0.25
    shutil.rmtree(plan.run_dir("dmfer_jax", 1))
    leave_run(plan.run_dir("dmfer_jax", 1), other, RIGHT["dmfer_jax"])
    with pytest.raises(UserError, match=r"seed1 is of a run of .*width was 0\.25 and is 0\.125"):
        compare.compare(plan, Trainer(plan))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"systems": ("dan_torch", "dan")}, "has 'dan'; expected some of dmfer_jax, dmfer_torch"),
        ({"systems": ("dmfer_jax", "dmfer_jax")}, "has 'dmfer_jax' twice"),
        ({"systems": ()}, "--systems is empty"),
        ({"config": {"init_from": "ferplus-small"}}, "plain_torch could take the backbone alone"),
        ({"lists": "lists"}, "there are none of 'synthetic_faces'"),
        ({"predictions": {"plain_torch": Path("x.csv")}}, "is a system that is trained"),
        ({"predictions": {"other": Path("none.csv")}}, r"none\.csv: there is no such file"),
        ({"python_torch": "/no/python"}, "--python_torch=/no/python cannot train plain_torch"),
        ({"python_torch": "false"}, "expected an interpreter with torch and dmfer_jax"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(plan, changes, expected):
    trainer = Trainer(plan)
    plan.config.update(changes.get("config", {}))
    with pytest.raises(UserError, match=expected):
        compare.compare(plan._replace(**changes | {"config": plan.config}), trainer)
    assert not plan.out.exists()
    assert trainer.runs == []


def test_without_torch_its_systems_are_refused_and_ours_is_not(plan, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"plain_torch: PyTorch is not installed here.*\[torch\]"):
        compare_plan.check(plan)
    compare_plan.check(plan._replace(systems=("dmfer_jax",)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("model.dtype", "bfloat16"), ("train.nonfinite", "skip")],
)
def test_what_pytorch_has_not_is_refused_before_hours_are_spent(plan, field, value):
    plan.config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=rf"config\.{field} is .*: set config\.{field}="):
        compare_plan.check(plan)
    compare_plan.check(plan._replace(systems=("dmfer_jax",)))


def test_another_interpreter_is_for_torch_alone(plan):
    other = plan._replace(python_torch="/opt/python")
    assert other.command("dmfer_jax", 0)[0] == sys.executable
    assert other.command("dan_torch", 0)[0] == "/opt/python"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_has_the_config_but_for_what_its_system_is_without(tiny_config, system):
    config = compared_run.config_of(tiny_config, system, 7)
    changed: dict[str, Any] = {"seed": 7}
    expected = tiny_config.copy_and_resolve_references()
    if system in ("plain_torch", "dan_torch"):
        changed |= {"loss.name": "none", "model.scales": "deep", "model.attention": "none"}
    expected.update_from_flattened_dict(changed)
    assert config.to_dict() == expected.to_dict()
    assert tiny_config.seed == 0


def test_cost_of_several_processes_is_the_largest(tmp_path):
    for peak in (2, 3, 1):
        compared_run.keep_cost(tmp_path, peak_bytes=peak)
    compared_run.keep_cost(tmp_path, flops=5)
    assert compared_run.read_cost(tmp_path) == {"peak_bytes": 3, "flops": 5}


def test_flag_of_predictions_is_name_and_file():
    assert compare._read_named_paths(["a=x.csv", "b=c=d.csv"]) == {
        "a": Path("x.csv"),
        "b": Path("c=d.csv"),
    }
    for texts in (["x.csv"], ["=x.csv"], ["a="], ["a=1.csv", "a=2.csv"]):
        with pytest.raises(UserError, match=r"expected NAME=FILE\.csv, each name once"):
            compare._read_named_paths(texts)
