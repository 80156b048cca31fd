"""What a source was found to hold, before any record is written.

A survey reads lists, annotations and names, and no image: so it is quick, and everything that can
be known to be wrong is known before the first record is written.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmfer_jax.errors import UserError


@dataclass
class Rows:
    """The images of one split, in the order in which they shall stand in the records.

    Attributes:
      names: of the images, as the dataset's owners call them; each stands once in a dataset.
      files: where each lies in the source.
      labels: int `[n]`, positions in the survey's `class_names`.
      boxes: None, or float `[n, 4]`: the face's left, top, right and bottom in pixels of the
        upright image, to which it is cropped.
      fields: what else a record holds: {feature: n values}.

    Raises:
      UserError: a name is no text; on most systems any bytes may name a file.
    """

    names: Sequence[str]
    files: Sequence[str]
    labels: np.ndarray
    boxes: np.ndarray | None = None
    fields: dict[str, Sequence[Any] | np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            check_text(name)

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Survey:
    """A source that was recognised.

    Attributes:
      layout: what it was taken for, in words.
      variant: the builder's config, such as "aligned"; "" where a dataset has one form only.
      class_names: in label order.
      splits: {split: its rows}.
      published: {split: images per class, in label order}, of the splits whose counts are known;
        "train+valid" is the two together.
      notes: what a user should know, a sentence each.
      problems: what does not fit together (an image listed and missing, one that is not listed),
        a sentence each. They stop a build unless mismatches are allowed; the images concerned
        are not among the rows. They name files by their path in the source, which may be moved.
    """

    layout: str
    variant: str
    class_names: tuple[str, ...]
    splits: dict[str, Rows]
    published: dict[str, tuple[int, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def counts(self, split: str) -> tuple[int, ...]:
        """Returns the images of a split per class, in label order.

        Args:
          split: its name, or several joined by "+": those of them that there are, together.
        """
        parts = [self.splits[part].labels for part in _parts(split, self.splits)]
        labels = np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
        return tuple(np.bincount(labels, minlength=len(self.class_names)).tolist())

    def fingerprint(self) -> str:
        """Returns a text that two surveys share if they have the same rows, whatever packs them."""
        digest = hashlib.sha256()
        for split, rows in self.splits.items():
            digest.update(f"{split} {len(rows)} {self.class_names}".encode())
            for name in rows.names:
                digest.update(f"{name}\n".encode())
            columns = {**rows.fields, "": rows.labels, " ": rows.boxes}
            for name in sorted(columns):
                _add(digest, columns[name])
        return digest.hexdigest()

    def mismatches(self) -> list[str]:
        """Returns where counts differ from the published ones, a sentence each."""
        return [
            f"{split}, {name}: {found:,} images; published are {expected:,}"
            for split, published in self.published.items()
            if _parts(split, self.splits)
            for name, found, expected in zip(
                self.class_names, self.counts(split), published, strict=True
            )
            if found != expected
        ]

    def differs(self) -> list[str]:
        """Returns all in which a source is not as it should be, a sentence each."""
        return [*self.problems, *self.mismatches()]


def _add(digest: Any, values: Sequence[Any] | np.ndarray | None) -> None:
    if isinstance(values, np.ndarray):
        digest.update(values.tobytes())
        return
    for value in values or ():
        digest.update(value if isinstance(value, bytes) else repr(value).encode())


def _parts(split: str, splits: dict[str, Rows]) -> list[str]:
    """Returns those of the splits joined by "+" that there are."""
    return [part for part in split.split("+") if part in splits]


def check_all_differ(splits: dict[str, Rows], where: str) -> None:
    """Raises a `UserError` if a name or a file stands twice, in one split or in two.

    (One file may go by two names, where they differ in case or in their endings.)

    Args:
      splits: of the survey.
      where: what holds the names, for the message.
    """
    _check_differ({split: rows.names for split, rows in splits.items()}, where)
    _check_differ({split: rows.files for split, rows in splits.items()}, where)


def _check_differ(columns: dict[str, Sequence[str]], where: str) -> None:
    owners: dict[str, str] = {}
    for split, names in columns.items():
        for name in names:
            if (owner := owners.setdefault(name, split)) != split:
                raise UserError(
                    f"{where}: '{name}' stands in {owner} and in {split}. A model must not be "
                    "scored on what it was trained on; remove it from one of the two."
                )
        if len(set(names)) < len(names):
            seen: set[str] = set()
            twice = next(name for name in names if name in seen or seen.add(name))
            raise UserError(f"{where}: '{twice}' stands twice in {split}. Remove one of the two.")


def check_text(name: str) -> None:
    """Raises a `UserError` if a file's name is no text: systems take any bytes for one."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the file name {name!r} is in no encoding that is known. Rename the file."
        ) from None


def some(names: Sequence[str], most: int = 5) -> str:
    """Returns the first few of many names, for a message.

    >>> some(["a", "b", "c"], most=2)
    'a, b, ... (3 in all)'
    """
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text}, ... ({len(names):,} in all)"
