"""Datasets from their owners' files: looked at, counted, built into records, and checked."""

import contextlib
import importlib
import inspect
import io
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dmfer_jax import command
from dmfer_jax.config import DATASETS
from dmfer_jax.data import builds, protocols
from dmfer_jax.data.records import class_labels, open_records, read_fields, split_names
from dmfer_jax.errors import UserError
from dmfer_jax.interruption import ending_tidily
from dmfer_jax.reporting import counts as tables
from dmfer_jax.reporting.console import duration
from dmfer_jax.reporting.counting import counting

_SHOWN_DIFFERENCES = 20


def ensure_built(dataset: str, source: str, data_dir: str) -> Path:
    """Returns the folder of a dataset's records, building them where there are none.

    Args:
      dataset: "name" or "name/variant"; names are in `config.DATASETS`.
      source: the file or folder as downloaded; not read when the records are there.
      data_dir: where records are kept.

    Raises:
      UserError: the source is missing or not as its owners hand it out.
    """
    if (found := builds.find_build(dataset, data_dir)) is None:
        return prepare(dataset, source, data_dir)
    if source:
        print(f"records of {dataset} are there already ({found}); {source} is not read again")
    return found


@ending_tidily()
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
    builder_class = _builder_class(dataset)
    place = Path(os.path.expanduser(data_dir)) / name
    if not builder_class.needs_source:
        _check_options(builder_class, options or {})
        with builds.readable_build(place / variant):
            builder = builder_class(
                config=variant or None, data_dir=place.parent, file_format="array_record"
            )
        folder = _build(builder, console)
        print_counts(folder, console)
        return folder
    with _opened(dataset, source) as files:
        found = _survey(builder_class, files, variant, options, console)
        _stop_on_differences(source, found, allow_mismatch, console)
        with builds.readable_build(place / found.variant):
            builder = builder_class.from_survey(files, found, place.parent)
            is_there = Path(builder.data_dir).exists()
        if is_there:
            builds.check_same(Path(builder.data_dir), found, builder.images_digest())
        folder = _build(builder, console)
        if not is_there and not builder.has_built:
            builds.check_same(folder, found, builder.images_digest())
        return folder


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
    variant = dataset.partition("/")[2]
    builder_class = _builder_class(dataset)
    if not builder_class.needs_source:
        _check_options(builder_class, options or {})
        console.print(f"{dataset} is drawn on this machine; there is no source to look at.")
        return
    with _opened(dataset, source) as files:
        found = _survey(builder_class, files, variant, options, console)
        _stop_on_differences(source, found, allow_mismatch, console)
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
    total = sum(len(open_records(folder, split)) for split in split_names(folder))
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
    for split in split_names(folder):
        records = open_records(folder, split)
        class_names = class_labels(records)["label"]
        splits[split] = read_fields(records)
    _print(console, f"{builds.dataset_name(folder)} in {folder}")
    facts = builds.facts(folder)
    if "layout" in facts:
        _print(console, f"Built from: {facts['layout']}")
    for difference in facts.get("differs", ())[:_SHOWN_DIFFERENCES]:
        _print(console, f"Differs: {difference}")
    if not _print_protocols(console, splits):
        counts = {
            split: np.bincount(fields["label"], minlength=len(class_names)).tolist()
            for split, fields in splits.items()
        }
        tables.print_class_counts(console, class_names, counts, {})
    repeated = sum(
        int((f["first_row"] < f["row"]).sum()) for f in splits.values() if "first_row" in f
    )
    if repeated:
        console.print(f"{repeated:,} images have the same content as an earlier one.")


def _builder_class(dataset: str) -> Any:
    name, _, variant = dataset.partition("/")
    if name not in DATASETS:
        raise UserError(f"there is no dataset '{name}'; there are {', '.join(DATASETS)}")
    builder = importlib.import_module(f"data_builders.{name}.{name}_dataset_builder").Builder
    variants = [config.name for config in builder.BUILDER_CONFIGS]
    if variant and variant not in variants and not builder.takes_any_variant:
        there = f"it has {', '.join(variants)}" if variants else "it has one form only"
        raise UserError(f"{name} has no variant '{variant}'; {there}")
    return builder


def _opened(dataset: str, source: str) -> Any:
    from data_builders.common.source_files import SourceFiles

    if not source:
        raise UserError(
            f"no source of {dataset} was given, and there are no records to take instead. Give the "
            "file or folder as downloaded: --config.data.source=path to train, --source=path to "
            f"other commands; see docs/datasets/{dataset.partition('/')[0]}.md"
        )
    return SourceFiles(Path(os.path.expanduser(source)))


def _survey(
    builder_class: Any,
    files: Any,
    variant: str,
    options: Mapping[str, Any] | None,
    console: Console,
) -> Any:
    """Surveys a source and prints what it was taken for."""
    options = options or {}
    _check_options(builder_class, options)
    found = builder_class.survey(files, variant, **options)
    _print(console, f"Found: {found.layout}")
    notes = found.notes
    if files.archives and files.source.is_dir():
        notes = [*notes, f"Looked into archives: {', '.join(files.archives[:6])}."]
    if files.unreadable:
        archives = ", ".join(files.unreadable[:3])
        notes = [*notes, f"Archives that cannot be read here and are left out: {archives}."]
    for note in notes:
        _print(console, f"Note: {note}")
    counted = _print_protocols(console, {s: rows.fields for s, rows in found.splits.items()})
    if counted:
        found.problems.extend(protocols.mismatches(counted))
    else:
        counts = {split: found.counts(split) for split in found.splits}
        tables.print_class_counts(console, found.class_names, counts, found.published)
    return found


def _check_options(builder_class: Any, options: Mapping[str, Any]) -> None:
    taken = inspect.signature(builder_class.survey).parameters
    if unknown := set(options) - set(taken):
        raise UserError(f"--{min(unknown)} makes no sense for {builder_class.name}")


def _print_protocols(
    console: Console, splits: Mapping[str, Mapping[str, Any]]
) -> protocols.Counts | None:
    """Prints what each protocol keeps of splits with votes, and returns it; None without votes."""
    if "votes_new" not in next(iter(splits.values()), {}):
        return None
    counts = protocols.count_classes(splits)
    tables.print_protocol_counts(
        console, counts, protocols.PUBLISHED_COUNTS, protocols.PUBLISHED_MAJORITY_CLASSES
    )
    return counts


def _stop_on_differences(source: str, found: Any, allow_mismatch: bool, console: Console) -> None:
    differs = found.differs()
    if not differs:
        return
    shown = "\n  ".join(differs[:_SHOWN_DIFFERENCES])
    if len(differs) > _SHOWN_DIFFERENCES:
        shown += f"\n  ... ({len(differs):,} in all)"
    if not allow_mismatch:
        raise UserError(
            f"{source} is not what is published:\n  {shown}\nMend it, or build what is there "
            "by `python -m dmfer_jax.prepare` with --allow_mismatch; scores on it are then not "
            "comparable with published ones."
        )
    _print(console, f"Not as published, built all the same:\n  {shown}")


def _build(builder: Any, console: Console) -> Path:
    import tensorflow_datasets as tfds

    folder = Path(builder.data_dir)
    if folder.exists():
        _print(console, f"The records are there already: {folder}")
        return folder
    _print(console, f"Building the records in {folder} ...")
    began = time.monotonic()
    total = sum(examples.number for examples in builder.split_examples().values())
    tfds.disable_progress_bar()
    with counting(console, total) as on_progress:
        builder.on_progress = on_progress
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads; there are none
            builder.download_and_prepare()
    if builder.has_built:
        _print(console, f"... {total:,} images, built in {duration(time.monotonic() - began)}")
    else:
        _print(console, "... another process has built them meanwhile")
    return folder


def _print(console: Console, text: str) -> None:
    console.print(command.printable(text), markup=False, soft_wrap=True)


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False)  # stdout as it is now: _build silences it
