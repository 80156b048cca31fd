"""What is kept of a step whose loss or gradient is not finite: all that it takes to repeat it."""

import shutil
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from dmfer_jax import distributed, files, run_folder, steps
from dmfer_jax.checkpoint import Checkpoints
from dmfer_jax.data import pipeline
from dmfer_jax.errors import UserError
from dmfer_jax.run import Run
from dmfer_jax.state import TrainState

BATCH = "batch.npz"
"""Beside a config and a checkpoint of the state before the step: `image` uint8 `[b, h, w, c]`,
`target` float32 `[b, K]`, `name` str `[b]`, `class_names` str `[K]`, and `class_weights` float32
`[K]` where there are any."""

_SHOWN = 8  # records that the message names; the file has all


def stop(run: Run, train_state: TrainState, step: int, note: dict[str, Any]) -> NoReturn:
    """Writes the step to `<workdir>/nonfinite/<step>/` and ends the run.

    Args:
      run: that is at this step.
      train_state: as it was before the step, its own number aside.
      step: whose loss or gradient is not finite, counted from 1.
      note: of a checkpoint.

    Raises:
      UserError: always.
    """
    folder = run.workdir / "nonfinite" / str(step)
    options = run.config
    positions = next(
        pipeline.train_positions(
            run.train,
            options.train.batch_size,
            seed=options.seed,
            sampling=options.data.sampling,
            start_step=step - 1,
        )
    )
    names = run.train.names[positions]
    # Where steps are left out, the state is that of many steps before, but for the number.
    number = jax.device_put(np.int32(step - 1), train_state.step.sharding)
    train_state = train_state.replace(step=number)
    _write(folder, run, train_state, positions, note)
    raise UserError(
        f"the loss or the gradient of step {step} is not finite. Its batch has "
        f"{', '.join(names[:_SHOWN])}{' and others' * (len(names) > _SHOWN)}. The state before it "
        f"and the batch are in {folder}: python -m dmfer_jax.replay --dump={folder} repeats the "
        "step and says where the numbers end. A lower optimizer.learning_rate helps most often; "
        "--config.train.nonfinite=skip leaves such steps out and counts them."
    )


def _write(
    folder: Path, run: Run, train_state: TrainState, positions: np.ndarray, note: dict[str, Any]
) -> None:
    # Of a step of this number there may be one from before, by another config or other weights.
    distributed.decided_by_main(lambda: shutil.rmtree(folder, ignore_errors=True))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(train_state, note)
    if not distributed.is_main():
        return
    run_folder.write_config(folder, run.config)
    arrays: dict[str, Any] = {
        "image": run.train.images[positions],
        "target": run.train.targets[positions],
        "name": run.train.names[positions].astype(str),
        "class_names": np.asarray(run.train.class_names),
    }
    if run.config.loss.class_weights == "balanced":
        arrays["class_weights"] = steps.balanced_weights(run.train.targets)
    files.write_atomically(folder / BATCH, lambda part: np.savez(part, **arrays))
