"""The images of a list among built records: a split of its own, joined by exact name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from dmfer_jax.data.lists import NamedList, without_variant
from dmfer_jax.data.sources import Images, Split
from dmfer_jax.errors import UserError


class Selection(NamedTuple):
    """What of a list is in the records.

    Attributes:
      split: the images that were found, in the list's order, with the records' own labels. It is
        named as the list and may be empty.
      missing: keys of the list that no record has: the protocol dropped the face, the classes do
        not hold its expression, or the build lacks it.
      relabelled: how many of the images found have another label in the list than in the records.
    """

    split: Split
    missing: tuple[str, ...]
    relabelled: int


def select(splits: Sequence[Split], found: NamedList, dataset: str) -> Selection:
    """Finds a list's images among the records, by exact name.

    Args:
      splits: of one dataset; a name that stands in several counts in the first.
      found: the list.
      dataset: that the splits are of; a variant behind a slash does not matter.

    Raises:
      UserError: the list is of another dataset.
    """
    if without_variant(dataset) != found.dataset:
        raise UserError(f"the {found.name} list is of {found.dataset}, the records of '{dataset}'")
    places: dict[str, tuple[int, int]] = {}  # key: split, position in the split
    for number, split in enumerate(splits):
        for position, name in enumerate(split.names.tolist()):
            places.setdefault(record_key(name), (number, position))
    entries = [entry for entry in found.entries if entry.key in places]
    which = np.array([places[entry.key] for entry in entries], np.int64).reshape(-1, 2)
    split = _gather(splits, which, found.name)
    said = [split.class_names[label] for label in split.labels]
    return Selection(
        split=split,
        missing=tuple(entry.key for entry in found.entries if entry.key not in places),
        relabelled=sum(
            entry.label.name.lower() != name for entry, name in zip(entries, said, strict=True)
        ),
    )


def record_key(name: str) -> str:
    """Returns what the lists call the image that a record's name stands for.

    >>> record_key("test/1/test_0004_aligned.JPG")
    'test_0004'
    """
    # Copies of a dataset differ in upper and lower case, its own names do not.
    return PurePosixPath(name).stem.lower().removesuffix("_aligned")


def explain_nothing_found(splits: Sequence[Split], found: NamedList) -> str:
    """Returns why none of a list's images may be among the records, for whoever wonders."""
    keys = [record_key(name) for split in splits for name in split.names[:100].tolist()]
    if found.dataset == "affectnet" and keys and all(key.isdigit() for key in keys):
        return (
            f"{found.name}: not scored. The list names images of AffectNet's old release by their "
            "hash, and these records are of the new release, whose files are numbered; only "
            "records built from the old release can be scored on it."
        )
    looked = ", ".join(split.name for split in splits)
    example = next((key for key in keys if key), "")
    records = f"whose records have names such as '{example}'" if example else "without any names"
    return (
        f"{found.name}: not scored. None of its {len(found.entries):,} names, such as "
        f"'{found.entries[0].key}', is in {looked}, {records}; name the split that has them in "
        "--splits."
    )


class _SelectedImages:
    """Images of one or more splits in a new order, read when they are asked for."""

    def __init__(self, sources: Sequence[Images], which: np.ndarray):
        """Serves, for each row of `which` `[n, 2]`, the image of a source at a position."""
        self._sources, self._which = sources, which

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, index: Any) -> np.ndarray:
        numbers, positions = self._which[index].T
        if numbers.ndim == 0:
            return self._sources[numbers][int(positions)]
        by_source = np.argsort(numbers, kind="stable")
        images = np.concatenate(
            [self._sources[number][positions[numbers == number]] for number in np.unique(numbers)]
        )
        return images[np.argsort(by_source)]


def _gather(splits: Sequence[Split], which: np.ndarray, name: str) -> Split:
    """Puts examples of splits, given as (split, position), into one split."""
    starts = np.cumsum([0, *(len(split) for split in splits)])
    rows = starts[which[:, 0]] + which[:, 1]

    def pick(field: str) -> np.ndarray:
        return np.concatenate([getattr(split, field) for split in splits])[rows]

    attributes = [key for key in splits[0].groups if all(key in split.groups for split in splits)]
    fields = ("labels", "targets", "rows", "repeated", "names")
    return replace(
        splits[0],
        name=name,
        images=_SelectedImages([split.images for split in splits], which),
        groups={key: np.concatenate([s.groups[key] for s in splits])[rows] for key in attributes},
        **{field: pick(field) for field in fields},
    )
