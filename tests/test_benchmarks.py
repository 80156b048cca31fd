"""What makes a benchmark's numbers mean something: turns, the same work, and the arithmetic."""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import end_to_end, matrix_product, measurements, train_step
from benchmarks.side_by_side import Side, take_turns
from dmfer_jax.errors import UserError
from dmfer_jax.models import resnet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="benchmarks read /proc")

FAKE_SIDE = """
import os, subprocess, sys, time
from benchmarks.side_by_side import serve

def prepare(options):
    print("a library says something")
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    def turn(ends):
        print("and again")
        if ends:
            sys.exit(3)
        return {"began": time.monotonic(), "got": options["gives"]}
    return {"pids": [os.getpid(), child.pid]}, turn

serve(prepare)
"""


@pytest.fixture
def start_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Side]:
    (tmp_path / "fake_side.py").write_text(FAKE_SIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name, gives=0: Side(name, sys.executable, "fake_side", {"gives": gives})


def states(pids: list[int]) -> list[str]:
    """The state of each process: "T" is stopped, "gone" ended."""
    found = []
    for pid in pids:
        try:
            found.append(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0])
        except FileNotFoundError:
            found.append("gone")
    return ["gone" if state == "Z" else state for state in found]


def wait_for(pids: list[int], state: str) -> None:
    deadline = time.monotonic() + 10
    while set(states(pids)) != {state}:
        assert time.monotonic() < deadline, states(pids)
        time.sleep(0.01)


def test_sides_take_turns_and_are_stopped_with_their_processes_in_between(start_side):
    with start_side("a", gives=1) as a, start_side("b", gives=2) as b:
        pids = a.facts["pids"] + b.facts["pids"]
        wait_for(pids, "T")
        ended: list[int] = []
        answers = take_turns([a, b], 3, lambda side, number: {"ends": False}, ended.append)
        wait_for(pids, "T")
    assert ended == [1, 2, 3]
    assert [answer["got"] for answer in answers["a"] + answers["b"]] == [1, 1, 1, 2, 2, 2]
    in_turn = [
        turn["began"] for both in zip(answers["a"], answers["b"], strict=True) for turn in both
    ]
    assert in_turn == sorted(in_turn)
    wait_for(pids, "gone")


def test_a_side_that_was_killed_between_its_turns_is_an_error_that_names_it(start_side):
    with start_side("short one") as side:
        os.killpg(side.facts["pids"][0], signal.SIGKILL)
        wait_for(side.facts["pids"], "gone")
        with pytest.raises(UserError, match="'short one' ended"):
            side.turn(ends=False)


def test_a_side_that_ends_is_an_error_that_names_it(start_side):
    with start_side("short one") as side, pytest.raises(UserError, match="'short one' ended"):
        side.turn(ends=True)
    wait_for(side.facts["pids"], "gone")


def test_ratio_is_the_median_over_rounds_of_their_time_by_ours():
    ours = [[1.0, 2.0, 9.0], [4.0, 4.0, 4.0], [10.0, 10.0, 10.0]]
    theirs = [[3.0, 3.0, 3.0], [2.0, 2.0, 8.0], [50.0, 20.0, 10.0]]
    # Round by round 3/2, 2/4 and 20/10.
    found = measurements.ratio(ours, theirs)
    assert found == {"median": 1.5, "quartiles": [1.0, 1.75], "count": 3}


@pytest.mark.parametrize("value", [2.02, math.nan, math.inf])
def test_sides_with_other_losses_are_refused(value):
    measurements.check_same_losses({"ours": [1.0, 2.0], "torch": [1.0, 2.0015]}, 1e-3)
    with pytest.raises(UserError, match="at step 2 the loss of 'torch'"):
        measurements.check_same_losses({"ours": [1.0, 2.0], "torch": [1.0, value]}, 1e-3)
    with pytest.raises(UserError, match="do not compute the same"):
        measurements.check_same_losses({"ours": [math.nan], "torch": [math.nan]}, 1e-3)


class PlayedSide:
    """A side whose answers are set in advance."""

    def __init__(self, name: str, python: str, module: str, options: dict[str, Any]) -> None:
        del python
        self.name, self.module, self.slow = name, module, 1.0 if name == "ours" else 1.5
        self.facts = {
            "versions": {"python": "3", "jax" if name == "ours" else "torch": "1"},
            "losses": [2.0, 1.0],
            "forward_flops": 1e9,
            "epoch_steps": 7,
        }

    def __enter__(self) -> "PlayedSide":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def peak_mib(self) -> float:
        return 100.0

    def turn(self, **request: Any) -> dict[str, Any]:
        if self.module == "benchmarks.matrix_product":
            return {"seconds": [matrix_product.FLOPS / 1e11] * request["products"]}
        steps = request["steps"]
        if self.module == "benchmarks.train_step":
            return {"seconds": [0.24 * self.slow] * steps}
        losses = [self.slow] * steps
        return {"seconds": steps * self.slow, "waited": 0.1, "images": 64 * steps, "losses": losses}


def play(
    monkeypatch: pytest.MonkeyPatch, benchmark: Any, tmp_path: Path, *flags: str
) -> dict[str, Any]:
    """Runs a benchmark's command with sides that only play, and returns its report."""
    for module in (benchmark, matrix_product):
        monkeypatch.setattr(module, "Side", PlayedSide)
    command = [f"benchmarks/{benchmark.__name__}.py", *flags, f"--out={tmp_path}/report.json"]
    monkeypatch.setattr(sys, "argv", command)
    benchmark.main()
    return json.loads((tmp_path / "report.json").read_text())


def test_train_step_reports_ratio_share_of_the_ceiling_and_no_path(monkeypatch, tmp_path, capsys):
    flags = ("--cases", "tiny", "--torch", "eager", "--rounds", "2", "--steps", "3")
    report = play(monkeypatch, train_step, tmp_path, *flags)
    (case,) = report["cases"]
    ours, torch = case["sides"]
    assert ours["step_seconds"]["count"] == torch["step_seconds"]["count"] == 6
    assert torch["ours_is_faster_by"]["median"] == pytest.approx(1.5)
    assert case["matrix_product_gflops"] == {"jax": 100.0, "torch": 100.0}
    # 8 images of 3 GFLOP in 240 ms are 100 GFLOP/s.
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ours")]
    assert [cell.strip() for cell in line.split("|")][2:5] == [
        "240.0 (240.0 to 240.0)",
        "100",
        "100%",
    ]
    assert str(tmp_path) not in json.dumps(report)
    assert report["machine"]["cores"] >= 1


def test_end_to_end_does_one_epoch_and_reports_rates(monkeypatch, tmp_path):
    report = play(monkeypatch, end_to_end, tmp_path, "--steps", "3", "--torch_workers", "2")
    ours, torch = report["sides"]
    assert ours["rounds"] == [3, 3, 1]  # a second each: seven steps are the epoch
    assert ours["images_per_second"] == 64
    assert ours["input_wait_share"] == pytest.approx(0.3 / 7, abs=1e-5)
    assert torch["ours_is_faster_by"]["median"] == pytest.approx(1.5)


def test_end_to_end_fails_where_sides_have_not_learned_alike(monkeypatch, tmp_path):
    monkeypatch.setattr(end_to_end, "ENOUGH_STEPS", 5)
    with pytest.raises(UserError, match="do not compute the same"):
        play(monkeypatch, end_to_end, tmp_path)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Options for a side of the tiny case, with one block a stage; facts and turn of ours."""
    path = tmp_path_factory.mktemp("ours") / "first_state.npz"
    given = {"changes": train_step.changes("tiny"), "first_state": str(path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BACKBONES["resnet18"], "blocks", (1, 1, 1))
        return given, *train_step.prepare({**given, "side": "ours", "writes": True})


def test_our_side_of_the_training_step_learns_and_times_each_step(ours):
    _, facts, turn = ours
    assert len(facts["losses"]) == train_step.COMPARED_STEPS
    assert facts["losses"][-1] < 0.9 * facts["losses"][0]
    assert np.all(np.array(turn(steps=2)["seconds"]) > 0)


def test_pytorch_side_of_the_training_step_does_the_same_steps(ours, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch's side needs the torch extra")
    twin: Any = pytest.importorskip("dmfer_jax.pytorch.resnet")
    monkeypatch.setitem(twin.BACKBONES, "resnet18", ((1, 1, 1), False))
    given, facts, _ = ours
    facts_of_torch, turn = train_step.prepare({**given, "side": "torch", "compile": False})
    losses = {"ours": facts["losses"], "torch": facts_of_torch["losses"]}
    measurements.check_same_losses(losses, train_step.LOSS_TOLERANCE)
    assert len(turn(steps=2)["seconds"]) == 2
