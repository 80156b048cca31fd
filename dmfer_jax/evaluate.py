"""Scores a trained checkpoint on any split.

  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --checkpoint=best --splits=valid

Prints tables and, as its last line, one line of JSON. Writes the report and figures of the
evaluation into `<workdir>/evaluation/`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import checkpoint, command, metrics, sharding, state, steps
from dmfer_jax.config import validate
from dmfer_jax.data import pipeline, sources
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.prepare import ensure_built
from dmfer_jax.reporting import figures
from dmfer_jax.reporting import report as reports
from dmfer_jax.state import TrainState


def score(
    eval_step: steps.EvalStep, variables: dict[str, Any], split: Split, batch_size: int, mesh: Mesh
) -> dict[str, Any]:
    """Scores every example of a split once.

    Args:
      eval_step: of `steps.make_eval_step`.
      variables: of the network, as `TrainState.eval_variables` gives them.
      split: what to score.
      batch_size: over all devices together.
      mesh: of `sharding.make_mesh`.

    Returns:
      `metrics.summarize`'s dict, with the key `deduplicated` where the split has images whose
      pixels stand in an earlier row of the source too.
    """
    names = split.class_names
    totals = jax.device_put(steps.empty_totals(len(names)), sharding.replicated(mesh))
    for batch in pipeline.eval_batches(split, batch_size):
        totals, _ = eval_step(variables, sharding.put_batch(batch, mesh), totals)
    summary = metrics.summarize(totals["all"], names)
    if split.repeated.any():
        summary["deduplicated"] = metrics.summarize(totals["first"], names)
    return summary


def score_checkpoint(
    eval_step: steps.EvalStep,
    train_state: TrainState,
    splits: Iterable[Split],
    config: ConfigDict,
    mesh: Mesh,
    epoch: float,
) -> dict[str, Any]:
    """Returns a report's entry for one checkpoint: its scores on splits, and its class centers.

    Args:
      eval_step: of `steps.make_eval_step`.
      train_state: of the checkpoint.
      splits: what to score.
      config: of the run.
      mesh: of `sharding.make_mesh`.
      epoch: epochs trained.
    """
    variables, centers = train_state.eval_variables(), train_state.class_centers()
    return {
        "epoch": epoch,
        "step": int(train_state.step),
        "chosen_on": config.data.valid_split,
        "splits": {
            split.name: score(eval_step, variables, split, config.train.eval_batch_size, mesh)
            for split in splits
        },
        "centers": None if centers is None else metrics.center_report(np.asarray(centers)),
    }


def describe_run(config: ConfigDict) -> dict[str, Any]:
    """Returns the part of a report that says what was run, and on what."""
    is_ferplus = config.data.dataset == "ferplus"
    return {
        "dataset": config.data.dataset,
        "protocol": config.data.protocol if is_ferplus else None,
        "train_protocol": (config.data.train_protocol or config.data.protocol)
        if is_ferplus
        else None,
        "seed": config.seed,
        "config": _without_paths(config),
        "environment": reports.environment(),
    }


def evaluate(workdir: Path, which: str, names: Sequence[str]) -> dict[str, Any]:
    """Scores a checkpoint of a run.

    Args:
      workdir: of the run.
      which: "last" or "best".
      names: of the splits.

    Returns:
      A report (see `reporting.report`).

    Raises:
      UserError: there is no such run, checkpoint or split.
    """
    config = checkpoint.load_config(workdir)
    validate(config)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.train.eval_batch_size, "train.eval_batch_size", mesh)
    dataset_dir = ensure_built(config.data.dataset, config.data.source, config.data.data_dir)
    splits = [sources.load_split(dataset_dir, n, config.data, train=False) for n in names]
    model = state.make_model(config, len(splits[0].class_names))
    with checkpoint.Checkpoints(workdir) as checkpoints:
        step = checkpoints.step(which)
        if step is None:
            raise UserError(f"{workdir} has no {which} checkpoint yet")
        optimizer = make_optimizer(config.optimizer, make_schedule(config, 1))
        like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
        train_state = checkpoints.load(step, like, sharding.replicated(mesh))
        epoch = checkpoints.note(step)["epoch"]
    eval_step = steps.make_eval_step(model, mesh)
    entry = score_checkpoint(eval_step, train_state, splits, config, mesh, epoch)
    return {**describe_run(config), "checkpoints": {which: entry}}


def _without_paths(config: ConfigDict) -> dict[str, Any]:
    """The config as a dict, without what it says of this machine's folders."""
    plain = config.to_dict()
    plain["data"] = {k: v for k, v in plain["data"].items() if k not in ("source", "data_dir")}
    return plain


def main(argv: Sequence[str]) -> None:
    """Scores the checkpoint that the flags name."""
    del argv
    options = flags.FLAGS
    workdir = Path(options.workdir)
    report = evaluate(workdir, options.checkpoint, options.splits)
    reports.print_report(report)
    name = f"{options.checkpoint}_{'_'.join(options.splits)}"
    reports.write_report(workdir / "evaluation" / f"{name}.json", report)
    figures.draw_report_figures(workdir / "evaluation" / "figures", report)
    print(reports.json_line(report))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("checkpoint", "last", ("last", "best"), "Last epoch, or best on validation.")
    flags.DEFINE_list("splits", ["valid"], "Splits to score, separated by commas.")
    command.run(main)
