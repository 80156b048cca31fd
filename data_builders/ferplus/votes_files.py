"""Reads the FER+ votes: fer2013new.csv, which is needed, and label.csv, which may be there.

The two are joined to the faces in different ways, and each way has its trap. fer2013new.csv has
one row per row of fer2013.csv and is joined by position: the number in `fer0000000.png` is *not*
the row. label.csv is joined by image name, and some names stand in two rows (`name_owners`).
"""

import contextlib
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from data_builders.common.source_files import SourceFiles
from data_builders.ferplus.fer2013_files import USAGES, Face
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES, FER2013, FERPLUS_VOTES

VOTES_NAME = "fer2013new.csv"
LABEL_FOLDERS: dict[str, str] = {
    "Training": "FER2013Train",
    "PublicTest": "FER2013Valid",
    "PrivateTest": "FER2013Test",
}
"""Usage in fer2013.csv -> the FERPlus project's folder with that split's label.csv."""

_NO_EXPRESSION = [str(vote).lower() for vote in FERPLUS_VOTES[len(EXPRESSION_NAMES) :]]
_HEADER = ["usage", "image name", *EXPRESSION_NAMES, *_NO_EXPRESSION]
_PEOPLE = 10

# Of 250 rows in the files' own order 55 to 70 % have the expression of FER2013 that most voters
# chose; of rows that were moved, 11 to 24 %.
_BLOCK, _AGREEING = 250, 0.4
_MAX_BYTES = 2**26


class VoteRow(NamedTuple):
    """One row of fer2013new.csv.

    Attributes:
      usage: the split, as in fer2013.csv.
      name: such as "fer0000000.png"; "" in the rows that have none.
      votes: 10 counts, in the order of `labels.FERPLUS_VOTES`.
    """

    usage: str
    name: str
    votes: tuple[int, ...]


@contextlib.contextmanager
def files_with_votes(files: SourceFiles) -> Iterator[SourceFiles]:
    """Yields the files that hold the votes: the source, or what lies beside it if it is a file.

    Raises:
      UserError: there is no fer2013new.csv; the message lists what was found.
    """
    if files.find(VOTES_NAME):
        yield files
        return
    if files.source.is_dir():
        raise _no_votes(files)
    # Only what may hold votes: the archive with the faces need not be unpacked twice.
    with SourceFiles(files.source.parent, lambda path: "ferplus" in path.lower()) as beside:
        if not beside.find(VOTES_NAME):
            raise _no_votes(beside)
        yield beside


def find_label_files(files: SourceFiles) -> dict[str, str]:
    """Returns the label.csv of each split that has one, the nearest: usage -> path.

    They lie in `FER2013Train/` and so on, as the FERPlus project keeps them.
    """
    found: dict[str, str] = {}
    for path in files.find("label.csv"):
        for usage, folder in LABEL_FOLDERS.items():
            if PurePosixPath(path).parent.name.lower() == folder.lower():
                found.setdefault(usage, path)
    return found


def read_votes(files: SourceFiles, path: str) -> list[VoteRow]:
    """Reads fer2013new.csv, all rows in their order.

    Args:
      files: of `files_with_votes`.
      path: of the file in it.

    Raises:
      UserError: the file is not in the owners' form; the message names the row.
    """
    rows, name = _read_csv(files, path), files.where(path)
    _, header = next(rows, ("", []))
    if [cell.strip().lower() for cell in header] != _HEADER:
        raise UserError(
            f"{name}, row 1: the header is '{','.join(header)[:120]}'; expected 'Usage,Image name,"
            "neutral,...,unknown,NF'. Take the file from the FERPlus project."
        )
    votes: list[VoteRow] = []
    for where, cells in rows:
        if len(cells) != len(_HEADER):
            raise UserError(f"{where}: {len(cells)} columns; expected {len(_HEADER)}.")
        usage, name = cells[0].strip(), cells[1].strip()
        if usage not in USAGES:
            raise UserError(f"{where}: Usage is '{usage}'; expected one of {', '.join(USAGES)}.")
        votes.append(VoteRow(usage, name, _parse_votes(where, cells[2:])))
    if not votes:
        raise UserError(f"{name} has a header and no rows. Fetch it again.")
    return votes


def align(
    faces: Sequence[Face], faces_file: str, votes: Sequence[VoteRow], votes_file: str
) -> list[int]:
    """Returns which row of the votes belongs to each face.

    The files run in parallel. A face file may lack a whole split (the last one is often held
    back); then the votes of that split are passed over. It may not lack part of one.

    Args:
      faces: all rows of the faces.
      faces_file: what to call it in a message.
      votes: all rows of fer2013new.csv.
      votes_file: what to call it in a message.

    Returns:
      For each face, its row in `votes`, counted from 0; rising.

    Raises:
      UserError: the files differ in the rows of a split, in the split of a row, or in what is to
        be seen in 250 rows.
    """
    have, need = Counter(vote.usage for vote in votes), Counter(face.usage for face in faces)
    for usage, count in need.items():
        if have[usage] != count:
            raise UserError(
                f"{votes_file} has {have[usage]:,} rows of Usage {usage}, and {faces_file} has "
                f"{count:,}; they must have the same rows in the same order. Fetch the shorter "
                "one again."
            )
    rows = [row for row, vote in enumerate(votes) if vote.usage in need]
    for place, (face, row) in enumerate(zip(faces, rows, strict=True)):
        if face.usage != votes[row].usage:
            raise UserError(
                f"{votes_file}, row {row + 2}: Usage is {votes[row].usage}, but the same row of "
                f"{faces_file} (row {place + 2}) has {face.usage}. The files must have the same "
                "rows in the same order; fetch both again and do not sort them."
            )
    _check_order(faces, faces_file, [votes[row] for row in rows], votes_file)
    return rows


def _check_order(
    faces: Sequence[Face], faces_file: str, votes: Sequence[VoteRow], votes_file: str
) -> None:
    """Raises a `UserError` where FER2013's own labels and the votes are not of the same faces.

    Rows that were sorted or shuffled within a split leave every count as it is published.
    """
    agree = [
        FERPLUS_VOTES[vote.votes.index(max(vote.votes))] == FER2013[face.emotion]
        for face, vote in zip(faces, votes, strict=True)
    ]
    last = len(agree) - _BLOCK
    for start in [*range(0, last, _BLOCK), last] if last >= 0 else []:
        if (share := sum(agree[start : start + _BLOCK]) / _BLOCK) < _AGREEING:
            raise UserError(
                f"{faces_file}, rows {start + 2} to {start + _BLOCK + 1}: {share:.0%} of the "
                f"expressions are those that most voters chose in {votes_file}; it should be about "
                "62 %. The rows of one of the files were moved. Fetch both again, and do not sort "
                "or shuffle them."
            )


def name_owners(votes: Sequence[VoteRow]) -> dict[str, int]:
    """Returns which row each image name belongs to.

    Names rise with the rows, except that in the complete file four rows (5274, 5348, 15835 and
    34334) repeat the name of a row elsewhere. A name that stands twice belongs to the row where
    it fits between its neighbours' names: 6968, 11817, 8423 and 33200. (In rows 33200 and 34334
    the votes differ, and label.csv has those of 33200.)
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    named = [row for row, vote in enumerate(votes) if vote.name]
    for place, row in enumerate(named):
        rows_of[votes[row].name].append(place)
    return {
        name: named[min(places, key=lambda place: (not _fits(votes, named, place), place))]
        for name, places in rows_of.items()
    }


def read_label_files(
    files: SourceFiles, paths: dict[str, str], votes: Sequence[VoteRow]
) -> np.ndarray:
    """Reads the label.csv files and joins them to the rows by name.

    Args:
      files: of `files_with_votes`.
      paths: from `find_label_files`.
      votes: all rows of fer2013new.csv.

    Returns:
      [n, 10] int32: the votes in label.csv of each row of `votes`; -1 in rows without a name, in
      rows that repeat another row's name, and in splits without a file.

    Raises:
      UserError: a file is not in the owners' form, names an image that fer2013new.csv does not
        have in that split, names one twice, or leaves one out.
    """
    joined = np.full((len(votes), len(FERPLUS_VOTES)), -1, dtype=np.int32)
    owners = name_owners(votes)
    for usage, path in paths.items():
        missing = {name: row for name, row in owners.items() if votes[row].usage == usage}
        for where, cells in _read_csv(files, path):
            if len(cells) != len(_HEADER):
                raise UserError(
                    f"{where}: {len(cells)} columns; expected {len(_HEADER)}: image name, box, "
                    "10 votes."
                )
            row = missing.pop(cells[0].strip(), None)
            if row is None:
                raise UserError(_explain_name(where, cells[0].strip(), usage, owners, votes))
            joined[row] = _parse_votes(where, cells[2:])
        if missing:
            name = next(iter(missing))
            raise UserError(
                f"{files.where(path)} lacks {len(missing):,} of the images that {VOTES_NAME} has "
                f"in {usage}, the first being {name}. The file may be cut short; fetch it again."
            )
    return joined


def _fits(votes: Sequence[VoteRow], named: Sequence[int], place: int) -> bool:
    name = votes[named[place]].name
    after_previous = place == 0 or votes[named[place - 1]].name < name
    before_next = place + 1 == len(named) or name < votes[named[place + 1]].name
    return after_previous and before_next


def _explain_name(
    where: str, name: str, usage: str, owners: dict[str, int], votes: Sequence[VoteRow]
) -> str:
    if name not in owners:
        problem = f"{VOTES_NAME} has no image of that name"
    elif (other := votes[owners[name]].usage) != usage:
        problem = f"in {VOTES_NAME} it belongs to {other}, not to {usage}"
    else:
        problem = "it stands in the file twice"
    return f"{where}: image '{name}': {problem}. Take both files from the same FERPlus release."


def _parse_votes(where: str, cells: Sequence[str]) -> tuple[int, ...]:
    counts: list[int] = []
    for column, cell in zip(_HEADER[2:], cells, strict=True):
        text = cell.strip()
        if not (text.isascii() and text.isdigit() and int(text[:9]) <= _PEOPLE and len(text) < 9):
            raise UserError(
                f"{where}: {column} has '{text[:40]}' votes; expected a whole number from 0 to "
                f"{_PEOPLE}."
            )
        counts.append(int(text))
    if sum(counts) not in (_PEOPLE, _PEOPLE - 1):  # one row of the real files has nine
        raise UserError(
            f"{where}: {sum(counts)} votes in all; expected {_PEOPLE}, one of each person. Fetch "
            "the file again."
        )
    return tuple(counts)


def _read_csv(files: SourceFiles, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yields "file, row 5" and the cells of each row; blank rows may only stand at the end.

    (A blank row in between may stand for one that was lost, and would shift all votes after it.)
    """
    name, content = files.where(path), files.read(path, _MAX_BYTES)
    if not content:
        raise UserError(f"{name} is empty (0 bytes). Fetch it again.")
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        blank = False
        for cells in reader:
            where = f"{name}, row {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                blank = True
                continue
            if blank:
                raise UserError(f"{where}: the row before it is blank. Remove it.")
            yield where, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name} cannot be read as a csv file: {error}. Fetch it again.") from error


def _no_votes(files: SourceFiles) -> UserError:
    return UserError(
        f"{files.source} holds no {VOTES_NAME}, the FER+ votes; {files.describe()}. Take "
        f"{VOTES_NAME} from the FERPlus project (github.com/microsoft/FERPlus) and put it there."
    )
