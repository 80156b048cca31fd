"""Reads FER2013's faces from the csv in each form in which people have it.

The rows are checked one by one before anything is built from them: one wrong row would shift all
later votes onto other faces.
"""

from pathlib import Path
from typing import NamedTuple

from data_builders.ferplus.archives import open_csv, zip_holds
from dmfer_jax.errors import UserError
from dmfer_jax.labels import FER2013

SIDE = 48
"""Width and height of a face in pixels."""

USAGES: tuple[str, ...] = ("Training", "PublicTest", "PrivateTest")
"""The owners' names of the three splits."""

CSV_NAMES: tuple[str, ...] = ("fer2013.csv", "icml_face_data.csv")
_TAR_NAMES = ("fer2013.tar.gz", "fer2013.tgz")
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


def find_faces(source: Path) -> Path:
    """Returns the file that holds the faces.

    Args:
      source: the file itself, or a folder that holds it, directly or one folder down.

    Raises:
      UserError: there is none; the message lists what was found.
    """
    if source.is_file():
        return source
    if not source.exists():
        raise UserError(
            f"{source} does not exist. Give the folder that holds fer2013.csv (or fer2013.tar.gz, "
            "or a zip with icml_face_data.csv) and fer2013new.csv."
        )
    zips: list[Path] = []
    for folder in search_folders(source):
        for name in (*CSV_NAMES, *_TAR_NAMES):
            if (folder / name).is_file():
                return folder / name
        zips += sorted(path for path in folder.glob("*.zip") if path.is_file())
    for path in zips:
        if zip_holds(path, CSV_NAMES):
            return path
    if zips:
        return zips[0]  # to be told what is wrong with it when it is opened
    raise UserError(
        f"{source} holds no faces: no {', no '.join(CSV_NAMES)}, no fer2013.tar.gz, and no zip "
        f"with one of the two. It holds {listing(source)}. Give the folder with FER2013 as its "
        "owners hand it out."
    )


def read_faces(path: Path) -> list[Face]:
    """Reads all rows, in their order.

    Args:
      path: fer2013.csv or icml_face_data.csv, plain, in a tar.gz or in a zip.

    Returns:
      One `Face` per row; the row's place in the list is its row number everywhere else.

    Raises:
      UserError: anything that is not as the owners wrote it, with the row of the file.
    """
    faces: list[Face] = []
    with open_csv(path, CSV_NAMES) as (name, stream):
        order = _parse_header(name, stream.readline(_MAX_ROW_BYTES))
        blank = False
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_ROW_BYTES), b""), start=2):
            where = f"{name}, row {number} (the header is row 1)"
            if not line.strip():
                blank = True
                continue
            if blank:
                raise UserError(f"{where}: the row before it is blank. Remove it, or fetch again.")
            faces.append(_parse_row(where, line, order))
    if not faces:
        raise UserError(f"{name} has a header and no rows. Fetch it again.")
    return faces


def search_folders(source: Path) -> list[Path]:
    """Returns a folder and the folders directly in it, by name."""
    return [source, *sorted(path for path in source.iterdir() if path.is_dir())]


def listing(folder: Path, most: int = 12) -> str:
    """Returns what a folder holds, for a message."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "nothing"


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
