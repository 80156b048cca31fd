"""What every layout of RAF-DB comes down to: which image has which label, in which split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from dmfer_jax.errors import UserError
from dmfer_jax.labels import Expression, parse_expression

_ALIGNED_SUFFIX = "_aligned"
_OWNERS_NAME = re.compile(r"(train|test)_\d+")
_COMPOUND = "compound"


class Entry(NamedTuple):
    """One image of a list, or in a class folder.

    Attributes:
      key: its name without extension and `_aligned`, such as "train_00001".
      split: "train", "test", or "valid" where the source has a validation part.
      label: what the face shows.
      where: where that is said, for messages.
    """

    key: str
    split: str
    label: Expression
    where: str


@dataclass
class Listing:
    """What a layout says, before any image is looked for.

    Attributes:
      layout: what the source was taken for, in words.
      entries: in the order in which they shall stand in the records.
      images: paths of all images that may be meant.
      unmarked: "aligned" or "original": what images are whose names and folders do not say.
      notes: what a user should know, a sentence each.
    """

    layout: str
    entries: Sequence[Entry]
    images: Sequence[str]
    unmarked: str
    notes: list[str] = field(default_factory=list)


def folder_number(name: str) -> int | None:
    """Returns the number that a class folder is named by, such as 7; None if it is by none."""
    return int(name) if name.isascii() and name.isdigit() and len(name) < 3 else None


def folder_expression(name: str) -> Expression | None:
    """Returns the expression that a class folder is named by; None if it is by none."""
    try:
        return parse_expression(name)
    except ValueError:
        return None


def image_key(name: str) -> str:
    """Returns what an image file is called in all layouts.

    >>> image_key("Image/aligned/train_00001_aligned.JPG")
    'train_00001'
    """
    return PurePosixPath(name.replace("\\", "/")).stem.lower().removesuffix(_ALIGNED_SUFFIX)


def image_kind(path: str) -> str:
    """Returns "aligned", "original", or "" where neither the name nor a folder says it.

    >>> image_kind("Image/original/train_00001.jpg")
    'original'
    """
    *folders, name = path.lower().split("/")
    if PurePosixPath(name).stem.endswith(_ALIGNED_SUFFIX):
        return "aligned"
    # The nearest folder decides.
    return next((part for part in reversed(folders) if part in ("aligned", "original")), "")


def owners_split(key: str) -> str | None:
    """Returns the split that an owners' name tells, or None for another name."""
    match = _OWNERS_NAME.fullmatch(key)
    return match[1] if match else None


def of_compound_set(path: str) -> bool:
    """Returns whether a path leads into RAF-DB's other half, with 11 compound expressions."""
    return _COMPOUND in path.lower().split("/")[:-1]


def check_entries(entries: Sequence[Entry]) -> None:
    """Raises a `UserError` if an image stands twice, or in a split that its name contradicts."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        earlier = seen.setdefault(entry.key, entry)
        if earlier is not entry:
            if owners_split(entry.key) is None:
                raise UserError(
                    f"{entry.where}: image '{entry.key}' stands there, and in {earlier.where} as "
                    "well, and it has none of RAF-DB's names (train_00001, test_0001, ...), by "
                    "which its images are told apart. If these are other images under one name, "
                    "rename the class folders (happy, sad, ...) and use --dataset=folder/rafdb."
                )
            leak = (
                f" One is of {earlier.split}, the other of {entry.split}: a model must not be "
                "scored on what it was trained on."
            )
            raise UserError(
                f"{entry.where}: image '{entry.key}' stands there, and in {earlier.where} as well."
                f"{leak if earlier.split != entry.split else ''} Remove one of the two."
            )
        # A validation part is taken out of train.
        owner, part = owners_split(entry.key), "test" if entry.split == "test" else "train"
        if owner not in (None, part):
            raise UserError(
                f"{entry.where}: image '{entry.key}' stands in {entry.split}, and its name says "
                f"that it is of {owner}. Move it there, or fetch RAF-DB again: scores on other "
                "splits than the owners' cannot be compared."
            )
