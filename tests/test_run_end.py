"""The end of a run: what it is scored on is known before, and a signal is heard to the last."""

import itertools
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from dmfer_jax import describe, loop, train
from dmfer_jax.data import sources
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import figures


def test_signal_in_the_last_validation_is_heard_before_the_report(
    tiny_config, finished, tmp_path, monkeypatch
):
    honest, calls = loop.score, itertools.count(1)

    def signalled(*args: Any) -> Any:
        if next(calls) == tiny_config.train.epochs:
            signal.raise_signal(signal.SIGHUP)
        return honest(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "score", signalled)
        with pytest.raises(SystemExit) as stopped:
            train.train(tiny_config, tmp_path)
    assert stopped.value.code == 128 + signal.SIGHUP
    assert not (tmp_path / "report.json").exists()
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])
    assert train.train(tiny_config, tmp_path)["checkpoints"] == finished[1]["checkpoints"]


def test_unusable_test_images_are_found_before_the_first_step(tiny_config, tmp_path, monkeypatch):
    honest = sources.load_split

    def load(folder: Path, name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "test_pose":
            raise UserError("test_pose is damaged")
        return honest(folder, name, *args, **kwargs)

    monkeypatch.setattr(sources, "load_split", load)
    with pytest.raises(UserError, match="test_pose is damaged"):
        train.train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_report_that_is_made_again_tells_where_the_run_was_trained(
    tiny_config, finished, tmp_path, monkeypatch
):
    shutil.copytree(finished[0], tmp_path / "run")
    honest = describe.describe_environment
    monkeypatch.setattr(
        describe, "describe_environment", lambda: {**honest(), "commit": "of today"}
    )
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])
    again = train.train(tiny_config, tmp_path / "run")
    assert again["environment"] == finished[1]["environment"]
    assert again["scored_in"]["commit"] == "of today"
    assert "scored_in" not in finished[1]
