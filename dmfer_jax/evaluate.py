"""Scores a trained checkpoint on splits, on its dataset's occlusion and pose lists, under harm.

  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --checkpoint=best --splits=valid
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --lists=path/to/lists
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --splits=test --stress

Prints tables and, as its last line, one line of JSON. Writes the report and figures of the
evaluation into `<workdir>/evaluation/`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import checkpoint, command, metrics, sharding, state, steps
from dmfer_jax.config import validate
from dmfer_jax.data import pipeline, sources, subsets
from dmfer_jax.data.lists import NamedList, read_lists
from dmfer_jax.data.sources import Split
from dmfer_jax.describe import describe_run
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.prepare import ensure_built
from dmfer_jax.reporting import figures, stress_report
from dmfer_jax.reporting import report as reports
from dmfer_jax.state import TrainState
from dmfer_jax.stress import score_stress


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
      pixels stand in an earlier row of the source too, and `groups` (of `accuracy_by_group`) where
      it says of what group an image is.
    """
    names = split.class_names
    predicted: list[jax.Array] = []
    totals = jax.device_put(steps.empty_totals(len(names)), sharding.replicated(mesh))
    for batch in pipeline.eval_batches(split, batch_size):
        totals, probabilities = eval_step(variables, sharding.put_batch(batch, mesh), totals)
        if split.groups:
            predicted.append(probabilities.argmax(-1))
    summary = metrics.summarize(totals["all"], names)
    if split.repeated.any():
        summary["deduplicated"] = metrics.summarize(totals["first"], names)
    if split.groups:
        # The last batch ends in padding.
        classes = np.concatenate(jax.device_get(predicted))[: len(split)]
        if groups := accuracy_by_group(classes, split.labels, split.groups):
            summary["groups"] = groups
    return summary


def accuracy_by_group(
    predicted: np.ndarray, labels: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Counts the correct predictions of each group of images.

    Args:
      predicted: int `[n]`, positions of classes.
      labels: int `[n]`, the true ones.
      groups: {attribute: str `[n]`}, such as {"gender": ["female", ...]}.

    Returns:
      {attribute: {value: {`examples`, `accuracy`, `mean_class_accuracy`}}}, the mean being over the
      classes that the group has. Ages come in the order of their numbers, "unknown" comes last. An
      attribute that is unknown of every image is left away.
    """
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for attribute, values in groups.items():
        if np.all(values == "unknown"):
            continue
        report[attribute] = {}
        for value in sorted(set(values.tolist()), key=_by_number_and_name):
            true = labels[values == value]
            right = predicted[values == value] == true
            recalls = [right[true == label].mean() for label in np.unique(true)]
            report[attribute][value] = {
                "examples": len(true),
                "accuracy": float(right.mean()),
                "mean_class_accuracy": float(np.mean(recalls)),
            }
    return report


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


class ListedSubsets(NamedTuple):
    """The images of lists among the records.

    Attributes:
      splits: one for each list that has any.
      counts: {list: what a report says of it}.
      not_scored: {list: why it has no images}.
    """

    splits: list[Split]
    counts: dict[str, dict[str, Any]]
    not_scored: dict[str, str]


def join_lists(lists: Iterable[NamedList], splits: Sequence[Split], dataset: str) -> ListedSubsets:
    """Finds the images of lists among the records of splits.

    Args:
      lists: of `data.lists.read_lists`.
      splits: to look in.
      dataset: that the splits are of.
    """
    joined = ListedSubsets([], {}, {})
    for found in lists:
        selection = subsets.select(splits, found, dataset)
        joined.counts[found.name] = {
            "lines": found.lines,
            "distinct": len(found.entries),
            "published": found.published,
            "repeated": len(found.repeated),
            "found": len(selection.split),
            "missing": len(selection.missing),
            "relabelled": selection.relabelled,
            "repeated_lines": list(found.repeated),
            "missing_names": list(selection.missing),
        }
        if len(selection.split):
            joined.splits.append(selection.split)
        else:
            joined.not_scored[found.name] = subsets.explain_nothing_found(splits, found)
    return joined


def evaluate(
    workdir: Path,
    which: str,
    names: Sequence[str] = (),
    *,
    lists: str = "",
    stress: bool = False,
    data_dir: str = "",
    source: str = "",
) -> dict[str, Any]:
    """Scores a checkpoint of a run.

    Args:
      workdir: of the run.
      which: "last" or "best".
      names: of the splits; none is the run's validation split or, with lists, its test splits.
      lists: file or folder of occlusion and pose lists, whose images are looked for in the splits.
      stress: whether the splits are scored under every kind of harm, too.
      data_dir: where built records are, if not where the run had them.
      source: file or folder as downloaded, if not where the run had it.

    Returns:
      A report (see `reporting.report`).

    Raises:
      UserError: there is no such run, checkpoint, split or list.
    """
    config = checkpoint.load_config(workdir)
    config.data.data_dir = data_dir or config.data.data_dir
    config.data.source = source or config.data.source
    validate(config)
    found = read_lists(lists, config.data.dataset) if lists else []
    trained_on_all = config.data.valid_split in config.data.train_splits
    unnamed = config.data.test_splits if lists or trained_on_all else [config.data.valid_split]
    names = names or unnamed
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.train.eval_batch_size, "train.eval_batch_size", mesh)
    dataset_dir = ensure_built(config.data.dataset, config.data.source, config.data.data_dir)
    splits = [sources.load_split(dataset_dir, n, config.data, train=False) for n in names]
    listed = join_lists(found, splits, config.data.dataset)
    model = state.make_model(config, len(splits[0].class_names))
    train_state, epoch = _load(workdir, which, config, model, mesh)
    eval_step = steps.make_eval_step(model, mesh)
    scored = [*splits, *listed.splits]
    entry = score_checkpoint(eval_step, train_state, scored, config, mesh, epoch)
    for split in listed.splits:
        entry["splits"][split.name]["list"] = listed.counts[split.name]
    if stress:
        variables, batch_size = train_state.eval_variables(), config.train.eval_batch_size
        entry["stress"] = {
            split.name: score_stress(
                lambda s: score(eval_step, variables, s, batch_size, mesh), split
            )
            for split in splits
        }
    report = {**describe_run(config, dataset_dir), "checkpoints": {which: entry}}
    if listed.not_scored:
        report["lists_not_scored"] = listed.not_scored
    return report


def _load(
    workdir: Path, which: str, config: ConfigDict, model: Dmfer, mesh: Mesh
) -> tuple[TrainState, float]:
    """A checkpoint's state, and the epochs trained."""
    with checkpoint.Checkpoints(workdir) as checkpoints:
        step = checkpoints.step(which)
        if step is None:
            raise UserError(f"{workdir} has no {which} checkpoint yet")
        optimizer = make_optimizer(config.optimizer, make_schedule(config, 1))
        like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
        train_state = checkpoints.load(step, like, sharding.replicated(mesh))
        return train_state, checkpoints.note(step)["epoch"]


def _by_number_and_name(value: str) -> tuple[bool, int, str]:
    number = re.match(r"\d+", value)
    return value == "unknown", int(number[0]) if number else -1, value


def main(argv: Sequence[str]) -> None:
    """Scores the checkpoint that the flags name."""
    del argv
    options = flags.FLAGS
    workdir = Path(options.workdir)
    report = evaluate(
        workdir,
        options.checkpoint,
        options.splits,
        lists=options.lists,
        stress=options.stress,
        data_dir=options.data_dir,
        source=options.source,
    )
    reports.print_report(report)
    stress_report.print_stress(report)
    splits = report["checkpoints"][options.checkpoint]["splits"]
    scored = [name for name, summary in splits.items() if "list" not in summary]
    asked = [word for word in ("lists", "stress") if options[word].value]
    name = "_".join([options.checkpoint, *scored, *asked])
    reports.write_report(workdir / "evaluation" / f"{name}.json", report)
    figures.draw_report_figures(workdir / "evaluation" / "figures", report)
    stress_report.draw_stress_figures(workdir / "evaluation" / "figures", report)
    print(reports.json_line(report))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("checkpoint", "last", ("last", "best"), "Last epoch, or best on validation.")
    flags.DEFINE_list(
        "splits",
        [],
        "Splits to score, separated by commas; the run's validation split if not given, and its "
        "test splits with --lists.",
    )
    flags.DEFINE_string(
        "lists", "", "File or folder of RAN's occlusion and pose lists; scores their images, too."
    )
    flags.DEFINE_bool(
        "stress", False, "Also scores the splits under eleven kinds of harm at five levels each."
    )
    flags.DEFINE_string("data_dir", "", "Where built records are, if not where the run had them.")
    flags.DEFINE_string("source", "", "File or folder as downloaded, if not where the run had it.")
    command.run(main)
