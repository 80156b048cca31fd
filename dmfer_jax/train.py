"""Trains DMFER from a config.

  python -m dmfer_jax.train --config=configs/synthetic.py
  python -m dmfer_jax.train --config=configs/synthetic.py --config.train.epochs=20

The same command goes on where an interrupted run stopped. The epoch is chosen on the validation
split alone; test splits are scored once, after the last epoch.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from dmfer_jax import checkpoint, command, sharding, state, steps
from dmfer_jax import config as configs
from dmfer_jax.data import pipeline, sources
from dmfer_jax.data.sources import Split
from dmfer_jax.interruption import Interruption
from dmfer_jax.prepare import ensure_built
from dmfer_jax.reporting import console, figures, writers
from dmfer_jax.reporting import report as reports
from dmfer_jax.run import Run, print_summary, start_run
from dmfer_jax.scoring import score, score_checkpoint
from dmfer_jax.state import TrainState


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, or goes on training, and writes the report.

    Args:
      config: of `config.get_config`, with changes.
      workdir: gets config.json, checkpoints, metrics.jsonl, tensorboard, report.json and figures.

    Returns:
      The report (see `reporting.report`).

    Raises:
      UserError: config, data or workdir cannot be used.
      SystemExit: interrupted; what was done is saved.
    """
    configs.validate(config)
    dataset_dir = ensure_built(config.data.dataset, config.data.source, config.data.data_dir)
    run = start_run(config, workdir, dataset_dir)
    print_summary(run)
    eval_step = steps.make_eval_step(run.model, run.mesh)
    with checkpoint.Checkpoints(workdir) as checkpoints:
        train_state, note = restore_or_init(run, checkpoints)
        train_state, note = train_steps(run, train_state, note, checkpoints, eval_step)
        report = make_report(run, train_state, note, checkpoints, eval_step)
    reports.write_report(workdir / "report.json", report)
    rows = writers.read_jsonl(workdir / "metrics.jsonl")
    figures.draw_report_figures(workdir / "figures", report, rows)
    reports.print_report(report)
    print(f"Report: {workdir / 'report.json'}   Figures: {workdir / 'figures'}")
    return report


def restore_or_init(
    run: Run, checkpoints: checkpoint.Checkpoints
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the latest checkpoint's state and note, or those of a run that begins.

    Raises:
      UserError: the checkpoint is of other classes than the records.
    """

    def init() -> TrainState:
        return state.init_state(run.config, run.model, run.optimizer)

    step = checkpoints.step("last")
    if step is None:
        born_sharded = jax.jit(init, out_shardings=sharding.replicated(run.mesh))
        return born_sharded(), {"epoch": 0.0, "seconds": 0.0}
    checkpoints.check_classes(step, run.train.class_names)
    print(f"going on from step {step} of {run.total_steps} in {run.workdir}")
    like = jax.eval_shape(init)
    restored = checkpoints.load(step, like, sharding.replicated(run.mesh))
    return restored, checkpoints.note(step)


def train_steps(
    run: Run,
    train_state: TrainState,
    note: dict[str, Any],
    checkpoints: checkpoint.Checkpoints,
    eval_step: steps.EvalStep,
) -> tuple[TrainState, dict[str, Any]]:
    """The loop, in one order: batch, step, evaluate, log, save."""
    options, start = run.config.train, int(train_state.step)
    train_step = make_train_step(run)
    batches, progress = read_batches(run, start), make_progress(run, start)
    began = time.monotonic() - note["seconds"]
    waiting: list[dict[str, jax.Array]] = []  # scalars of the steps since the last log line
    with writers.RunLog(run.workdir, start) as log, progress, Interruption() as interruption:
        for step in range(start + 1, run.total_steps + 1):
            epoch = int(np.searchsorted(run.epoch_ends, step)) + 1
            batch = sharding.put_batch(next(batches), run.mesh)
            with progress.paused("compiling") if step == start + 1 else nullcontext():
                train_state, scalars = train_step(train_state, batch)
                if step == start + 1:
                    jax.block_until_ready(scalars)
            waiting.append(scalars)

            stops = interruption.signal is not None
            ends_epoch = step == run.epoch_ends[epoch - 1]
            saves = stops or ends_epoch or _is_due(step, options.checkpoint_every)
            if saves or _is_due(step, options.log_every):
                log_training(run, log, progress, step, epoch, waiting)
                waiting = []
            valid_accuracy = None
            if ends_epoch and run.valid:
                valid_accuracy = log_validation(
                    run, run.valid, log, progress, step, epoch, train_state, eval_step
                )
            if saves:
                note = {
                    "epoch": step / run.total_steps * options.epochs,
                    "seconds": time.monotonic() - began,
                    "labels": list(run.train.class_names),
                }
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


def make_train_step(run: Run) -> steps.TrainStep:
    """The compiled step of this run."""
    balanced = run.config.loss.class_weights == "balanced"
    class_weights = steps.balanced_weights(run.train.targets) if balanced else None
    return steps.make_train_step(run.config, run.model, run.optimizer, run.mesh, class_weights)


def make_progress(run: Run, start: int) -> console.Progress:
    """What shows how far the run is."""
    return console.Progress(
        total_steps=run.total_steps,
        total_epochs=run.config.train.epochs,
        batch_size=run.config.train.batch_size,
        start_step=start,
    )


def read_batches(run: Run, start: int) -> Iterator[pipeline.Batch]:
    """This host's part of each batch, from that of step `start` on."""
    return pipeline.train_batches(
        run.train,
        run.config.train.batch_size // jax.process_count(),
        seed=run.config.seed,
        sampling=run.config.data.sampling,
        start_step=start,
        host=jax.process_index(),
        hosts=jax.process_count(),
        workers=run.config.data.workers,
    )


def log_training(
    run: Run,
    log: writers.RunLog,
    progress: console.Progress,
    step: int,
    epoch: int,
    waiting: list[dict[str, jax.Array]],
) -> None:
    """Logs the means over some steps; the loop's one wait for the device."""
    rows = jax.device_get(waiting)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    learning_rate: Any = run.schedule(step - 1)
    progress.update(step, epoch, loss=means["loss"], accuracy=means["accuracy"])
    log.write(
        step,
        kind="train",
        epoch=epoch,
        learning_rate=float(learning_rate),
        images_per_second=progress.images_per_second,
        **means,
    )


def log_validation(
    run: Run,
    split: Split,
    log: writers.RunLog,
    progress: console.Progress,
    step: int,
    epoch: int,
    train_state: TrainState,
    eval_step: steps.EvalStep,
) -> float:
    """Scores the validation split, logs it, and returns the accuracy."""
    with progress.paused("evaluating"):
        valid = score(
            eval_step,
            train_state.eval_variables(),
            split,
            run.config.train.eval_batch_size,
            run.mesh,
        )
    headlines = {name: valid[name] for name in reports.HEADLINES}
    log.write(step, kind="eval", epoch=epoch, split=split.name, **headlines)
    progress.end_epoch(
        epoch,
        f"{split.name} accuracy {console.percent(valid['accuracy'])}, "
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
    built = sources.split_names(run.dataset_dir)
    missing = [name for name in options.test_splits if name not in built]
    splits = [run.valid] if run.valid else []
    splits += [
        sources.load_split(run.dataset_dir, name, options, train=False)
        for name in options.test_splits
        if name in built
    ]
    if missing:
        print(f"not scored, since the source has no such rows: {', '.join(missing)}")

    def entry(scored: TrainState, epoch: float) -> dict[str, Any]:
        return score_checkpoint(eval_step, scored, splits, run.config, run.mesh, epoch)

    scored = {"last": entry(train_state, note["epoch"])}
    best_step = checkpoints.step("best") if run.valid else None
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
    name = Path(config_flags.get_config_filename(options["config"])).stem
    train(options.config, Path(options.workdir or f"runs/{name}"))


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/synthetic.py.")
    flags.DEFINE_string("workdir", "", "Folder of the run; runs/<name of the config> if not given.")
    flags.mark_flag_as_required("config")
    command.run(main)
