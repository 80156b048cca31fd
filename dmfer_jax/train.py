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
    run_folder,
    run_lock,
    sharding,
    state,
    steps,
)
from dmfer_jax import config as configs
from dmfer_jax.data import sources
from dmfer_jax.data.records import split_names
from dmfer_jax.errors import UserError
from dmfer_jax.feeding import Feed
from dmfer_jax.prepare import ensure_built
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting import writers
from dmfer_jax.reporting.predictions import Predictions, write_run_predictions
from dmfer_jax.run import Run, print_summary, start_run
from dmfer_jax.scoring import Trained, score_checkpoint
from dmfer_jax.state import TrainState
from dmfer_jax.trained import check_classes


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
        begins = checkpoints.step("last") is None
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
        train_state, note = init_or_restore(run, init, checkpoints, like)
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


def show_report(workdir: Path, report: dict[str, Any]) -> None:
    """Writes the report and its figures, and prints its tables."""
    reports.write_report(workdir / "report.json", report)
    rows = writers.read_jsonl(workdir / "metrics.jsonl")
    from dmfer_jax.reporting import figures  # matplotlib takes most of a second to import

    figures.draw_report_figures(workdir / "figures", report, rows)
    reports.print_report(report)
    print(f"Report: {workdir / 'report.json'}   Figures: {workdir / 'figures'}")


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
    checkpoints: checkpoint.Checkpoints,
    like: TrainState,
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state and note of a run that begins, or those of its latest checkpoint.

    Args:
      run: that begins or goes on.
      init: waits for the program that makes the first state; None where there is a checkpoint.
      checkpoints: of its folder.
      like: shapes and places of the state.

    Raises:
      UserError: the checkpoint is of other classes, another config or other records.
    """
    if init is not None:
        return init()(), {"seconds": 0.0, "cpu_seconds": 0.0}
    step = checkpoints.step("last")
    assert step is not None
    note, folder = checkpoints.note(step), checkpoints.folder / str(step)

    def check() -> None:
        check_classes(folder, note, run.train.class_names)
        if "config" in note:  # else from before it was kept there
            run_folder.check_same_config(folder, note["config"], run.config)
            check_same_records(note["run"], run)

    distributed.main_first(check)
    print(f"going on from step {step} of {run.total_steps} in {run.workdir}")
    return checkpoints.load(step, like, sharding.replicated(run.mesh)), note


def check_same_records(before: dict[str, Any], run: Run) -> None:
    """Refuses to go on with other records than those that the run began with.

    Raises:
      UserError: the records differ.
    """
    now = run.description
    for field in ("dataset", "records_sha256"):
        if before[field] != now[field]:
            raise UserError(
                f"{run.workdir} was trained on {before['dataset']} with records of digest "
                f"{before['records_sha256'][:16]}; those in {run.dataset_dir} are "
                f"{now['dataset']} of digest {now['records_sha256'][:16]}. Give the records that "
                "it was trained on by --config.data.data_dir, or another --workdir."
            )


def compile_train_step(run: Run, like: TrainState) -> steps.TrainStep:
    """Returns the compiled step of a run, whose state has the shapes and places of `like`."""
    config, classes = run.config, len(run.train.class_names)
    balanced = run.config.loss.class_weights == "balanced"
    class_weights = steps.balanced_weights(run.train.targets) if balanced else None
    step: Any = steps.make_train_step(config, run.model, run.optimizer, run.mesh, class_weights)
    batch = compiling.shape_batch(config, classes, config.train.batch_size, run.mesh)
    return step.lower(like, batch).compile()


def make_report(
    run: Run,
    train_state: Trained,
    note: dict[str, Any],
    checkpoints: Any,
    eval_step: steps.EvalStep,
    load: Callable[[int], Trained],
    said: dict[str, Predictions],
) -> dict[str, Any]:
    """Scores the last epoch, and the one chosen on validation, on the test splits too.

    Args:
      run: that is over.
      train_state: the last one.
      note: of its checkpoint.
      checkpoints: of the run.
      eval_step: of `steps.make_eval_step`.
      load: reads the state of a checkpoint.
      said: gets the last epoch's predictions of each split.
    """
    feeds, missing = load_scored(run)
    config = run.config
    scored = {"last": score_checkpoint(eval_step, train_state, feeds, config, note["epoch"], said)}
    best_step = checkpoints.step("best") if run.valid_feed else None
    if best_step == scored["last"]["step"]:
        scored["best"] = scored["last"]
    elif best_step is not None:
        epoch = checkpoints.note(best_step)["epoch"]
        scored["best"] = score_checkpoint(eval_step, load(best_step), feeds, config, epoch)
    if lost := find_lost_best(run, best_step):
        print(lost)
    return {
        **run.description,
        **initial.describe_start(run.workdir),
        "not_scored": missing,
        **({"best_lost": lost} if lost else {}),
        "train": {
            "epochs": run.config.train.epochs,
            "steps": run.total_steps,
            "examples": len(run.train),
            "seconds": note["seconds"],
            "cpu_seconds": note.get("cpu_seconds"),
            "images_per_second": run.total_steps * run.config.train.batch_size / note["seconds"],
            "input_wait_share": note.get("input_wait"),
        },
        "checkpoints": scored,
    }


def load_scored(run: Run) -> tuple[list[Feed], list[str]]:
    """Returns what a run that is over is scored on, and test splits that the build does not have.

    It is the validation split, unless that was trained on, and the test splits.
    """
    options = run.config.data
    built = split_names(run.dataset_dir)
    missing = [name for name in options.test_splits if name not in built]
    feeds = [run.valid_feed] if run.valid_feed else []
    feeds += [
        Feed(
            sources.load_split(run.dataset_dir, name, options, train=False),
            run.mesh,
            options.device_gib,
        )
        for name in options.test_splits
        if name in built
    ]
    if missing:
        print(f"not scored, since the source has no such rows: {', '.join(missing)}")
    return feeds, missing


def find_lost_best(run: Run, best_step: int | None) -> str | None:
    """Says so if the log knows a better epoch than the best one whose checkpoint is left."""
    rows = [
        row
        for row in writers.read_jsonl(run.workdir / "metrics.jsonl")
        if row.get("kind") == "eval" and row.get("accuracy") is not None
    ]
    best = max(rows, key=lambda row: (row["accuracy"], row["step"]), default=None)
    if best is None or best["step"] == best_step:
        return None
    instead = f"that of step {best_step} took its place" if best_step else "none is left"
    return (
        f"the best epoch ended at step {best['step']}, but its checkpoint was damaged or removed; "
        f"{instead}"
    )


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
