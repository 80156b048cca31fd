"""Reads FER2013's faces from the csv in each form in which people have it.

The rows are checked one by one before anything is built from them: one wrong row would shift all
later votes onto other faces.
"""

import io
from pathlib import PurePosixPath
from typing import NamedTuple

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import some
from dmfer_jax.errors import UserError
from dmfer_jax.labels import FER2013

SIDE = 48
"""Width and height of a face in pixels."""

USAGES: tuple[str, ...] = ("Training", "PublicTest", "PrivateTest")
"""The owners' names of the three splits."""

CSV_NAMES: tuple[str, ...] = ("fer2013.csv", "icml_face_data.csv")
"""Of the file with the faces, in any case; the first one is preferred."""

MAX_FACES = 100_000
"""What is taken into memory; fer2013.csv has 35,887 rows."""

_NO_FACES = ("fer2013new.csv", "label.csv")  # files of the votes, which may be given as well
_COLUMNS = ("emotion", "pixels", "usage")
_PIXELS = SIDE * SIDE
# A row has 2,304 numbers of up to three digits, about 9 kB.
_MAX_ROW_BYTES = 2**16
# Stricter than int(), which takes "+5" and "1_0", and faster: 0.23 ms a face against 0.31.
_PIXEL_VALUES: dict[bytes, int] = {str(value).encode(): value for value in range(256)}


class Face(NamedTuple):
    """One row of fer2013.csv.

    Attributes:
      emotion: 0 to 6, in FER2013's own order (`labels.FER2013`).
      pixels: 2,304 grey values, row by row from the top left, one byte each.
      usage: one of `USAGES`.
    """

    emotion: int
    pixels: bytes
    usage: str


def find_faces(files: SourceFiles) -> str:
    """Returns the path of the csv that holds the faces: the one that was given, or the nearest.

    Raises:
      UserError: there is none; the message lists what was found.
    """
    given = files.source.name
    # A csv stands for its folder, but if it may hold faces it is meant itself.
    if files.source.is_file() and given.lower().endswith(".csv") and given.lower() not in _NO_FACES:
        return given
    found = files.find(*CSV_NAMES)
    if not found:
        packed = f" (looked into {some(files.archives)})" if files.archives else ""
        raise UserError(
            f"{files.source} holds no faces: no {' and no '.join(CSV_NAMES)}, as such or in a zip "
            f"or tar.gz; {files.describe()}{packed}. Give the folder with FER2013 as its owners "
            "hand it out. (Copies as folders of images have lost the rows that the votes are of; "
            "they can be read as --dataset=folder/fer2013, with FER2013's own labels.)"
        )
    return min(found, key=lambda path: (path.count("/"), _rank(path), path))


def read_faces(files: SourceFiles, path: str) -> list[Face]:
    """Reads all rows, in their order.

    Args:
      files: the source.
      path: of fer2013.csv or icml_face_data.csv in it.

    Returns:
      One `Face` per row; the row's place in the list is its row number everywhere else.

    Raises:
      UserError: anything that is not as the owners wrote it, with the row of the file.
    """
    faces: list[Face] = []
    name = files.where(path)
    with files.open(path) as file:
        stream = io.BufferedReader(file, 2**18)  # pyright: ignore[reportArgumentType]
        header = stream.readline(_MAX_ROW_BYTES)
        if not header:
            raise UserError(f"{name} is empty (0 bytes). Fetch it again.")
        order = _parse_header(name, header)
        blank = False
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_ROW_BYTES), b""), start=2):
            where = f"{name}, row {number} (the header is row 1)"
            if not line.strip():
                blank = True
                continue
            if blank:
                raise UserError(f"{where}: the row before it is blank. Remove it, or fetch again.")
            if len(faces) == MAX_FACES:
                raise UserError(
                    f"{where}: more than {MAX_FACES:,} rows; fer2013.csv has 35,887. This is not "
                    "the file its owners hand out."
                )
            faces.append(_parse_row(where, line, order))
    if not faces:
        raise UserError(f"{name} has a header and no rows. Fetch it again.")
    return faces


def _rank(path: str) -> int:
    return CSV_NAMES.index(PurePosixPath(path).name.lower())


def _parse_header(name: str, line: bytes) -> list[int]:
    """Returns where emotion, pixels and usage stand in a row."""
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    columns = [column.strip(' "').lower() for column in text.split(",")]
    if sorted(columns) != sorted(_COLUMNS):
        raise UserError(
            f"{name}, row 1: the header is '{text[:80]}'; expected 'emotion,pixels,Usage' "
            "(fer2013.csv) or 'emotion, Usage, pixels' (icml_face_data.csv). Give one of these."
        )
    return [columns.index(column) for column in _COLUMNS]


def _parse_row(where: str, line: bytes, order: list[int]) -> Face:
    if len(line) >= _MAX_ROW_BYTES:
        raise UserError(f"{where}: longer than {_MAX_ROW_BYTES:,} bytes; a face has about 9,000.")
    cells = line.split(b",")
    if len(cells) != len(_COLUMNS):
        raise UserError(
            f"{where}: {len(cells)} columns; expected {len(_COLUMNS)} (emotion, pixels, Usage). "
            "The file may be cut short; fetch it again."
        )
    emotion, pixels, usage = (cells[index].strip(b' "\r\n') for index in order)
    if usage.decode("utf-8", "replace") not in USAGES:
        raise UserError(f"{where}: Usage is {_show(usage)}; expected one of {', '.join(USAGES)}.")
    if (value := _PIXEL_VALUES.get(emotion, -1)) not in range(len(FER2013)):
        raise UserError(f"{where}: emotion is {_show(emotion)}; expected 0 to {len(FER2013) - 1}.")
    return Face(value, _parse_pixels(where, pixels), usage.decode())


def _parse_pixels(where: str, text: bytes) -> bytes:
    values = text.split()
    if len(values) != _PIXELS:
        raise UserError(
            f"{where}: {len(values):,} pixels; expected {_PIXELS:,} ({SIDE} x {SIDE}). Fetch the "
            "file again, or mend the row; leaving it out would shift all votes after it."
        )
    try:
        return bytes(map(_PIXEL_VALUES.__getitem__, values))
    except KeyError:
        place = next(i for i, value in enumerate(values) if value not in _PIXEL_VALUES)
        raise UserError(
            f"{where}: pixel {place + 1} is {_show(values[place])}; expected a whole number from "
            "0 to 255. Fetch the file again, or mend the row."
        ) from None


def _show(cell: bytes) -> str:
    return f"'{cell[:40].decode('utf-8', 'replace')}'"
