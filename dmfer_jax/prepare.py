"""Builds a dataset's records from files as their owners hand them out, and shows what is in them.

  python -m dmfer_jax.prepare --dataset=rafdb --source=path/to/RAF-DB
  python -m dmfer_jax.prepare --dataset=affectnet --source=path/to/AffectNet --dry_run
  python -m dmfer_jax.prepare --dataset=rafdb --verify

The source may be a folder or an archive, in any layout that docs/datasets/ tells of; what it was
taken for is said. Training builds what it needs by itself; this does so before, and shows counts.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from dmfer_jax import building, command
from dmfer_jax.config import DATA_DIR, DATASETS
from dmfer_jax.data import builds
from dmfer_jax.errors import UserError
from dmfer_jax.interruption import ending_tidily

_OPTIONS = ("folder_order", "groups", "test_fraction", "valid_fraction")  # flags for a survey


@ending_tidily()
def main(argv: Sequence[str]) -> None:
    """Does what the flags say."""
    del argv
    given = flags.FLAGS
    options: dict[str, Any] = {name: given[name].value for name in _OPTIONS if given[name].present}
    if given.dry_run and given.verify:
        raise UserError("--verify reads records, and --dry_run makes none; give one of the two")
    if given.dry_run:
        building.dry_run(
            given.dataset, given.source, allow_mismatch=given.allow_mismatch, options=options
        )
        return
    # A dataset that is there is shown, unless a source says what else is wanted.
    folder = None if given.source else builds.find_build(given.dataset, given.data_dir)
    if folder and options:
        raise UserError(
            f"--{min(options)} says how files are read, and there is no --source; there are "
            f"records already, in {folder}"
        )
    if folder:
        building.print_counts(folder)
    else:
        folder = building.prepare(
            given.dataset,
            given.source,
            given.data_dir,
            allow_mismatch=given.allow_mismatch,
            options=options,
        )
    if given.verify:
        building.verify(folder)


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
