"""Builds a dataset's records from files as their owners hand them out, and shows what is in them.

  python -m dmfer_jax.prepare --dataset=ferplus --source=path/to/fer2013

Training builds what it needs by itself; this is for doing it beforehand, and for a look at the
counts.
"""

import contextlib
import importlib
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console

from dmfer_jax import command
from dmfer_jax.config import DATA_DIR, DATASETS
from dmfer_jax.data import protocols, sources
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.reporting.console import duration, print_table


def ensure_built(dataset: str, source: str, data_dir: str, *, always_count: bool = False) -> Path:
    """Returns the folder of a dataset's records, building and counting them where there are none.

    Args:
      dataset: one of `config.DATASETS`.
      source: the file or folder as downloaded; not read when the records are there.
      data_dir: where records are kept.
      always_count: prints the counts of records that were there before, too.

    Raises:
      UserError: the source is missing or not as its owners hand it out.
    """
    import tensorflow_datasets as tfds

    name, _, variant = dataset.partition("/")
    module = importlib.import_module(f"data_builders.{name}.{name}_dataset_builder")
    builder = module.Builder(
        config=variant or None,
        data_dir=Path(data_dir).expanduser(),
        file_format="array_record",
    )
    folder = Path(builder.data_dir)
    is_new = not folder.exists()
    if is_new:
        print(f"Building the records of {dataset} in {folder} ...", flush=True)
        began = time.monotonic()
        manual_dir = Path(source).expanduser() if source else None
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads; there are none
            builder.download_and_prepare(download_config=config)
        print(f"... built in {duration(time.monotonic() - began)}")
    if is_new or always_count:
        print_counts(folder)
    return folder


def print_counts(dataset_dir: Path, console: Console | None = None) -> None:
    """Prints how many examples each split has per class, and under each protocol where it matters.

    Args:
      dataset_dir: of `ensure_built`.
      console: where to print.
    """
    console = console or Console(highlight=False)
    fields = {
        split: sources.read_fields(sources.open_records(dataset_dir, split))
        for split in sources.split_names(dataset_dir)
    }
    if "votes_new" in next(iter(fields.values())):
        _print_protocols(console, fields)
        return
    rows = [
        [split, f"{len(f['label']):,}", *np.bincount(f["label"], minlength=len(EXPRESSION_NAMES))]
        for split, f in fields.items()
    ]
    print_table(console, "Examples per class", ["split", "all", *_short_names()], rows)


def _print_protocols(console: Console, fields: dict[str, dict[str, Any]]) -> None:
    rows, per_class = [], []
    for protocol in protocols.PROTOCOLS:
        published = protocols.PUBLISHED_COUNTS.get(protocol, {})
        for split, columns in fields.items():
            if protocol == "majority" and (columns["votes_label_csv"] < 0).all():
                rows.append([protocol, split, "no label.csv", f"{published[split]:,}"])
                continue
            targets = protocols.apply_protocol(
                protocol, columns["votes_new"], columns["votes_label_csv"]
            )
            expected = f"{published[split]:,}" if split in published else "-"
            rows.append([protocol, split, f"{targets.keep.sum():,}", expected])
            if protocol != "votes":
                counts = np.bincount(targets.label[targets.keep], minlength=len(EXPRESSION_NAMES))
                per_class.append([protocol, split, *counts])
    print_table(console, "Examples per protocol", ["protocol", "split", "kept", "published"], rows)
    header = ["protocol", "split", *_short_names()]
    print_table(console, "Examples per class", header, per_class)
    missing = [split for split in ("train", "valid", "test") if split not in fields]
    if missing:
        console.print(f"The source has no rows for: {', '.join(missing)}.")


def _short_names() -> list[str]:
    """Four letters each, so that eight classes fit into 80 columns."""
    return [name[:4] for name in EXPRESSION_NAMES]


def main(argv: Sequence[str]) -> None:
    """Builds the dataset that the flags name, or shows the counts of the one that is there."""
    del argv
    options = flags.FLAGS
    ensure_built(options.dataset, options.source, options.data_dir, always_count=True)


if __name__ == "__main__":
    flags.DEFINE_enum("dataset", "synthetic_faces", DATASETS, "Which dataset.")
    flags.DEFINE_string("source", "", "The file or folder as downloaded.")
    flags.DEFINE_string("data_dir", DATA_DIR, "Where built records are kept.")
    command.run(main)
