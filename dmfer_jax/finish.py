"""What comes after the last step of a run: its scores, its report and its figures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dmfer_jax import distributed, initial, steps
from dmfer_jax.data import sources
from dmfer_jax.data.records import split_names
from dmfer_jax.feeding import Feed
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting import writers
from dmfer_jax.reporting.predictions import Predictions
from dmfer_jax.run import Run
from dmfer_jax.scoring import Trained, score_checkpoint


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
    config, here = run.config, run.description["environment"]
    if missing := find_missing(run):
        print(f"not scored, since the source has no such rows: {', '.join(missing)}")
    feeds, epoch = feeds_to_score(run), note["epoch"]
    scored = {"last": score_checkpoint(eval_step, train_state, feeds, config, epoch, said)}
    best_step: int | None = None
    if run.valid_feed:
        best_step = distributed.decided_by_main(lambda: checkpoints.step("best"))
    if best_step == scored["last"]["step"]:
        scored["best"] = scored["last"]
    elif best_step is not None:
        distributed.wait_until_seen(checkpoints.path(best_step))
        feeds, epoch = feeds_to_score(run), checkpoints.note(best_step)["epoch"]
        scored["best"] = score_checkpoint(eval_step, load(best_step), feeds, config, epoch)
    if lost := find_lost_best(run, best_step):
        print(lost)
    trained = note["run"]["environment"]  # the same command may be given again, anywhere
    return {
        **run.description,
        "environment": trained,
        **({"scored_in": here} if here != trained else {}),
        **initial.describe_start(run.workdir),
        "not_scored": missing,
        **({"best_lost": lost} if lost else {}),
        "train": {
            "epochs": run.config.train.epochs,
            "steps": run.total_steps,
            "examples": len(run.train),
            "seconds": note["seconds"],
            "cpu_seconds": note["cpu_seconds"],
            "images_per_second": run.total_steps * run.config.train.batch_size / note["seconds"],
            "input_wait_share": note["input_wait"],
        },
        "checkpoints": scored,
    }


def find_missing(run: Run) -> list[str]:
    """Returns the names of test splits that the build does not have."""
    built = split_names(run.dataset_dir)
    return [name for name in run.config.data.test_splits if name not in built]


def feeds_to_score(run: Run) -> Iterator[Feed]:
    """Yields what a run that is over is scored on, one after the other on the devices.

    It is the validation split, unless that was trained on, and the test splits that are there.
    """
    options, missing = run.config.data, find_missing(run)
    if run.valid_feed:
        yield run.valid_feed
    for name in options.test_splits:
        if name not in missing:
            split = sources.load_split(run.dataset_dir, name, options, train=False)
            yield Feed(split, run.mesh, options.device_gib)


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


def show_report(workdir: Path, report: dict[str, Any]) -> None:
    """Writes the report and its figures, and prints its tables."""
    reports.write_report(workdir / "report.json", report)
    rows = writers.read_jsonl(workdir / "metrics.jsonl")
    from dmfer_jax.reporting import figures  # matplotlib takes most of a second to import

    figures.draw_report_figures(workdir / "figures", report, rows)
    reports.print_report(report)
    print(f"Report: {workdir / 'report.json'}   Figures: {workdir / 'figures'}")
