"""Trains DMFER from a config.

  python -m dmfer_jax.train --config=configs/synthetic.py
  python -m dmfer_jax.train --config=configs/synthetic.py --config.train.epochs=20

The same command goes on where an interrupted run stopped. The epoch is chosen on the validation
split alone; test splits are scored once, after the last epoch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

import dmfer_jax
from dmfer_jax import checkpoint, command, compiling, distributed, sharding, state, steps
from dmfer_jax import config as configs
from dmfer_jax.data import sources
from dmfer_jax.data.records import split_names
from dmfer_jax.feeding import Batch, Feed
from dmfer_jax.interruption import Interruption
from dmfer_jax.prepare import ensure_built
from dmfer_jax.reporting import console, writers
from dmfer_jax.reporting import report as reports
from dmfer_jax.run import Run, print_summary, start_run
from dmfer_jax.scoring import score, score_checkpoint
from dmfer_jax.state import TrainState


def train(config: ConfigDict, workdir: Path, began: float | None = None) -> dict[str, Any]:
    """Trains, or goes on training, and writes the report.

    Args:
      config: of `config.get_config`, with changes.
      workdir: gets config.json, checkpoints, metrics.jsonl, tensorboard, report.json and figures.
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

    def begin() -> Run:
        dataset_dir = ensure_built(data.dataset, data.source, data.data_dir)
        return start_run(config, workdir, dataset_dir)

    run = distributed.main_first(begin)
    eval_step = steps.make_eval_step(run.model, run.mesh)
    with checkpoint.Checkpoints(workdir) as checkpoints:
        first_state = trace_first_state(run)
        like = compiling.place(first_state.out_info, sharding.replicated(run.mesh))
        # Lowered here: Python does one thing at a time, and what compiles first runs first.
        begins = checkpoints.step("last") is None
        init = compiling.compile_beside(first_state.lower().compile) if begins else None
        train_step = compiling.compile_beside(lambda: compile_train_step(run, like))
        print_summary(run)
        train_state, note = init_or_restore(run, init, checkpoints, like)
        train_state, note = train_steps(
            run, train_state, note, checkpoints, train_step, eval_step, began
        )
        report = make_report(run, train_state, note, checkpoints, eval_step)
    if distributed.is_main():
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
      UserError: the checkpoint is of other classes than the records.
    """
    if init is not None:
        return init()(), {"epoch": 0.0, "seconds": 0.0}
    step = checkpoints.step("last")
    assert step is not None
    checkpoints.check_classes(step, run.train.class_names)
    print(f"going on from step {step} of {run.total_steps} in {run.workdir}")
    restored = checkpoints.load(step, like, sharding.replicated(run.mesh))
    return restored, checkpoints.note(step)


def train_steps(
    run: Run,
    train_state: TrainState,
    note: dict[str, Any],
    checkpoints: checkpoint.Checkpoints,
    compiled_step: Callable[[], steps.TrainStep],
    eval_step: steps.EvalStep,
    began: float,
) -> tuple[TrainState, dict[str, Any]]:
    """The loop, in one order: batch, step, evaluate, log, save.

    Nothing crosses between host and devices that is not put or fetched by name: whatever would,
    is an error rather than a wait in every step.
    """
    options, start = run.config.train, int(train_state.step)
    learning_rates = list_learning_rates(run)
    batches, progress = read_batches(run, start), make_progress(run, start)
    started = time.monotonic() - note["seconds"]
    guard = jax.transfer_guard("disallow")
    waiting: list[dict[str, jax.Array]] = []  # scalars of the steps since the last log line
    opened = writers.RunLog(run.workdir, start, writes=distributed.is_main())
    with opened as log, progress, Interruption() as interruption, guard:
        with progress.paused("compiling"):
            train_step = compiled_step()
            distributed.wait_for_others()
        for step in range(start + 1, run.total_steps + 1):
            epoch = int(np.searchsorted(run.epoch_ends, step)) + 1
            with progress.paused("first step") if step == start + 1 else nullcontext():
                with progress.waiting_for_input():
                    batch = next(batches)
                train_state, scalars = train_step(train_state, batch)
                if step == start + 1:
                    jax.block_until_ready(scalars)
                    progress.print(f"first step after {time.monotonic() - began:.1f} s")
                    compiling.give_back_memory()
            waiting.append(scalars)

            stops = distributed.stops_here(step, interruption.signal is not None)
            ends_epoch = step == run.epoch_ends[epoch - 1]
            saves = stops or ends_epoch or _is_due(step, options.checkpoint_every)
            if saves or _is_due(step, options.log_every):
                log_training(log, progress, step, epoch, waiting, learning_rates[step - 1])
                waiting = []
            valid_accuracy = None
            if ends_epoch and run.valid_feed:
                valid_accuracy = log_validation(
                    run, run.valid_feed, log, progress, step, epoch, train_state, eval_step
                )
            if saves:
                note = {
                    "epoch": step / run.total_steps * options.epochs,
                    "seconds": time.monotonic() - started,
                    "input_wait": progress.input_wait,
                    "labels": list(run.train.class_names),
                }
                with jax.transfer_guard("allow"):  # Orbax fetches arrays in its own way
                    checkpoints.save(train_state, note, valid_accuracy)
            if stops:
                checkpoints.wait()
                progress.print(
                    f"Interrupted. Saved at step {step} of {run.total_steps}; "
                    "the same command goes on from there."
                )
                raise SystemExit(interruption.exit_status)
    checkpoints.wait()
    return train_state, note


def compile_train_step(run: Run, like: TrainState) -> steps.TrainStep:
    """Returns the compiled step of a run, whose state has the shapes and places of `like`."""
    config, classes = run.config, len(run.train.class_names)
    balanced = run.config.loss.class_weights == "balanced"
    class_weights = steps.balanced_weights(run.train.targets) if balanced else None
    step: Any = steps.make_train_step(config, run.model, run.optimizer, run.mesh, class_weights)
    batch = compiling.shape_batch(config, classes, config.train.batch_size, run.mesh)
    return step.lower(like, batch).compile()


def list_learning_rates(run: Run) -> np.ndarray:
    """The learning rate of each step, for the log: float32 `[steps]`."""
    return np.asarray(jax.jit(jax.vmap(run.schedule))(np.arange(run.total_steps)))


def make_progress(run: Run, start: int) -> console.Progress:
    """What shows how far the run is."""
    return console.Progress(
        total_steps=run.total_steps,
        total_epochs=run.config.train.epochs,
        batch_size=run.config.train.batch_size,
        start_step=start,
    )


def read_batches(run: Run, start: int) -> Iterator[Batch]:
    """The batches on the devices, from that of step `start` on."""
    return run.train_feed.train_batches(
        run.config.train.batch_size,
        seed=run.config.seed,
        sampling=run.config.data.sampling,
        start_step=start,
        workers=run.config.data.workers,
    )


def log_training(
    log: writers.RunLog,
    progress: console.Progress,
    step: int,
    epoch: int,
    waiting: list[dict[str, jax.Array]],
    learning_rate: float,
) -> None:
    """Logs the means over some steps; the loop's one wait for the device."""
    rows = jax.device_get(waiting)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    progress.update(step, epoch, loss=means["loss"], accuracy=means["accuracy"])
    log.write(
        step,
        kind="train",
        epoch=epoch,
        learning_rate=float(learning_rate),
        images_per_second=progress.images_per_second,
        input_wait=progress.input_wait,
        **means,
    )


def log_validation(
    run: Run,
    feed: Feed,
    log: writers.RunLog,
    progress: console.Progress,
    step: int,
    epoch: int,
    train_state: TrainState,
    eval_step: steps.EvalStep,
) -> float:
    """Scores the validation split, logs it, and returns the accuracy."""
    with progress.paused("evaluating"):
        batch_size = run.config.train.eval_batch_size
        valid = score(eval_step, train_state.eval_variables(), feed, batch_size)
    headlines = {name: valid[name] for name in reports.HEADLINES}
    log.write(step, kind="eval", epoch=epoch, split=feed.split.name, **headlines)
    progress.end_epoch(
        epoch,
        f"{feed.split.name} accuracy {console.percent(valid['accuracy'])}, "
        f"loss {console.number(valid['loss'])}",
    )
    return valid["accuracy"]


def make_report(
    run: Run,
    train_state: TrainState,
    note: dict[str, Any],
    checkpoints: checkpoint.Checkpoints,
    eval_step: steps.EvalStep,
) -> dict[str, Any]:
    """Scores the last epoch, and the one chosen on validation, on the test splits too."""
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

    def entry(scored: TrainState, epoch: float) -> dict[str, Any]:
        return score_checkpoint(eval_step, scored, feeds, run.config, epoch)

    scored = {"last": entry(train_state, note["epoch"])}
    best_step = checkpoints.step("best") if run.valid_feed else None
    if best_step == scored["last"]["step"]:
        scored["best"] = scored["last"]
    elif best_step is not None:
        like = jax.eval_shape(lambda: train_state)
        best_state = checkpoints.load(best_step, like, sharding.replicated(run.mesh))
        scored["best"] = entry(best_state, checkpoints.note(best_step)["epoch"])
    return {
        **run.description,
        "not_scored": missing,
        "train": {
            "epochs": run.config.train.epochs,
            "steps": run.total_steps,
            "examples": len(run.train),
            "seconds": note["seconds"],
            "images_per_second": run.total_steps * run.config.train.batch_size / note["seconds"],
            "input_wait_share": note.get("input_wait"),
        },
        "checkpoints": scored,
    }


def _is_due(step: int, every: int) -> bool:
    """Whether something done every so many steps is due; never, if `every` is 0."""
    return every > 0 and step % every == 0


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
