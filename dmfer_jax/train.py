"""Trains DMFER from a config.

  python -m dmfer_jax.train --config=configs/synthetic.py
  python -m dmfer_jax.train --config=configs/synthetic.py --config.train.epochs=20

The same command goes on where an interrupted run stopped. The epoch is chosen on the validation
split alone; test splits are scored once, after the last epoch.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

import dmfer_jax
from dmfer_jax import (
    checkpoint,
    command,
    compiling,
    distributed,
    initial,
    loop,
    norm_statistics,
    run_lock,
    sharding,
    state,
    steps,
)
from dmfer_jax import config as configs
from dmfer_jax.building import ensure_built
from dmfer_jax.finish import make_report, show_report
from dmfer_jax.reporting.predictions import Predictions, write_run_predictions
from dmfer_jax.run import Run, check_goes_on, print_summary, start_run
from dmfer_jax.state import TrainState


def train(config: ConfigDict, workdir: Path, began: float | None = None) -> dict[str, Any]:
    """Trains, or goes on training, and writes the report.

    Args:
      config: of `config.get_config`, with changes.
      workdir: gets config.json, checkpoints, metrics.jsonl, tensorboard, predictions.npz,
        report.json and figures.
      began: when the command was given, by `time.monotonic`; now, unless told.

    Returns:
      The report (see `reporting.report`).

    Raises:
      UserError: config, data or workdir cannot be used.
      SystemExit: interrupted; what was done is saved.
    """
    began = time.monotonic() if began is None else began
    configs.validate(config)
    data = config.data
    with contextlib.ExitStack() as held:

        def begin() -> Run:
            if distributed.is_main():
                held.enter_context(run_lock.lock(workdir))
            dataset_dir = ensure_built(data.dataset, data.source, data.data_dir)
            return start_run(config, workdir, dataset_dir)

        run = distributed.main_first(begin)
        distributed.check_same(run.description["records_sha256"], "digest of the records")
        return go_on(run, began)


def go_on(run: Run, began: float) -> dict[str, Any]:
    """Trains from the latest checkpoint, if there is one, and writes and returns the report."""
    workdir, clocks = run.workdir, loop.read_clocks()
    eval_step = steps.make_eval_step(run.model, run.mesh)
    with checkpoint.Checkpoints(workdir) as checkpoints:
        for message in distributed.main_first(checkpoints.tidy):
            print(message)
        first_state = trace_first_state(run)
        like = compiling.place(first_state.out_info, sharding.replicated(run.mesh))
        # Lowered here: Python does one thing at a time, and what compiles first runs first.
        last = distributed.decided_by_main(lambda: checkpoints.step("last"))
        begins = last is None
        classes = run.train.class_names
        dataset = run.description["dataset"]
        weights = distributed.main_first(
            lambda: initial.read_initial_weights(
                run.config, workdir, like, classes, begins, dataset
            )
        )
        init = compiling.compile_beside(first_state.lower().compile) if begins else None
        train_step = compiling.compile_beside(lambda: compile_train_step(run, like))
        print_summary(run)
        train_state, note = init_or_restore(run, init, last, checkpoints, like)
        if weights:
            train_state = weights.put_into(train_state)
            if not weights.fitted:
                train_state = norm_statistics.fit_backbone(run, train_state)
        train_state, note = loop.train_steps(
            run, train_state, note, checkpoints, train_step, eval_step, began, clocks
        )

        def load(step: int) -> TrainState:
            return checkpoints.load(step, like, sharding.replicated(run.mesh))

        said: dict[str, Predictions] = {}
        report = make_report(run, train_state, note, checkpoints, eval_step, load, said)
    if distributed.is_main():
        write_run_predictions(workdir / "predictions.npz", run.train.class_names, said)
        show_report(workdir, report)
    return report


def trace_first_state(run: Run) -> jax.stages.Traced:
    """Returns the program that makes the state before the first step, which tells its shapes."""
    born_sharded = jax.jit(
        lambda: state.init_state(run.config, run.model, run.optimizer),
        out_shardings=sharding.replicated(run.mesh),
        compiler_options=compiling.init_options(sharding.platform(run.mesh)),
    )
    return born_sharded.trace()


def init_or_restore(
    run: Run,
    init: Callable[[], Callable[[], TrainState]] | None,
    step: int | None,
    checkpoints: checkpoint.Checkpoints,
    like: TrainState,
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state and note of a run that begins, or those of its latest checkpoint.

    Args:
      run: that begins or goes on.
      init: waits for the program that makes the first state; None where there is a checkpoint.
      step: of the latest checkpoint; None where there is none.
      checkpoints: of its folder.
      like: shapes and places of the state.

    Raises:
      UserError: the checkpoint is of other classes, another config or other records.
    """
    if step is None:
        assert init is not None
        return init()(), loop.first_note()
    note, folder = checkpoints.note(step), checkpoints.path(step)
    distributed.main_first(lambda: check_goes_on(run, folder, note))
    print(f"going on from step {step} of {run.total_steps} in {run.workdir}")
    return checkpoints.load(step, like, sharding.replicated(run.mesh)), note


def compile_train_step(run: Run, like: TrainState) -> steps.TrainStep:
    """Returns the compiled step of a run, whose state has the shapes and places of `like`."""
    config, classes = run.config, len(run.train.class_names)
    balanced = run.config.loss.class_weights == "balanced"
    class_weights = steps.balanced_weights(run.train.targets) if balanced else None
    step: Any = steps.make_train_step(config, run.model, run.optimizer, run.mesh, class_weights)
    batch = compiling.shape_batch(config, classes, config.train.batch_size, run.mesh)
    return step.lower(like, batch).compile()


def main(argv: Sequence[str]) -> None:
    """Trains what the flags describe."""
    del argv
    options = flags.FLAGS
    distributed.start(options.coordinator, options.processes, options.process)
    name = Path(config_flags.get_config_filename(options["config"])).stem
    train(options.config, Path(options.workdir or f"runs/{name}"), dmfer_jax.IMPORTED_AT)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/synthetic.py.")
    flags.DEFINE_string("workdir", "", "Folder of the run; runs/<name of the config> if not given.")
    flags.mark_flag_as_required("config")
    distributed.define_flags()
    command.run(main)
