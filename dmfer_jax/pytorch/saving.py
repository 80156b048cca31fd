"""Checkpoints of a training in PyTorch: the last two, and the best on the validation split.

`<workdir>/torch_checkpoints/<step>.pt` is what `Trainer.state_dict` gives, and `<step>.json` beside
it the note, the accuracy and the digest of the first; it is written last, and so a checkpoint with
it is complete. Files are read with `weights_only`: nothing of them is run.
"""
# pyright: reportMissingImports=false

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dmfer_jax.errors import UserError

_KEPT = 2  # latest ones: if the last is damaged, the run goes on from the one before


class TorchCheckpoints:
    """The checkpoints of one run, with the interface of `dmfer_jax.checkpoint.Checkpoints`."""

    def __init__(self, workdir: Path) -> None:
        """Looks at `workdir/torch_checkpoints`, which may not exist yet."""
        self.folder = workdir / "torch_checkpoints"

    def tidy(self) -> list[str]:
        """Removes what a killed process left unfinished, and damaged checkpoints.

        Returns:
          Of each damaged one, that it is.

        Raises:
          UserError: every checkpoint is damaged; none is removed then.
        """
        steps = self._steps()
        damaged = [step for step in steps if not self._is_sound(step)]
        if damaged and len(damaged) == len(steps):
            raise UserError(
                f"no checkpoint in {self.folder} is sound: the digests of their files are others "
                "than when they were written. Bring a sound copy back, or remove this folder and "
                "train anew."
            )
        messages = []
        for step in damaged:
            self._remove(step)
            messages.append(f"checkpoint of step {step} in {self.folder} was damaged; removed")
        if self.folder.is_dir():
            kept = {f"{step}{end}" for step in self._steps() for end in (".pt", ".json")}
            for path in self.folder.iterdir():
                if path.name not in kept:
                    path.unlink()
        return messages

    def save(
        self, state: Any, note: Mapping[str, Any], valid_accuracy: float | None = None
    ) -> None:
        """Saves a state, and removes those that are neither the last two nor the best.

        Args:
          state: its `step` and its `trainer` are saved.
          note: JSON values to keep with it.
          valid_accuracy: what the best checkpoint is chosen by; None within an epoch.

        Raises:
          UserError: it could not be written.
        """
        step = int(state.step)
        if step in self._steps():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{step}.partial"
            torch.save(state.trainer.state_dict(), partial)
            record = {"note": note, "valid_accuracy": valid_accuracy, "sha256": _digest(partial)}
            os.replace(partial, self._file(step))
            partial.write_text(json.dumps(record), encoding="utf-8")
            os.replace(partial, self.path(step))
        except (OSError, RuntimeError) as error:  # torch.save raises the second on a full disk
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.folder}: "
                f"{' '.join(str(error).split()):.300}. When this is mended, the same command goes "
                "on from the newest one."
            ) from error
        for old in set(self._steps()[:-_KEPT]) - {self.step("best")}:
            self._remove(old)

    def wait(self) -> None:
        """Does nothing: what was saved is written."""

    def raise_failed(self) -> None:
        """Does nothing: what fails is raised where it is saved."""

    def step(self, which: str) -> int | None:
        """Returns the step of the "last" or the "best" checkpoint, None if there is none."""
        steps = self._steps()
        if which == "last":
            return steps[-1] if steps else None
        accuracies = {step: self._record(step)["valid_accuracy"] for step in steps}
        scored = [(value, step) for step, value in accuracies.items() if value is not None]
        return max(scored)[1] if scored else None

    def path(self, step: int) -> Path:
        """Returns the file of a step's checkpoint that is written last."""
        return self._file(step, ".json")

    def note(self, step: int) -> dict[str, Any]:
        """Returns the note saved with a step."""
        return self._record(step)["note"]

    def load(self, step: int, device: torch.device) -> dict[str, Any]:
        """Returns what `Trainer.state_dict` gave, its tensors on a device.

        Raises:
          UserError: the file is not the one that was written.
        """
        if not self._is_sound(step):
            raise UserError(
                f"{self._file(step)} is damaged: its digest is not that of {step}.json beside it. "
                "Bring a sound copy back, or use another checkpoint."
            )
        return torch.load(self._file(step), map_location=device, weights_only=True)

    def _steps(self) -> list[int]:
        """The steps that there are complete checkpoints of, in order."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())

    def _file(self, step: int, end: str = ".pt") -> Path:
        return self.folder / f"{step}{end}"

    def _record(self, step: int) -> dict[str, Any]:
        path = self.path(step)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return {key: record[key] for key in ("note", "valid_accuracy", "sha256")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error}); expected what a run wrote there. Bring a sound copy "
                f"back, or remove it and {step}.pt."
            ) from error

    def _is_sound(self, step: int) -> bool:
        with contextlib.suppress(UserError, OSError):
            return _digest(self._file(step)) == self._record(step)["sha256"]
        return False

    def _remove(self, step: int) -> None:
        for end in (".json", ".pt"):  # the first makes a checkpoint of the second
            self._file(step, end).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
