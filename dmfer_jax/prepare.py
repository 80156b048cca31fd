"""Builds a dataset's records from files as their owners hand them out, and shows what is in them.

  python -m dmfer_jax.prepare --dataset=rafdb --source=path/to/RAF-DB
  python -m dmfer_jax.prepare --dataset=affectnet --source=path/to/AffectNet --dry_run
  python -m dmfer_jax.prepare --dataset=rafdb --verify

The source may be a folder or an archive, in any layout that docs/datasets/ tells of; what it was
taken for is said. Training builds what it needs by itself; this is for doing it beforehand, and for
a look at the counts.
"""

import contextlib
import importlib
import inspect
import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console

from dmfer_jax import command
from dmfer_jax.config import DATA_DIR, DATASETS
from dmfer_jax.data import builds, protocols, sources
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import counts as tables
from dmfer_jax.reporting.console import duration
from dmfer_jax.reporting.counting import counting

_SHOWN_DIFFERENCES = 20
_OPTIONS = ("folder_order", "groups", "test_fraction", "valid_fraction")  # flags for a survey


def ensure_built(dataset: str, source: str, data_dir: str) -> Path:
    """Returns the folder of a dataset's records, building them where there are none.

    Args:
      dataset: "name" or "name/variant"; names are in `config.DATASETS`.
      source: the file or folder as downloaded; not read when the records are there.
      data_dir: where records are kept.

    Raises:
      UserError: the source is missing or not as its owners hand it out.
    """
    return builds.find_build(dataset, data_dir) or prepare(dataset, source, data_dir)


def prepare(
    dataset: str,
    source: str,
    data_dir: str,
    *,
    allow_mismatch: bool = False,
    options: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Path:
    """Looks at a source, prints what it holds, and builds its records if there are none yet.

    Args:
      dataset: "name" or "name/variant".
      source: the file or folder as downloaded.
      data_dir: where records are kept.
      allow_mismatch: builds even where the source differs from what is published.
      options: of the dataset's survey, such as {"folder_order": "raf"}.
      console: where to print.

    Returns:
      The folder of the records.

    Raises:
      UserError: the source cannot be used, or differs from what is published.
    """
    console = console or _console()
    name, _, variant = dataset.partition("/")
    builder_class = _builder_class(name)
    if not builder_class.needs_source:
        builder = builder_class(
            config=variant or None, data_dir=Path(data_dir).expanduser(), file_format="array_record"
        )
        folder = _build(builder, console)
        print_counts(folder, console)
        return folder
    with _opened(dataset, source) as files:
        found = _survey(builder_class, files, variant, options, console)
        _stop_on_differences(found, allow_mismatch, console)
        builder = builder_class.from_survey(files, found, Path(data_dir).expanduser())
        folder = Path(builder.data_dir)
        if folder.exists():
            _check_same(folder, found)
        return _build(builder, console)


def dry_run(
    dataset: str,
    source: str,
    *,
    allow_mismatch: bool = False,
    options: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> None:
    """Looks at a source and prints what `prepare` would build; writes nothing.

    Args:
      dataset: "name" or "name/variant".
      source: the file or folder as downloaded.
      allow_mismatch: as in `prepare`.
      options: as in `prepare`.
      console: where to print.

    Raises:
      UserError: `prepare` would raise it for this source too, its images aside.
    """
    console = console or _console()
    name, _, variant = dataset.partition("/")
    builder_class = _builder_class(name)
    if not builder_class.needs_source:
        console.print(f"{dataset} is drawn on this machine; there is no source to look at.")
        return
    with _opened(dataset, source) as files:
        found = _survey(builder_class, files, variant, options, console)
        _stop_on_differences(found, allow_mismatch, console)
    console.print("Nothing was built (--dry_run).")


def verify(folder: Path, console: Console | None = None) -> None:
    """Reads all records of a build again and prints that they are whole.

    Args:
      folder: of the build.
      console: where to print.

    Raises:
      UserError: which records are damaged.
    """
    console = console or _console()
    total = sum(len(sources.open_records(folder, split)) for split in sources.split_names(folder))
    with counting(console, total, "records") as on_progress:
        checked = builds.verify(folder, on_progress)
    console.print(
        f"{builds.dataset_name(folder)}: {checked:,} records are as they were written, their "
        "images decode, their labels are in range."
    )


def print_counts(folder: Path, console: Console | None = None) -> None:
    """Prints how many examples a build has per split and class.

    Args:
      folder: of the build.
      console: where to print.
    """
    console = console or _console()
    splits, class_names = {}, ()
    for split in sources.split_names(folder):
        records = sources.open_records(folder, split)
        class_names = sources.class_labels(records)["label"]
        splits[split] = sources.read_fields(records)
    console.print(f"{builds.dataset_name(folder)} in {folder}", soft_wrap=True)
    if facts := builds.facts(folder):
        console.print(f"Built from: {facts['layout']}", soft_wrap=True)
        for difference in facts["differs"][:_SHOWN_DIFFERENCES]:
            console.print(f"Differs: {difference}", soft_wrap=True)
    _print_table(console, class_names, splits, {})
    repeated = sum(
        int((f["first_row"] < f["row"]).sum()) for f in splits.values() if "first_row" in f
    )
    if repeated:
        console.print(f"{repeated:,} images have the same content as an earlier one.")


def _builder_class(name: str) -> Any:
    if name not in DATASETS:
        raise UserError(f"there is no dataset '{name}'; there are {', '.join(DATASETS)}")
    return importlib.import_module(f"data_builders.{name}.{name}_dataset_builder").Builder


def _opened(dataset: str, source: str) -> Any:
    from data_builders.common.source_files import SourceFiles

    if not source:
        raise UserError(
            f"{dataset} has no records yet, and no source to build them from was given. Give the "
            "file or folder as downloaded: --source=path to prepare, --config.data.source=path "
            f"to train; see docs/datasets/{dataset.partition('/')[0]}.md"
        )
    return SourceFiles(Path(source).expanduser())


def _survey(
    builder_class: Any,
    files: Any,
    variant: str,
    options: Mapping[str, Any] | None,
    console: Console,
) -> Any:
    """Surveys a source and prints what it was taken for."""
    options = options or {}
    taken = inspect.signature(builder_class.survey).parameters
    if unknown := set(options) - set(taken):
        raise UserError(f"--{min(unknown)} makes no sense for {builder_class.name}")
    found = builder_class.survey(files, variant, **options)
    console.print(f"Found: {found.layout}", markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    splits = {
        split: {"label": np.asarray(rows.labels), **rows.fields}
        for split, rows in found.splits.items()
    }
    _print_table(console, found.class_names, splits, found.published)
    if "votes_new" in next(iter(splits.values()), {}):
        found.problems.extend(protocols.mismatches(splits))
    return found


def _print_table(
    console: Console,
    class_names: Sequence[str],
    splits: Mapping[str, Mapping[str, Any]],
    published: Mapping[str, Sequence[int]],
) -> None:
    if "votes_new" in next(iter(splits.values()), {}):
        tables.print_protocol_counts(console, splits)
        return
    counts = {
        split: np.bincount(fields["label"], minlength=len(class_names)).tolist()
        for split, fields in splits.items()
    }
    tables.print_class_counts(console, class_names, counts, published)


def _stop_on_differences(found: Any, allow_mismatch: bool, console: Console) -> None:
    differs = [*found.problems, *found.mismatches()]
    if not differs:
        return
    shown = "\n  ".join(differs[:_SHOWN_DIFFERENCES])
    if len(differs) > _SHOWN_DIFFERENCES:
        shown += f"\n  ... ({len(differs):,} in all)"
    if not allow_mismatch:
        raise UserError(
            f"the source is not what is published:\n  {shown}\nMend it, or build what is there "
            "with --allow_mismatch; scores on it are then not comparable with published ones."
        )
    console.print(f"Not as published, built all the same:\n  {shown}", markup=False, soft_wrap=True)


def _check_same(folder: Path, found: Any) -> None:
    """Raises a `UserError` if records that are there were built from something else."""
    built = {
        split: len(sources.open_records(folder, split)) for split in sources.split_names(folder)
    }
    surveyed = {split: len(rows) for split, rows in found.splits.items() if len(rows)}
    differs = [*found.problems, *found.mismatches()]
    if built != surveyed or builds.facts(folder)["differs"] != differs:
        raise UserError(
            f"{folder} was built from something else: it has {built}, the source {surveyed}. "
            "Remove that folder to build anew, or give another --data_dir."
        )


def _build(builder: Any, console: Console) -> Path:
    import tensorflow_datasets as tfds

    folder = Path(builder.data_dir)
    if folder.exists():
        console.print(f"The records are there already: {folder}", soft_wrap=True)
        return folder
    console.print(f"Building the records in {folder} ...", soft_wrap=True)
    began = time.monotonic()
    total = sum(examples.number for examples in builder.split_examples().values())
    tfds.disable_progress_bar()
    with counting(console, total) as on_progress:
        builder.on_progress = on_progress
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads; there are none
            builder.download_and_prepare()
    console.print(f"... {total:,} images, built in {duration(time.monotonic() - began)}")
    return folder


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False)  # stdout as it is now: _build silences it


def main(argv: Sequence[str]) -> None:
    """Does what the flags say."""
    del argv
    given = flags.FLAGS
    options: dict[str, Any] = {name: given[name].value for name in _OPTIONS if given[name].present}
    if given.dry_run:
        dry_run(given.dataset, given.source, allow_mismatch=given.allow_mismatch, options=options)
        return
    # A dataset that is there is shown, unless a source says what else is wanted.
    folder = None if given.source else builds.find_build(given.dataset, given.data_dir)
    if folder:
        print_counts(folder)
    else:
        folder = prepare(
            given.dataset,
            given.source,
            given.data_dir,
            allow_mismatch=given.allow_mismatch,
            options=options,
        )
    if given.verify:
        verify(folder)


if __name__ == "__main__":
    flags.DEFINE_string("dataset", None, f"NAME or NAME/VARIANT; names: {', '.join(DATASETS)}.")
    flags.mark_flag_as_required("dataset")
    flags.DEFINE_string("source", "", "The file or folder as downloaded.")
    flags.DEFINE_string("data_dir", DATA_DIR, "Where built records are kept.")
    flags.DEFINE_bool("dry_run", False, "Only look and count; write nothing.")
    flags.DEFINE_bool("allow_mismatch", False, "Build what differs from what is published.")
    flags.DEFINE_bool("verify", False, "Read every record again and check it.")
    flags.DEFINE_enum(
        "folder_order", "", ("", "raf", "manet"), "rafdb: whose order class folders 0-6 are in."
    )
    flags.DEFINE_string("groups", "", "folder: csv file image,group in it; no group is divided.")
    flags.DEFINE_float("test_fraction", 0.2, "folder: for testing, where no test folder is.")
    flags.DEFINE_float("valid_fraction", 0.1, "folder: for validation, where no valid folder is.")
    command.run(main)
