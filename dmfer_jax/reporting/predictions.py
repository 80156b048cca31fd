"""What a system said of each image: as CSV, which any other system can write too, and as npz.

The CSV has a header and a row for each image of one split:

    name,neutral,happiness,...
    fer0032220.png,0.9731,0.0102,...

`name` is what `data.sources.Split.identifiers` calls the image. The classes may stand in any order.
A column `label` behind the name is the true class, for whoever reads the file; nothing here reads
it back. A run keeps what it said of all its splits in one npz file beside its report.
"""

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmfer_jax import files
from dmfer_jax.errors import UserError

StrPath = str | os.PathLike[str]

SUM_TOLERANCE = 1e-3
"""How far the probabilities of a row may be from 1 together: four digits after the point do."""

# Kinds of the arrays of a run, by NumPy's letters.
_KINDS = {"names": "U", "labels": "i", "probabilities": "f"}


class Predictions(NamedTuple):
    """What was said of one split.

    Attributes:
      names: str `[n]`, of the images; each once.
      labels: int32 `[n]`, true classes.
      probabilities: float32 `[n, K]`, rows sum to 1.
    """

    names: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def write_predictions(
    path: StrPath,
    names: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
    probabilities: np.ndarray,
    labels: Sequence[str] | None = None,
) -> None:
    """Writes predictions of one split as CSV; the file is whole or not there.

    Args:
      path: where to; an older file is replaced.
      names: n names, each once.
      class_names: K names.
      probabilities: `[n, K]`. A float32 is written with as many digits as it takes to read it back.
      labels: names of the n true classes, for a column `label`; none if not given.

    Raises:
      UserError: the file cannot be written.
    """
    texts = np.asarray(probabilities, np.float32).astype(str).tolist()
    head = [[name] for name in names]
    if labels is not None:
        head = [[name, label] for name, label in zip(names, labels, strict=True)]

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["name", *(["label"] if labels is not None else []), *class_names])
            rows.writerows(first + row for first, row in zip(head, texts, strict=True))

    files.write_atomically(path, write)


def read_predictions(path: StrPath, class_names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Reads predictions of one split, of this system or of any other.

    Args:
      path: of a CSV file as above.
      class_names: the K classes that it must have, and no other.

    Returns:
      The n names, in the order of the file, and the probabilities float32 `[n, K]`, in the order of
      `class_names`.

    Raises:
      UserError: there is no such file; or which line is wrong, and how.
    """
    rows = _read_rows(Path(path))
    columns, width = _find_columns(Path(path), next(rows, (1, []))[1], class_names)
    seen: dict[str, int] = {}
    probabilities: list[list[float]] = []
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != width:
            raise UserError(f"{where}: found {len(row)} columns; the header has {width}")
        name = row[0]
        if not name:
            raise UserError(f"{where}: the name is empty; expected that of an image")
        if name in seen:
            raise UserError(
                f"{where}: the name '{name}' stands in line {seen[name]}, too; each image is to "
                "have one row"
            )
        seen[name] = line
        probabilities.append(_read_row(where, [row[column] for column in columns], class_names))
    if not seen:
        raise UserError(f"{path} has a header and no rows; expected one for each image")
    return list(seen), np.array(probabilities, np.float32)


def write_run_predictions(
    path: StrPath, class_names: Sequence[str], splits: Mapping[str, Predictions]
) -> None:
    """Writes what a run said of its splits as npz; the file is whole or not there.

    Args:
      path: where to, ending in ".npz"; an older file is replaced.
      class_names: K names, in label order.
      splits: {split: predictions}.
    """
    arrays = {
        f"{split}/{field}": values
        for split, found in splits.items()
        for field, values in found._asdict().items()
    }
    files.write_atomically(
        path, lambda part: np.savez_compressed(part, class_names=np.array(class_names), **arrays)
    )


def read_run_predictions(path: StrPath) -> tuple[tuple[str, ...], dict[str, Predictions]]:
    """Reads what `write_run_predictions` wrote.

    Returns:
      The class names, and {split: predictions}.

    Raises:
      UserError: there is no such file, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = {key.partition("/")[0]: None for key in arrays if key.endswith("/names")}
            found = {
                split: Predictions(
                    *(_take(arrays, f"{split}/{field}", kind) for field, kind in _KINDS.items())
                )
                for split in splits
            }
            class_names = tuple(_take(arrays, "class_names", "U").tolist())
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; a run writes it beside its report when training ends"
        ) from None
    except Exception as error:  # a damaged header makes Python's parser raise nearly anything
        raise UserError(f"{path} cannot be read as predictions of a run ({error})") from error
    for split, one in found.items():
        shape = (len(one.labels), len(class_names))
        if one.probabilities.shape != shape or len(one.names) != len(one.labels):
            raise UserError(
                f"{path}: split '{split}' has {len(one.names)} names, {len(one.labels)} labels and "
                f"probabilities of shape {one.probabilities.shape}; expected {shape}"
            )
    return class_names, found


def _take(arrays: Any, name: str, kind: str) -> np.ndarray:
    """Returns an array of a file, if it is of that kind."""
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype.kind != kind or not array.ndim:
        raise ValueError(f"'{name}' is no array of the type that a run writes")
    return array


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV file that are not empty, each with the number of its line."""
    try:
        # Spreadsheets put a byte order mark in front.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                if row:
                    yield rows.line_num, row
    except OSError as error:
        raise UserError(
            f"{path} cannot be read as predictions: {error.strerror or error}; expected a CSV file"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as predictions ({error}); expected a CSV file in UTF-8"
        ) from error


def _find_columns(
    path: Path, header: list[str], class_names: Sequence[str]
) -> tuple[list[int], int]:
    """Returns the column of each class, and how many columns there are."""
    expected = f"expected name,{','.join(class_names)}"
    if not header or header[0] != "name":
        found = f"begins with '{header[0][:40]}'" if header else "is not there"
        raise UserError(f"{path}, line 1: the header {found}; {expected}")
    labelled = header[1:2] == ["label"]
    first = 2 if labelled else 1
    there = header[first:]
    missing = [name for name in class_names if name not in there]
    other = [name for name in there if name not in class_names]
    twice = [name for name in class_names if there.count(name) > 1]
    for problem, names in (("lacks", missing), ("has", other), ("has twice", twice)):
        if names:
            raise UserError(f"{path}, line 1: the header {problem} '{names[0][:40]}'; {expected}")
    return [first + there.index(name) for name in class_names], len(header)


def _read_row(where: str, texts: Sequence[str], class_names: Sequence[str]) -> list[float]:
    values = []
    for name, text in zip(class_names, texts, strict=True):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise UserError(
                f"{where}: found '{text[:40]}' for {name}; expected a probability, 0 to 1"
            )
        values.append(value)
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise UserError(
            f"{where}: the probabilities sum to {sum(values):.6g}; expected 1, to within "
            f"{SUM_TOLERANCE:g}. Scores must be turned into probabilities first, by a softmax; "
            "rounded ones need more digits."
        )
    return values
