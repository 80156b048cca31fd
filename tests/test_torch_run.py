"""Systems in PyTorch are trained as this project is: same batches, log, report, and resume."""
# pyright: reportMissingImports=false

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

torch = pytest.importorskip("torch", reason="the systems need the torch extra")

from dmfer_jax import compared_run, evaluate, feeding, sharding, subjects, torch_run  # noqa: E402
from dmfer_jax.errors import UserError  # noqa: E402
from dmfer_jax.pytorch.saving import TorchCheckpoints  # noqa: E402
from dmfer_jax.pytorch.training import Trainer  # noqa: E402
from dmfer_jax.reporting import figures  # noqa: E402
from dmfer_jax.reporting.predictions import read_run_predictions  # noqa: E402
from dmfer_jax.reporting.report import read_report  # noqa: E402
from dmfer_jax.reporting.writers import read_jsonl  # noqa: E402
from tests.conftest import make_tiny_config  # noqa: E402

LOSSES = ("loss", "cross_entropy", "center_loss", "accuracy", "grad_norm", "learning_rate")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch):
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])


@pytest.fixture(scope="module")
def plain_config(data_dir: Path) -> ConfigDict:
    return compared_run.config_of(make_tiny_config(data_dir), "plain_torch", 3)


@pytest.fixture(scope="module")
def plain(plain_config: ConfigDict, tmp_path_factory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A finished run of the plain network: its folder and its report."""
    workdir = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_report_figures", lambda *_: [])
        yield workdir, torch_run.train("plain_torch", plain_config, workdir)


def test_twin_has_the_losses_and_scores_of_our_own_run(tiny_config, finished, tmp_path):
    ours, our_report = finished
    report = torch_run.train("dmfer_torch", tiny_config, tmp_path)
    logs = [read_jsonl(folder / "metrics.jsonl") for folder in (ours, tmp_path)]
    assert [(r["kind"], r["step"], r["epoch"]) for r in logs[0]] == [
        (r["kind"], r["step"], r["epoch"]) for r in logs[1]
    ]
    # Means over steps 1 and 2; augmented, and rounding has not grown yet.
    for name in LOSSES:
        assert logs[1][0][name] == pytest.approx(logs[0][0][name], rel=1e-4), name
    assert logs[1][5]["loss"] == pytest.approx(logs[0][5]["loss"], rel=0.05)
    assert report["system"] == "dmfer_torch"
    last, our_last = (one["checkpoints"]["last"] for one in (report, our_report))
    assert {key: last[key] for key in ("epoch", "step", "parameters")} == {
        key: our_last[key] for key in ("epoch", "step", "parameters")
    }
    assert list(last["splits"]) == list(our_last["splits"])
    assert last["splits"]["test"]["loss"] == pytest.approx(
        our_last["splits"]["test"]["loss"], rel=0.05
    )
    assert report["flops"] == compared_run.count_flops(tiny_config, our_report)


def test_report_reads_like_ours_and_says_which_system_it_is(plain):
    workdir, report = plain
    assert json.loads((workdir / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["system"] == "plain_torch"
    assert report["seed"] == 3
    assert report["environment"]["torch"] == torch.__version__
    last = report["checkpoints"]["last"]
    assert last["centers"] is None
    _, said = read_run_predictions(workdir / "predictions.npz")
    right = said["test"].probabilities.argmax(1) == said["test"].labels
    assert right.mean() == pytest.approx(last["splits"]["test"]["accuracy"])
    assert str(workdir) not in json.dumps(report)


def test_resumed_run_equals_uninterrupted_run(plain, plain_config, tmp_path, monkeypatch, capsys):
    whole, whole_report = plain
    halves = tmp_path / "halves"
    honest = feeding.Feed.train_batches

    def interrupted(self: Any, *args: Any, start_step: int, **kwargs: Any) -> Iterator[Any]:
        batches = honest(self, *args, start_step=start_step, **kwargs)
        for count, batch in enumerate(batches, start=start_step + 1):
            if count == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(feeding.Feed, "train_batches", interrupted)
        with pytest.raises(SystemExit) as stopped:
            torch_run.train("plain_torch", plain_config, halves)
    assert stopped.value.code == 128 + signal.SIGTERM
    report = torch_run.train("plain_torch", plain_config, halves)
    assert "going on from step 5 of 12" in capsys.readouterr().out
    assert report["checkpoints"] == whole_report["checkpoints"]
    states = [TorchCheckpoints(folder).load(12, torch.device("cpu")) for folder in (whole, halves)]
    for name, values in states[0]["model"].items():
        np.testing.assert_array_equal(values, states[1]["model"][name], err_msg=name)


def test_a_run_that_is_not_finite_stops_and_says_so(plain_config, tmp_path, monkeypatch):
    honest = Trainer.step

    def spoiled(self: Any, images: Any, targets: Any) -> Any:
        return honest(self, images * float("nan") if self.steps == 2 else images, targets)

    monkeypatch.setattr(Trainer, "step", spoiled)
    with pytest.raises(UserError, match=r"gradient of step 3 is not finite"):
        torch_run.train("plain_torch", plain_config, tmp_path)
    assert TorchCheckpoints(tmp_path).step("last") is None


def test_a_finished_run_is_scored_again_by_the_same_evaluation(plain):
    workdir, report = plain
    subject = subjects.of_run(workdir, "best", load=torch_run.load_trained)
    found = evaluate.evaluate(subject, ["test"])
    scored = found["checkpoints"]["best"]
    expected = report["checkpoints"]["best"]
    assert scored["step"] == expected["step"]
    assert scored["splits"]["test"] == expected["splits"]["test"]


def test_the_best_epoch_may_be_another_than_the_last(plain, plain_config, tmp_path):
    workdir = Path(shutil.copytree(plain[0], tmp_path / "run"))
    (workdir / "report.json").unlink()
    first, last = sorted((workdir / "torch_checkpoints").glob("*.json"), key=lambda x: int(x.stem))
    record = json.loads(first.read_text())
    first.write_text(json.dumps({**record, "valid_accuracy": 1.0}))
    record = json.loads(last.read_text())
    last.write_text(json.dumps({**record, "valid_accuracy": 0.5}))
    report = torch_run.train("plain_torch", plain_config, workdir)
    steps = {name: one["step"] for name, one in report["checkpoints"].items()}
    assert steps == {"last": 12, "best": 6}
    splits = [one["splits"]["valid"]["loss"] for one in report["checkpoints"].values()]
    assert splits[0] != splits[1]
    assert report["checkpoints"]["last"] == plain[1]["checkpoints"]["last"]


def test_checkpoints_of_other_classes_or_none_are_refused(plain, plain_config, tmp_path):
    workdir, _ = plain
    mesh = sharding.make_mesh()
    with pytest.raises(UserError, match="tells apart neutral"):
        torch_run.load_trained(workdir, "last", plain_config, mesh, ["a", "b"])
    with pytest.raises(UserError, match="has no last checkpoint of a system in PyTorch"):
        torch_run.load_trained(tmp_path, "last", plain_config, mesh, ["a", "b"])


def test_run_of_a_comparison_trains_once_and_keeps_its_cost(
    plain, tiny_config, tmp_path, monkeypatch
):
    workdir = compared_run.run_dir(tmp_path, "plain_torch", 3)
    shutil.copytree(plain[0], workdir)
    (workdir / "report.json").unlink()  # as if killed after the last epoch
    (tmp_path / "config.json").write_text(tiny_config.to_json_best_effort())
    compared_run.run(tmp_path, "plain_torch", 3)
    assert read_report(workdir / "report.json")["checkpoints"] == plain[1]["checkpoints"]
    cost = compared_run.read_cost(workdir)
    assert cost["flops"] == plain[1]["flops"]
    assert cost["peak_bytes"] > 2**20

    monkeypatch.setattr(torch_run, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(evaluate, "score_stress", lambda *_: {"mean_accuracy": 0.5})
    compared_run.run(tmp_path, "plain_torch", 3, stress=True)
    found = read_report(compared_run.evaluation_path(workdir, "stress"))
    last = found["checkpoints"]["last"]
    assert set(last["stress"]) == {"test"}
    # Recomputed from the checkpoint, in batches of the same size.
    expected = plain[1]["checkpoints"]["last"]["splits"]["test"]
    assert last["splits"]["test"]["accuracy"] == expected["accuracy"]
