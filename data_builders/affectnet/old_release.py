"""Reads AffectNet's release of 2017: photos of the web, and two lists that say where the faces are.

training.csv    subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,
                expression,valence,arousal
validation.csv  the same
Manually_Annotated_Images/103/<hash>.jpg
"""

import math
from collections import Counter

import numpy as np

from data_builders.affectnet.affect import check_affect
from data_builders.common.source_files import IMAGE_SUFFIXES, SourceFiles
from data_builders.common.survey import Rows, some
from data_builders.common.tables import read_csv, whole_number
from dmfer_jax.errors import UserError
from dmfer_jax.labels import AFFECTNET

TRAINING, VALIDATION = "training.csv", "validation.csv"
"""The owners' two lists."""

HEADER = (
    "subdirectory_filepath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
"""Their columns, in lower case."""

_PATH, _BOX, _EXPRESSION, _AFFECT = HEADER[0], HEADER[1:5], HEADER[6], HEADER[7:]
_NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}
_IMAGES = "manually_annotated_images"


def find_lists(files: SourceFiles) -> dict[str, str]:
    """Returns {`TRAINING` or `VALIDATION`: its path}, of those that are there.

    Raises:
      UserError: a list is there twice, and they are not the same.
    """
    found = {name: files.find(name) for name in (TRAINING, VALIDATION)}
    for name, paths in found.items():
        if not files.are_alike(paths):
            raise UserError(
                f"{files.source} holds {name} {len(paths)} times: {some(paths)}. Take all but one "
                "of them away."
            )
    return {name: paths[0] for name, paths in found.items() if paths}


def read_lists(
    files: SourceFiles, lists: dict[str, str], cropped: bool
) -> tuple[dict[str, Rows], list[str], list[str]]:
    """Reads the lists and finds their images.

    Args:
      files: the source.
      lists: of `find_lists`.
      cropped: whether the images shall be cropped to the faces.

    Returns:
      The images of each list in its order, notes, and problems; see `Survey`.

    Raises:
      UserError: a row cannot be read or has a value that is not allowed.
    """
    images = _Images(files)
    tables, notes, problems = {}, [], []
    for name, path in lists.items():
        table = _Table(cropped)
        for where, cells in read_csv(files, path, HEADER, without_header=HEADER):
            table.add(where, cells, images)
        tables[name] = table.rows()
        notes += table.notes(name)
        problems += table.problems(path)
    if len(lists) == 2:
        problems += images.unlisted()
    else:
        notes.append(
            f"Only {next(iter(lists))} is there, so images that it does not list are left alone."
        )
    return tables, notes, problems


class _Images:
    """Finds images by the lists' paths, whatever folders lie above."""

    def __init__(self, files: SourceFiles):
        self._files = files
        self._listed: dict[str, set[str]] = {}  # {folder of the source: names}
        self._candidates: dict[str, list[str]] = {}  # {folder of a list: folders of the source}
        self._spellings: dict[str, dict[str, str]] = {}  # {folder: {in lower case: name}}

    def find(self, path: str) -> str | None:
        """Returns where an image lies in the source; None if it does not.

        Raises:
          UserError: it lies in two places.
        """
        inside, _, name = path.rpartition("/")
        if inside not in self._candidates:
            ends = f"/{inside}".lower() if inside else ""
            self._candidates[inside] = [
                folder for folder in self._files.folders() if f"/{folder}".lower().endswith(ends)
            ]
        found = [
            (folder, spelt)
            for folder in self._candidates[inside]
            if (spelt := self._spelt(folder, name))
        ]
        if len(found) > 1:
            # Crops and copies often lie beside the owners' images, under the same names.
            found = [place for place in found if _IMAGES in place[0].lower().split("/")] or found
        if len(found) > 1:
            raise UserError(
                f"{self._files.source} holds the image {path} in {found[0][0]} and in "
                f"{found[1][0]}. Take one of the two away, or name the folder that holds the "
                "owners' images Manually_Annotated_Images."
            )
        if not found:
            return None
        folder, name = found[0]
        self._listed.setdefault(folder, set()).add(name)
        return f"{folder}/{name}" if folder else name

    def unlisted(self) -> list[str]:
        """Returns what to say of the images that lie beside listed ones and are not listed."""
        above = {folder.rpartition("/")[0] for folder in self._listed}
        found = [
            f"{folder}/{name}"
            for folder in self._files.folders()
            if folder in self._listed or folder.rpartition("/")[0] in above
            for name in self._files.names_in(folder)
            if name.lower().endswith(IMAGE_SUFFIXES) and name not in self._listed.get(folder, ())
        ]
        if not found:
            return []
        return [f"{len(found):,} images stand in neither list: {some(found)}"]

    def _spelt(self, folder: str, name: str) -> str | None:
        """Returns a file's name as it is on disk: .JPG may have become .jpg, or all are .png."""
        if f"{folder}/{name}" in self._files or (not folder and name in self._files):
            return name
        if folder not in self._spellings:
            names = self._files.names_in(folder)
            images = [spelt for spelt in names if spelt.lower().endswith(IMAGE_SUFFIXES)]
            times = Counter(_stem(spelt) for spelt in images)
            self._spellings[folder] = {
                **{_stem(spelt): spelt for spelt in images if times[_stem(spelt)] == 1},
                **{spelt.lower(): spelt for spelt in names},
            }
        spellings = self._spellings[folder]
        return spellings.get(name.lower()) or spellings.get(_stem(name))


class _Table:
    """The rows of one list."""

    def __init__(self, cropped: bool):
        self._cropped = cropped
        self._names: list[str] = []
        self._files: list[str] = []
        self._labels: list[int] = []
        self._affect: tuple[list[float], list[float]] = [], []
        self._boxes: list[tuple[float, ...]] = []
        self._dropped = dict.fromkeys(_NO_EXPRESSION, 0)
        self._missing: list[str] = []
        self._boxless: list[str] = []

    def add(self, where: str, cells: dict[str, str], images: _Images) -> None:
        """Takes a row, which `where` names in messages."""
        name = cells[_PATH].replace("\\", "/").removeprefix("./").lstrip("/")
        if not name:
            raise UserError(f"{where}: the image has no name. Fetch the list again.")
        label = whole_number(cells[_EXPRESSION], where, "the expression", range(11))
        file = images.find(name)
        if label in _NO_EXPRESSION:
            self._dropped[label] += 1
            return
        affect = [
            check_affect(_number(cells[column]), f"{where}: {column} is '{cells[column][:40]}'")
            for column in _AFFECT
        ]
        if file is None:
            self._missing.append(name)
            return
        if self._cropped:
            box = _box([cells[column] for column in _BOX])
            if box is None:
                self._boxless.append(f"{where.rpartition(', ')[2].split(' (')[0]} ({name})")
                return
            self._boxes.append(box)
        self._names.append(name)
        self._files.append(file)
        self._labels.append(AFFECTNET[label])
        for values, value in zip(self._affect, affect, strict=True):
            values.append(value)

    def rows(self) -> Rows:
        """Returns the rows that can be used."""
        valence, arousal = (np.asarray(values, np.float32) for values in self._affect)
        return Rows(
            names=self._names,
            files=self._files,
            labels=np.asarray(self._labels, np.int64),
            boxes=np.asarray(self._boxes).reshape(-1, 4) if self._cropped else None,
            fields={"valence": valence, "arousal": arousal},
        )

    def notes(self, name: str) -> list[str]:
        """Returns how many rows of the list `name` were left out as a matter of course."""
        dropped = [
            f"{number:,} {label} ({_NO_EXPRESSION[label]})"
            for label, number in self._dropped.items()
            if number
        ]
        return [f"{name}: rows without an expression are left out: {', '.join(dropped)}."] * bool(
            dropped
        )

    def problems(self, where: str) -> list[str]:
        """Returns what does not fit together; `where` is the list."""
        problems = []
        if self._missing:
            problems.append(
                f"{where}: {len(self._missing):,} images are listed and missing: "
                f"{some(self._missing)}"
            )
        if self._boxless:
            problems.append(
                f"{where}: {len(self._boxless):,} rows have no usable face box (four numbers, "
                f"width and height above 0): {some(self._boxless)}"
            )
        return problems


def _stem(name: str) -> str:
    return name.rpartition(".")[0].lower()


def _box(cells: list[str]) -> tuple[float, ...] | None:
    left, top, width, height = (_number(cell) for cell in cells)
    box = left, top, left + width, top + height
    return box if width > 0 and height > 0 and all(map(math.isfinite, box)) else None


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
