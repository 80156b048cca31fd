"""Scores a trained checkpoint on splits, on its dataset's occlusion and pose lists, under harm.

  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --checkpoint=best --splits=valid
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --lists=path/to/lists
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --splits=test --stress
  python -m dmfer_jax.evaluate --workdir=runs/ferplus_cpu --splits=test --predictions=said.csv
  python -m dmfer_jax.evaluate --model=ferplus-small --dataset=folder/my_faces --source=my_faces

The last scores the model of a file on any records whose classes it knows. Prints tables and, as its
last line, one line of JSON. Writes the report and figures into `<workdir>/evaluation/`, or into
`evaluation/<model>/<dataset>/` here, a folder of each file, protocol and choice of classes.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from dmfer_jax import command, distributed, sharding, subjects
from dmfer_jax.building import ensure_built
from dmfer_jax.data import sources, subsets
from dmfer_jax.data.lists import NamedList, read_lists
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.feeding import Feed
from dmfer_jax.reporting import figures, stress_report
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting.predictions import Predictions, write_predictions
from dmfer_jax.scoring import score, score_checkpoint
from dmfer_jax.stress import score_stress
from dmfer_jax.subjects import Subject


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


def read_splits(
    subject: Subject, names: Sequence[str], *, of_one: bool
) -> tuple[Path, list[Split]]:
    """Returns the folder of the records and the splits to score, built where they are not.

    Args:
      subject: of `subjects.of_run` or `subjects.of_model`.
      names: of the splits; the subject's own choice if none is named.
      of_one: whether there is to be one split, whose predictions go to a file.

    Raises:
      UserError: there is no such split, or the records are of other classes.
    """
    data = subject.config.data
    folder = ensure_built(data.dataset, data.source, data.data_dir)
    chosen = names or subject.choose_splits(folder)
    if of_one and len(chosen) != 1:
        raise UserError(
            f"--predictions is one file, and {len(chosen)} splits are scored "
            f"({', '.join(chosen)}); name one with --splits"
        )
    splits = [sources.load_split(folder, name, data, train=False) for name in chosen]
    if subject.class_names:
        splits = [sources.with_classes(split, subject.class_names) for split in splits]
    return folder, splits


def evaluate(
    subject: Subject,
    names: Sequence[str] = (),
    *,
    lists: str = "",
    stress: bool = False,
    predictions: str = "",
) -> dict[str, Any]:
    """Scores what is to be scored.

    Args:
      subject: of `subjects.of_run` or `subjects.of_model`.
      names: of the splits; the subject's own choice if none is named.
      lists: file or folder of occlusion and pose lists, whose images are looked for in the splits.
      stress: whether the splits are scored under every kind of harm, too.
      predictions: CSV file to write what is said of each image of the one split; none if not given.

    Returns:
      A report (see `reporting.report`).

    Raises:
      UserError: there is no such checkpoint, split or list, the records are of other classes, or
        predictions of several splits are to be written to one file.
    """
    config, data = subject.config, subject.config.data
    found = read_lists(lists, data.dataset) if lists else []
    mesh = sharding.make_mesh()
    sharding.check_hosts(mesh)

    dataset_dir, splits = distributed.main_first(
        lambda: read_splits(subject, names, of_one=bool(predictions))
    )
    listed = join_lists(found, splits, data.dataset)
    class_names = splits[0].class_names
    eval_step, train_state, note = subject.load(mesh, class_names)

    def feed(split: Split) -> Feed:
        return Feed(split, mesh, data.device_gib)

    scored = map(feed, [*splits, *listed.splits])  # one after the other is on the devices
    said: dict[str, Predictions] | None = {} if predictions else None
    entry = score_checkpoint(eval_step, train_state, scored, config, note["epoch"], said)
    if said and distributed.is_main():
        of_split = said[splits[0].name]
        true = [class_names[label] for label in of_split.labels]
        write_predictions(predictions, of_split.names, class_names, of_split.probabilities, true)
    for split in listed.splits:
        entry["splits"][split.name]["list"] = listed.counts[split.name]
    if stress:
        variables, batch_size = train_state.eval_variables(), config.train.eval_batch_size

        def score_split(split: Split) -> dict[str, Any]:
            return score(eval_step, variables, feed(split), batch_size)

        entry["stress"] = {split.name: score_stress(score_split, split) for split in splits}
    described = subject.describe(dataset_dir, [split.name for split in splits])
    report = {**described, "checkpoints": {subject.which: entry}}
    if listed.not_scored:
        report["lists_not_scored"] = listed.not_scored
    return report


def find_subject(options: Any) -> Subject:
    """Returns what the flags name.

    Raises:
      UserError: they name nothing, or contradict each other.
    """
    if bool(options.workdir) == bool(options.model):
        raise UserError(
            "give either --workdir, the folder of a run, or --model, a file that export wrote, "
            "with --dataset" + " (both are given)" * bool(options.workdir)
        )
    places = {"data_dir": options.data_dir, "source": options.source}
    of_model = {name: getattr(options, name) for name in ("dataset", "protocol", "drop_classes")}
    if options.workdir:
        if given := [name for name, value in of_model.items() if value]:
            raise UserError(
                f"--{given[0]} goes with --model: a run is scored on the records it is of"
            )
        workdir, which = Path(options.workdir), options.checkpoint or "last"
        return subjects.of_run(workdir, which, with_lists=bool(options.lists), **places)
    if options.checkpoint:
        raise UserError("--checkpoint goes with --workdir: a file has one network")
    if not options.dataset:
        raise UserError("--model needs --dataset, such as --dataset=folder/my_faces")
    return subjects.of_model(options.model, **of_model, **places)


def main(argv: Sequence[str]) -> None:
    """Scores the checkpoint that the flags name."""
    del argv
    options = flags.FLAGS
    distributed.start(options.coordinator, options.processes, options.process)
    subject = find_subject(options)
    report = evaluate(
        subject,
        options.splits,
        lists=options.lists,
        stress=options.stress,
        predictions=options.predictions,
    )
    if not distributed.is_main():
        return
    reports.print_report(report)
    stress_report.print_stress(report)
    scored = [*report["checkpoints"][subject.which]["splits"], *report.get("lists_not_scored", ())]
    name = "_".join([subject.which, *scored, *["stress"] * options.stress])
    reports.write_report(subject.folder / f"{name}.json", report)
    figures.draw_report_figures(subject.folder / "figures", report)
    stress_report.draw_stress_figures(subject.folder / "figures", report)
    print(reports.json_line(report))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", "", "Folder of the run.")
    flags.DEFINE_string("model", "", "Or: a file that export wrote, or a model of the package.")
    flags.DEFINE_string("dataset", "", "With --model: what to score it on, NAME or NAME/VARIANT.")
    flags.DEFINE_string("protocol", "", "With --model: of FERPlus's labels; its own, or majority.")
    flags.DEFINE_list("drop_classes", [], "With --model: classes whose images are left out.")
    flags.DEFINE_enum("checkpoint", None, ("last", "best"), "Last epoch, or best on validation.")
    flags.DEFINE_list(
        "splits",
        [],
        "Splits to score, separated by commas; if not given, the run's validation split, or its "
        "test splits with --lists and where it was trained on the validation split; with --model "
        "test, where there is one.",
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
    flags.DEFINE_string(
        "data_dir", "", "Where built records are, if not where the run had them, or as usual."
    )
    flags.DEFINE_string(
        "source", "", "Files as downloaded; read only where no records are built yet."
    )
    distributed.define_flags()
    command.run(main)
