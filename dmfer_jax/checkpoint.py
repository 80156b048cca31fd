"""Checkpoints: the last two, and the best on the validation split. The only file that knows Orbax.

`<workdir>/checkpoints/<step>/` holds the arrays of a `TrainState` in `state/`, as Orbax writes
them, and `checkpoint.json` (see `checkpoint_record`). A folder gets its name when it is complete.
"""

import copy
import os
import re
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding
from orbax.checkpoint import v1 as ocp

from dmfer_jax import checkpoint_record as records
from dmfer_jax.errors import UserError
from dmfer_jax.state import TrainState

_KEPT = 2  # latest ones: if the last is damaged, the run goes on from the one before
_PARTIAL = ".partial"  # ends the name of a folder that is being written or removed


class Checkpoints:
    """The checkpoints of one run, saved in the background; by all processes of a run together.

    Use as a context manager; leaving it waits for a save in flight and raises its error.
    """

    def __init__(self, workdir: Path):
        """Looks at `workdir/checkpoints`, which may not exist yet."""
        self.folder = (workdir / "checkpoints").absolute()
        self._damaged = (workdir / "damaged").absolute()
        self._records: dict[int, records.Record] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._saving: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def tidy(self) -> list[str]:
        """Removes what a killed process left unfinished, and sets damaged checkpoints aside.

        Returns:
          What was wrong with each damaged one, naming the file, and where it is now.

        Raises:
          UserError: every checkpoint is damaged; nothing is moved then.
        """
        if jax.process_index():
            return []  # process 0 does it
        for leftover in self.folder.glob(f"*{_PARTIAL}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        there = self._steps()
        found = {step: records.find_damage(self.path(step)) for step in there}
        damage = {step: reason for step, reason in found.items() if reason}
        if damage and len(damage) == len(there):
            raise UserError(
                f"no checkpoint in {self.folder} is sound: {'; '.join(damage.values())}. Bring a "
                "sound copy back, or train anew with another --workdir."
            )
        messages = []
        for step, reason in damage.items():
            target = self._damaged / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path(step).rename(target)
            messages.append(f"checkpoint of step {step} is damaged: {reason}; moved to {target}")
        return messages

    def save(
        self, state: TrainState, note: Mapping[str, Any], valid_accuracy: float | None = None
    ) -> None:
        """Begins to save a state; the one before must have been written, or its error is raised.

        Args:
          state: what to save.
          note: JSON values to keep with it.
          valid_accuracy: what the best checkpoint is chosen by; None within an epoch.

        Raises:
          UserError: this save cannot begin, or the one before failed.
        """
        self.wait()
        step = int(jax.device_get(state.step))
        if step in self._steps():
            return
        # Process 0 writes down what all of them save.
        arrays = {} if jax.process_index() else records.describe_arrays(state)
        note = copy.deepcopy(dict(note))
        partial = self.folder / f"{step}{_PARTIAL}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            metadata: Any = {"format": records.FORMAT}
            with _whole_arrays():
                writing = ocp.save_async(
                    str(partial), state, overwrite=True, custom_metadata=metadata
                )
        except Exception as error:
            raise self._failed(step, error) from error

        def finish() -> None:
            try:
                writing.result()
                if jax.process_index():
                    return  # process 0 does what is left
                records.write_record(partial, step, note, valid_accuracy, arrays)
                partial.rename(self.path(step))
                self._remove_old()
            except Exception as error:
                raise self._failed(step, error) from error

        self._saving = self._thread.submit(finish)

    def wait(self) -> None:
        """Waits for the save in flight, and raises a `UserError` if it failed."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def raise_failed(self) -> None:
        """Raises the error of the save in flight if it has failed by now; waits for nothing."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def step(self, which: str) -> int | None:
        """Returns the step of the "last" or the "best" checkpoint, None if there is none.

        Raises:
          UserError: a checkpoint is damaged.
        """
        there = self._steps()
        if which == "best":
            accuracies = {step: self._record(step).valid_accuracy for step in there}
            scored = [(value, step) for step, value in accuracies.items() if value is not None]
            return max(scored)[1] if scored else None
        return there[-1] if there else None

    def path(self, step: int) -> Path:
        """Returns where the checkpoint of a step is, once it is whole."""
        return self.folder / str(step)

    def note(self, step: int) -> dict[str, Any]:
        """Returns the note saved with a step."""
        return self._record(step).note

    def load(self, step: int, like: TrainState, sharding: Sharding) -> TrainState:
        """Reads the state saved at a step onto devices, and compares every byte with its digest.

        Args:
          step: of a checkpoint that is there.
          like: a state of the same shapes and types, abstract (`jax.eval_shape`) or not.
          sharding: where to put the arrays.

        Raises:
          UserError: the checkpoint does not hold a state of these shapes, or is damaged.
        """
        folder = self.path(step)
        if damage := records.find_damage(folder):
            raise UserError(f"{damage}. Bring a sound copy back, or use another checkpoint.")
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        record = self._record(step)
        other = f"checkpoint {folder} holds another network or optimizer than the config describes"
        if differences := records.compare_shapes(record.arrays, like):
            raise UserError(f"{other}; use another --workdir. {'; '.join(differences)}")
        state = ocp.load(str(folder), abstract)
        found = records.describe_arrays(state)
        for name, array in record.arrays.items():
            if found[name] != array:
                raise UserError(
                    f"checkpoint {folder}: the values of {name} are not those that were saved "
                    "(their digests differ). Bring a sound copy back, or use another checkpoint."
                )
        return state

    def _steps(self) -> list[int]:
        """The steps that there are checkpoints of, in order."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(path.name) for path in there if re.fullmatch(r"\d+", path.name))

    def _record(self, step: int) -> records.Record:
        if step not in self._records:
            self._records[step] = records.read_record(self.path(step))
        return self._records[step]

    def _remove_old(self) -> None:
        for step in set(self._steps()[:-_KEPT]) - {self.step("best")}:
            # Under this name first: half removed, it would look damaged to the next process.
            gone = self.path(step).rename(self.folder / f"{step}{_PARTIAL}")
            _empty(gone)
            shutil.rmtree(gone)

    def _failed(self, step: int, error: Exception) -> UserError:
        if not jax.process_index():
            _remove_all(self.folder, f"{step}{_PARTIAL}*")
        there = self._steps()
        newest = f"the newest one is of step {there[-1]}" if there else "there is none before it"
        reason = " ".join(str(error).split())[:300]
        return UserError(
            f"the checkpoint of step {step} could not be written to {self.folder}: {reason}; "
            f"{newest}. When this is mended, the same command goes on from there."
        )


def _remove_all(folder: Path, pattern: str) -> None:
    """Removes folders, also where a thread of a save that has failed still writes into one."""
    for _ in range(50):
        left = list(folder.glob(pattern))
        if not left:
            return
        for one in left:
            shutil.rmtree(one, ignore_errors=True)
        time.sleep(0.02)


def _empty(folder: Path) -> None:
    """Frees the room that files take, before they are removed.

    A Drive, where notebooks keep runs, has a bin: what is removed counts as used for a month.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def _whole_arrays() -> ocp.Context:
    """Has Orbax write each array from one device.

    By itself it cuts an array into a part for each device that holds it, so that hosts share the
    writing. A network's arrays are small: the cutting, which training waits for, took longer.
    """
    context = ocp.Context()
    context.array.saving.use_replica_parallel = False
    return context
