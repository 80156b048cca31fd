"""Scores a trained checkpoint on splits, on its dataset's occlusion and pose lists, under harm.

  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --checkpoint=best --splits=valid
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --lists=path/to/lists
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --splits=test --stress
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --splits=test --predictions=said.csv

Prints tables and, as its last line, one line of JSON. Writes the report and figures of the
evaluation into `<workdir>/evaluation/`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import command, distributed, initial, run_folder, sharding, steps
from dmfer_jax.config import validate
from dmfer_jax.data import sources, subsets
from dmfer_jax.data.lists import NamedList, read_lists
from dmfer_jax.data.sources import Split
from dmfer_jax.describe import describe_run
from dmfer_jax.errors import UserError
from dmfer_jax.feeding import Feed
from dmfer_jax.prepare import ensure_built
from dmfer_jax.reporting import figures, stress_report
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting.predictions import Predictions, write_predictions
from dmfer_jax.scoring import Trained, score, score_checkpoint
from dmfer_jax.stress import score_stress
from dmfer_jax.trained import load_trained


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


Loader = Callable[..., tuple[steps.EvalStep, Trained, dict[str, Any]]]
"""Takes what `trained.load_trained` takes, and returns an evaluation step, what it scores, and the
checkpoint's note."""


def load_ours(
    workdir: Path, which: str, config: ConfigDict, mesh: Mesh, class_names: Sequence[str]
) -> tuple[steps.EvalStep, Trained, dict[str, Any]]:
    """The `Loader` of this project's checkpoints."""
    model, train_state, note = load_trained(workdir, which, config, mesh, class_names)
    return steps.make_eval_step(model, mesh), train_state, note


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
    predictions: str = "",
    data_dir: str = "",
    source: str = "",
    load: Loader | None = None,
) -> dict[str, Any]:
    """Scores a checkpoint of a run.

    Args:
      workdir: of the run.
      which: "last" or "best".
      names: of the splits; none is the run's validation split or, with lists or where it was
        trained on that one, its test splits.
      lists: file or folder of occlusion and pose lists, whose images are looked for in the splits.
      stress: whether the splits are scored under every kind of harm, too.
      predictions: CSV file to write what is said of each image of the one split; none if not given.
      data_dir: where built records are, if not where the run had them.
      source: file or folder as downloaded, if not where the run had it.
      load: what reads the checkpoint, if it is not one of this project's own.

    Returns:
      A report (see `reporting.report`).

    Raises:
      UserError: there is no such run, checkpoint, split or list, the records are of other classes
        than the run, or predictions of several splits are to be written to one file.
    """
    config = run_folder.load_config(workdir)
    config.data.data_dir = data_dir or config.data.data_dir
    config.data.source = source or config.data.source
    validate(config)
    found = read_lists(lists, config.data.dataset) if lists else []
    names = names or _default_splits(config, bool(lists))
    if predictions and len(names) != 1:
        raise UserError(
            f"--predictions is one file, and {len(names)} splits are scored ({', '.join(names)}); "
            "name one with --splits"
        )
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.train.eval_batch_size, "train.eval_batch_size", mesh)
    data = config.data

    def read() -> tuple[Path, list[Split]]:
        folder = ensure_built(data.dataset, data.source, data.data_dir)
        return folder, [sources.load_split(folder, n, data, train=False) for n in names]

    dataset_dir, splits = distributed.main_first(read)
    listed = join_lists(found, splits, config.data.dataset)
    class_names = splits[0].class_names
    loaded = (load or load_ours)(workdir, which, config, mesh, class_names)
    eval_step, train_state, note = loaded

    def feed(split: Split) -> Feed:
        return Feed(split, mesh, config.data.device_gib)

    scored = map(feed, [*splits, *listed.splits])  # one after the other is on the devices
    said: dict[str, Predictions] | None = {} if predictions else None
    entry = score_checkpoint(eval_step, train_state, scored, config, note["epoch"], said)
    if said and distributed.is_main():
        of_split = said[names[0]]
        true = [class_names[label] for label in of_split.labels]
        write_predictions(predictions, of_split.names, class_names, of_split.probabilities, true)
    for split in listed.splits:
        entry["splits"][split.name]["list"] = listed.counts[split.name]
    if stress:
        variables, batch_size = train_state.eval_variables(), config.train.eval_batch_size

        def score_split(split: Split) -> dict[str, Any]:
            return score(eval_step, variables, feed(split), batch_size)

        entry["stress"] = {split.name: score_stress(score_split, split) for split in splits}
    described = {**describe_run(config, dataset_dir), **initial.describe_start(workdir)}
    report = {**described, "checkpoints": {which: entry}}
    if listed.not_scored:
        report["lists_not_scored"] = listed.not_scored
    return report


def _default_splits(config: ConfigDict, with_lists: bool) -> Sequence[str]:
    """The splits to score where none are named."""
    data: Any = config.data
    if not with_lists and data.valid_split not in data.train_splits:
        return [data.valid_split]
    if not data.test_splits:
        raise UserError("the run has no test splits; name what to score with --splits")
    return data.test_splits


def main(argv: Sequence[str]) -> None:
    """Scores the checkpoint that the flags name."""
    del argv
    options = flags.FLAGS
    distributed.start(options.coordinator, options.processes, options.process)
    workdir = Path(options.workdir)
    report = evaluate(
        workdir,
        options.checkpoint,
        options.splits,
        lists=options.lists,
        stress=options.stress,
        predictions=options.predictions,
        data_dir=options.data_dir,
        source=options.source,
    )
    if not distributed.is_main():
        return
    reports.print_report(report)
    stress_report.print_stress(report)
    splits = report["checkpoints"][options.checkpoint]["splits"]
    scored = [name for name, summary in splits.items() if "list" not in summary]
    asked = [word for word in ("lists", "stress") if getattr(options, word)]
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
        "Splits to score, separated by commas; if not given, the run's validation split, or its "
        "test splits with --lists and where it was trained on the validation split.",
    )
    flags.DEFINE_string(
        "lists", "", "File or folder of RAN's occlusion and pose lists; scores their images, too."
    )
    flags.DEFINE_bool(
        "stress", False, "Also scores the splits under eleven kinds of harm at five levels each."
    )
    flags.DEFINE_string(
        "predictions", "", "CSV file to write what is said of each image of the one split."
    )
    flags.DEFINE_string("data_dir", "", "Where built records are, if not where the run had them.")
    flags.DEFINE_string("source", "", "File or folder as downloaded, if not where the run had it.")
    distributed.define_flags()
    command.run(main)
