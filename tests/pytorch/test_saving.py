"""Checkpoints of a training in PyTorch: kept, found again, and trusted only when sound."""
# pyright: reportMissingImports=false

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="they hold a training in PyTorch")

from dmfer_jax.errors import UserError  # noqa: E402
from dmfer_jax.pytorch.saving import TorchCheckpoints  # noqa: E402

CPU = torch.device("cpu")


def state(step: int) -> Any:
    """What the loop saves: a trainer whose numbers tell its step."""
    numbers = {"model": {"w": torch.full((2,), float(step))}, "steps": step}
    return SimpleNamespace(step=step, trainer=SimpleNamespace(state_dict=lambda: numbers))


@pytest.fixture
def checkpoints(tmp_path) -> TorchCheckpoints:
    return TorchCheckpoints(tmp_path / "run")


def save(checkpoints: TorchCheckpoints, *accuracies: float | None) -> None:
    for step, accuracy in enumerate(accuracies, start=1):
        checkpoints.save(state(step), {"epoch": step}, accuracy)


def test_the_last_two_and_the_best_are_kept(checkpoints):
    assert checkpoints.step("last") is None
    assert checkpoints.step("best") is None
    save(checkpoints, 0.1, 0.9, 0.5, None, 0.2)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "2.json", "2.pt", "4.json", "4.pt", "5.json", "5.pt"
    ]  # fmt: skip
    assert (checkpoints.step("last"), checkpoints.step("best")) == (5, 2)
    assert checkpoints.note(2) == {"epoch": 2}
    loaded = checkpoints.load(2, CPU)
    np.testing.assert_array_equal(loaded["model"]["w"], [2.0, 2.0])


def test_what_was_left_unfinished_is_no_checkpoint_and_is_removed(checkpoints):
    save(checkpoints, 0.1)
    for name in ("2.pt", "3.partial"):
        (checkpoints.folder / name).write_bytes(b"half")
    assert checkpoints.step("last") == 1
    assert checkpoints.tidy() == []
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["1.json", "1.pt"]


def test_a_damaged_one_is_refused_and_the_run_goes_on_from_the_one_before(checkpoints):
    save(checkpoints, 0.1, 0.2)
    path = checkpoints.folder / "2.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"2\.pt is damaged: its digest"):
        checkpoints.load(2, CPU)
    (message,) = checkpoints.tidy()
    assert "checkpoint of step 2" in message
    assert checkpoints.step("last") == 1


def test_nothing_is_removed_where_all_are_damaged(checkpoints):
    save(checkpoints, 0.1, 0.2)
    for step in (1, 2):
        (checkpoints.folder / f"{step}.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is sound"):
        checkpoints.tidy()
    assert len(list(checkpoints.folder.iterdir())) == 4


def test_a_pickle_that_would_run_something_is_not_loaded(checkpoints):
    class Harm:
        def __reduce__(self) -> Any:
            return print, ("harm",)

    harmful = SimpleNamespace(step=1, trainer=SimpleNamespace(state_dict=Harm))
    checkpoints.save(harmful, {})
    with pytest.raises(Exception, match=r"weights_only|Unsupported|print"):
        checkpoints.load(1, CPU)
