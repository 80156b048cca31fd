"""The epoch that was best on validation, where it is not the last."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmfer_jax import evaluate, export, loop, subjects, train
from dmfer_jax.explaining.subject import Asked, load_network
from dmfer_jax.reporting import figures
from tests.conftest import make_tiny_config


@pytest.fixture(scope="module")
def falling(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished run whose accuracy on validation, it is told, fell from 0.9 to 0.1."""
    workdir, honest = tmp_path_factory.mktemp("falling"), loop.score
    told = iter([0.9, 0.1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_report_figures", lambda *_: [])
        patch.setattr(loop, "score", lambda *args: {**honest(*args), "accuracy": next(told)})
        return workdir, train.train(make_tiny_config(data_dir), workdir)


def test_best_and_last_are_two_checkpoints(falling):
    last, best = (falling[1]["checkpoints"][name] for name in ("last", "best"))
    assert (best["step"], last["step"]) == (6, 12)
    assert (best["epoch"], last["epoch"]) == (1.0, 2.0)
    assert best["centers"] != last["centers"]
    assert best["splits"]["valid"]["loss"] != last["splits"]["valid"]["loss"]


@pytest.mark.parametrize("which", ["last", "best"])
def test_each_is_what_is_evaluated_and_exported_by_its_name(falling, which):
    workdir, report = falling
    expected = report["checkpoints"][which]
    found: Any = evaluate.evaluate(subjects.of_run(workdir, which), ["valid"])
    (entry,) = found["checkpoints"].values()
    assert entry["step"] == expected["step"]
    assert entry["splits"]["valid"]["confusion"] == expected["splits"]["valid"]["confusion"]
    assert entry["splits"]["valid"]["loss"] == pytest.approx(expected["splits"]["valid"]["loss"])
    manifest, _ = export.take_from_run(workdir, which)
    assert manifest.training["step"] == expected["step"]
    asked = Asked([workdir], which, "", (), 0, "", "", Path("a.png"))
    _, _, drawn, title = load_network(workdir, asked)
    assert int(drawn.step) == expected["step"]
    assert title.startswith(f"{which} checkpoint: epoch {expected['epoch']:g}, step")


def test_their_weights_differ(falling):
    kernels = [
        export.take_from_run(falling[0], which)[1]["params"]["head"]["kernel"]
        for which in ("last", "best")
    ]
    assert np.abs(np.subtract(*kernels)).max() > 1e-3
