"""What was said of photos as rows: a table to read, CSV for spreadsheets, or a line of JSON each.

A file of CSV or JSON grows photo by photo, and a later run goes on behind the last photo that is
whole in it. docs/use.md describes the columns and fields.
"""

import contextlib
import csv
import fcntl
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from dmfer_jax.errors import UserError
from dmfer_jax.reporting import plain_json
from dmfer_jax.reporting.console import whole_percent

SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "json"}
"""What the name of a file ends in -> its format."""

Record = Mapping[str, Any]
"""Of a photo or a frame: photo, seconds (None of a photo), width, height, faces, error, note.

A face: track (None of a photo), expression, probabilities, box, landmarks, score.
"""


class Csv:
    """A row for each face, and one for a photo without any.

    Spreadsheets take a cell that begins with =, +, - or @ for a formula and work it out. A stranger
    may have named a file so, or a class of a model; the name is written as ./=name, which is still
    that of the same file.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._columns = ["photo", "seconds", "faces", "face", "expression"]
        self._columns += [_no_formula(name) for name in class_names]
        self._columns += ["score", "left", "top", "right", "bottom", "error"]
        self.header = _csv_line(self._columns)
        self.begins = ""  # of a line: anything

    def format(self, record: Record) -> str:
        """Returns the rows of a photo."""
        seconds = "" if record["seconds"] is None else f"{record['seconds']:.3f}"
        photo, error = _no_formula(record["photo"]), _no_formula(record["error"])
        start = [photo, seconds, "" if error else len(record["faces"])]
        if not record["faces"]:
            empty = [""] * (len(self._columns) - len(start) - 1)
            return _csv_line([*start, *empty, error])
        return "".join(
            _csv_line(
                [*start, face["track"] or number, _no_formula(face["expression"])]
                + [f"{face['probabilities'][name]:.6f}" for name in self._class_names]
                + ["" if face["score"] is None else f"{face['score']:.4f}"]
                + [f"{edge:.1f}" for edge in face["box"]]
                + [""]
            )
            for number, face in enumerate(record["faces"], 1)
        )

    def parse(self, lines: Iterator[str]) -> Iterator["_Found"]:
        """Yields what lines behind the header say, as far as it is whole."""
        left = 0
        try:
            for row in csv.reader(lines, strict=True):
                if len(row) != len(self._columns):
                    raise ValueError(f"it has {len(row)} columns")
                left = (left or max(int(row[2] or 0), 1)) - 1
                if not left:
                    # No name that was given as a path begins with ./ by itself.
                    yield _Found(row[0].removeprefix(_HERE), bool(row[1]), bool(row[-1]))
        except csv.Error as error:
            if "unexpected end" not in str(error):  # in a quoted name with a line end in it
                raise ValueError(str(error)) from error


class Json:
    """An object on a line for each photo.

    Args:
      class_names: of the model.
    """

    header = ""
    begins = '{"photo": '

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = set(class_names)

    def format(self, record: Record) -> str:
        """Returns the line of a photo."""
        return plain_json.dump_line(record) + "\n"

    def parse(self, lines: Iterator[str]) -> Iterator["_Found"]:
        """Yields what lines say, as far as it is whole."""
        for line in lines:
            record = json.loads(line)
            if not isinstance(record, dict) or not {"photo", "seconds", "error"} <= record.keys():
                raise ValueError("it is of no photo")
            if not isinstance(record["photo"], str):
                raise ValueError("its photo is no name")
            faces = record.get("faces", [])
            if not isinstance(faces, list) or not all(map(self._is_ours, faces)):
                raise ValueError("its faces are of other classes")
            yield _Found(record["photo"], record["seconds"] is not None, bool(record["error"]))

    def _is_ours(self, face: Any) -> bool:
        said = face.get("probabilities") if isinstance(face, dict) else None
        return isinstance(said, dict) and said.keys() == self._class_names


class Table:
    """Columns for the eye, the photo's name last."""

    header = (
        f"{'face':>4}  {'expression':<12} {'probability':>11}  {'next':<22} "
        f"{'left, top, right, bottom':<26} photo\n"
    )

    def format(self, record: Record) -> str:
        """Returns the lines of a photo."""
        name = record["photo"]
        if record["seconds"] is not None:
            name += f" at {record['seconds']:.2f} s"
        if record["note"]:
            name += f" ({record['note']})"
        if not record["faces"]:
            return f"{'-':>4}  {record['error'] or 'no face':<77} {name}\n"
        return "".join(
            self._face(face, face["track"] or number, name)
            for number, face in enumerate(record["faces"], 1)
        )

    def _face(self, face: Mapping[str, Any], number: int, name: str) -> str:
        likely = sorted(face["probabilities"].items(), key=lambda item: -item[1])
        first, second = likely[0], likely[1] if len(likely) > 1 else ("", 0.0)
        box = ", ".join(f"{edge:.0f}" for edge in face["box"])
        following = f"{second[0]} {whole_percent(second[1])}"
        return (
            f"{number:>4}  {first[0]:<12} {whole_percent(first[1]):>11}  {following:<22} {box:<26} "
            f"{name}\n"
        )


class _Found(NamedTuple):
    """What a file says of a photo or a frame."""

    photo: str
    is_frame: bool
    failed: bool


class RowFile:
    """A file of rows that grows; a context manager, which holds it for this process.

    On entering, what an interrupted run left is read: a row that is not whole is cut off, and so
    are all rows of a photo that lacks some, and of a video that stands last and may have ended
    before its time, if it is looked at again.

    Args:
      path: the file; made if it is not there.
      rows: its format.
      again: names of the videos that this run can look at.

    Attributes:
      done: names of the photos and videos that are in it.
      failed: how many of them could not be read.
    """

    def __init__(self, path: Path, rows: Csv | Json, again: Collection[str] = ()) -> None:
        self._path, self._rows, self._again = path, rows, again
        self.done: set[str] = set()
        self.failed = 0

    def __enter__(self) -> Self:
        if self._path.exists() and not (self._path.is_file() or self._path.is_dir()):
            raise UserError(
                f"{self._path} is no regular file; leave --out away, and rows go to the output"
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from error
        try:
            self._lock()
            self._resume()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What a full disk has refused is tried again here, and has been told.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._file.close()

    def write(self, record: Record) -> None:
        """Appends the rows of a photo or a frame, all at once.

        Raises:
          UserError: the disk is full, or the file cannot be written for another reason.
        """
        self._append(self._rows.format(record))

    def _append(self, text: str) -> None:
        try:
            self._file.write(text.encode("utf-8", "backslashreplace"))
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written: {error.strerror}; the same command goes on from "
                "what is in it"
            ) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._path} is being written by another process; wait for it, or give another "
                "--out"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _resume(self) -> None:
        end = self._read()
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)
        if not end:
            self._append(self._rows.header)

    def _read(self) -> int:
        """Notes what is in the file, and returns where the last photo that is whole ends."""
        self._file.seek(0)
        lines = _Lines(self._file)
        header = next(lines, "") if self._rows.header else ""
        if header != self._rows.header:
            if not header and self._rows.header.encode().startswith(lines.tail):
                return 0  # there is nothing, or not even the header is whole
            raise self._is_other("its header is another")
        end = start = lines.end
        last: _Found | None = None
        try:
            for found in self._rows.parse(lines):
                if last is None or found.photo != last.photo:
                    start, last = end, found
                    self.failed += found.failed
                elif found.failed:  # why a video ended before its end
                    last = found
                    self.failed += 1
                self.done.add(found.photo)
                end = lines.end
        except (ValueError, RecursionError) as error:
            raise self._is_other(f"line {lines.number}: {error}") from error
        begins = self._rows.begins.encode()
        if lines.tail[: len(begins)] != begins[: len(lines.tail)]:
            raise self._is_other("its last line is none")
        if last and last.is_frame and last.photo in self._again:
            self.done.discard(last.photo)
            return start
        return end

    def _is_other(self, why: str) -> UserError:
        return UserError(
            f"{self._path} holds something else than rows of this model in this format ({why}); it "
            "is left as it is: give another --out"
        )


class _Lines:
    """The whole lines of a file, and where the one that was given last ends.

    Attributes:
      end: in bytes.
      number: of the line that was given last, from 1 on.
      tail: what follows the last line end, known when all lines were given.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.end = self.number = 0
        self.tail = b""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            self.tail = line
            raise StopIteration
        self.end += len(line)
        self.number += 1
        return line.decode("utf-8", "backslashreplace")


_HERE = "./"


def _no_formula(text: str) -> str:
    """A name of a file or a class, or an error, which begins with one; see `Csv`."""
    return _HERE + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv_line(cells: Sequence[Any]) -> str:
    # Before Python 3.13 the writer does not quote a carriage return, and the reader refuses it.
    quoting = csv.QUOTE_ALL if any("\r" in str(cell) for cell in cells) else csv.QUOTE_MINIMAL
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerow(cells)
    return text.getvalue()
