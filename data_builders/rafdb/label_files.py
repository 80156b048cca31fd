"""Reads RAF-DB's labels from the owners' list, or from the pair of csv files that is also met."""

import re

from data_builders.common.source_files import SourceFiles
from data_builders.common.tables import read_csv, read_words, whole_number
from data_builders.rafdb.listing import (
    Entry,
    Listing,
    folder_expression,
    folder_number,
    image_key,
    of_compound_set,
)
from dmfer_jax.errors import UserError
from dmfer_jax.labels import RAFDB_LIST, Expression

LIST_NAMES: tuple[str, ...] = ("list_patition_label.txt", "list_partition_label.txt")
"""The owners' own spelling, and the one that people correct it to."""

CSV_NAMES: dict[str, str] = {"train": "train_labels.csv", "test": "test_labels.csv"}

_LISTED_NAME = re.compile(r"(?P<split>train|test)_\d+(_aligned)?\.\w+")
_LABELS = range(1, len(RAFDB_LIST) + 1)


def read_list(files: SourceFiles, images: list[str]) -> Listing | None:
    """Reads the owners' list file: lines like `train_00001.jpg 5`.

    Args:
      files: the source.
      images: paths of the images in it.

    Returns:
      What it says, in its order; None if there is no such file.

    Raises:
      UserError: a line is not of that form, there is none, or two files of that name differ.
    """
    paths = [path for path in files.find(*LIST_NAMES) if not of_compound_set(path)]
    if not paths:
        return None
    path, *others = paths
    for other in others:
        if files.read(other).split() != files.read(path).split():
            raise UserError(
                f"{files.where(path)} and {files.where(other)} differ. Give the folder of one of "
                "them as --source, or remove the other."
            )
    entries = []
    for where, words in read_words(files, path):
        match = _LISTED_NAME.fullmatch(words[0].lower())
        if match is None or len(words) != 2:
            raise UserError(
                f"{where}: found '{' '.join(words)[:60]}'; expected a name and a label, such as "
                "'train_00001.jpg 5'. Fetch the list again."
            )
        label = RAFDB_LIST[whole_number(words[1], where, "the label", _LABELS) - 1]
        entries.append(Entry(image_key(words[0]), match["split"], label, where))
    if not entries:
        raise UserError(f"{files.where(path)} has no line. Fetch it again.")
    return Listing(f"list file {path}", entries, images, unmarked="original")


def read_csv_files(files: SourceFiles, images: list[str]) -> Listing | None:
    """Reads `train_labels.csv` and `test_labels.csv`, with the columns image and label.

    Args:
      files: the source.
      images: paths of the images in it. Where they lie in class folders, these must say the same.

    Returns:
      What they say, in their order; None if there is neither.

    Raises:
      UserError: a row is not of that form, a file has none or is there twice, or a class folder
        says something else.
    """
    paths = {split: files.find(name) for split, name in CSV_NAMES.items()}
    entries: list[Entry] = []
    for split, found in paths.items():
        if not files.are_alike(found):
            raise UserError(
                f"{files.where(found[0])} and {files.where(found[1])}: two files of one name. Give "
                "the folder of one of them as --source."
            )
        before = len(entries)
        for path in found[:1]:
            for where, cells in read_csv(files, path, ("image", "label")):
                label = RAFDB_LIST[whole_number(cells["label"], where, "the label", _LABELS) - 1]
                if not cells["image"]:
                    raise UserError(f"{where}: the image has no name. Fetch the file again.")
                entries.append(Entry(image_key(cells["image"]), split, label, where))
            if len(entries) == before:
                raise UserError(f"{files.where(path)} has a header and no rows. Fetch it again.")
    if not entries:
        return None
    _check_folders_agree(files, entries, images)
    layout = f"csv files {', '.join(path for found in paths.values() for path in found)}"
    return Listing(layout, entries, images, unmarked="aligned")


def _check_folders_agree(files: SourceFiles, entries: list[Entry], images: list[str]) -> None:
    listed = {entry.key: entry for entry in entries}
    for path in images:
        entry = listed.get(image_key(path))
        folder = f"/{path}".split("/")[-2]
        said = _label_of_folder(folder)
        if entry and said is not None and said != entry.label:
            raise UserError(
                f"{entry.where}: image '{entry.key}' is {entry.label.name.lower()}, but "
                f"{files.where(path)} lies in the class folder of {said.name.lower()} (RAF-DB's "
                "order, 1 to 7). Fetch both again from one place; or, if you know that the folders "
                "are right, say in which order they are: --folder_order=raf or "
                "--folder_order=manet takes the labels from them."
            )


def _label_of_folder(name: str) -> Expression | None:
    number = folder_number(name)
    if number is not None and number in _LABELS:
        return RAFDB_LIST[number - 1]
    return folder_expression(name)
