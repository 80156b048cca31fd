"""Reads annotation tables: csv files with a header, and lists of words."""

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence

from data_builders.common.source_files import SourceFiles
from dmfer_jax.errors import UserError

_WHOLE_NUMBER = re.compile(r"(-?\d{1,9})(\.0*)?", re.ASCII)  # int() takes "1_0", "٣" and "+3"


def read_csv(
    files: SourceFiles, path: str, columns: Sequence[str], without_header: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of a csv file; byte order marks, CRLF and spaces are no matter.

    Cells may be separated by semicolons or tabs as well: spreadsheets save so in much of Europe.
    Rows without any content, which they leave at the end, are passed over.

    Args:
      files: the source.
      path: of the csv file in it.
      columns: those that must be there, in lower case; others are passed over.
      without_header: all columns in their order, for a file that is also met without its header.

    Yields:
      What to call the row in a message, and its cells by column, stripped.

    Raises:
      UserError: a column is missing, a row has too few cells or too many, or it is no text.
    """
    file = files.where(path)
    with files.open(path) as stream:
        try:
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")  # pyright: ignore[reportArgumentType]
            line = text.readline()
            rows = csv.reader(itertools.chain([line], text), delimiter=_separator(line, columns))
            first = next(rows, [])
            header = [cell.strip().lower() for cell in first]
            before = []
            if len(first) == len(without_header) and not set(header) & set(columns):
                header, before = list(without_header), [first]
            if missing := [column for column in columns if column not in header]:
                raise UserError(
                    f"{file}, row 1: the header is '{','.join(header)[:100]}'. It "
                    f"lacks {', '.join(missing)}; expected {','.join(columns)}."
                )
            places = [(column, header.index(column)) for column in columns]
            counted = "there is no header" if before else "the header is row 1"
            for cells in itertools.chain(before, rows):
                if not any(map(str.strip, cells)):
                    continue
                where = f"{file}, row {rows.line_num} ({counted})"
                if len(cells) < len(header):
                    raise UserError(
                        f"{where}: {len(cells)} cells; expected {len(header)}. The file may be cut "
                        "short; fetch it again."
                    )
                if any(map(str.strip, cells[len(header) :])):
                    raise UserError(
                        f"{where}: {len(cells)} cells; expected {len(header)}. Fetch the file "
                        'again; if it is your own, put "quotes" around cells with a comma in them.'
                    )
                yield where, {column: cells[place].strip() for column, place in places}
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"{files.where(path)} cannot be read as a csv file ({error}). Fetch it again, or "
                "save it as UTF-8 if it is your own."
            ) from error


def read_words(files: SourceFiles, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the lines of a list that are not blank, split at white space.

    Args:
      files: the source.
      path: of the list in it.

    Yields:
      What to call the line in a message, and its words.

    Raises:
      UserError: it is no text.
    """
    try:
        text = files.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{files.where(path)} is no text ({error}). Fetch it again.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield f"{files.where(path)}, row {number}", words


def whole_number(text: str, where: str, what: str, allowed: range) -> int:
    """Returns the number that a cell holds; "3.0", as tables with gaps are saved, is 3.

    Raises:
      UserError: it is no whole number, or not one of those allowed.
    """
    match = _WHOLE_NUMBER.fullmatch(text)
    if match is None or int(match[1]) not in allowed:
        raise UserError(
            f"{where}: {what} is '{text[:40]}'; expected a whole number from {allowed.start} to "
            f"{allowed.stop - 1}."
        )
    return int(match[1])


def _separator(header: str, columns: Sequence[str]) -> str:
    """Returns the separator under which the header has all columns; a comma if there is none."""
    for separator in ",;\t":
        if set(columns) <= {cell.strip(' "\r\n').lower() for cell in header.split(separator)}:
            return separator
    return ","
