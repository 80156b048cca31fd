"""Annotation tables as spreadsheets and other people's scripts leave them."""

from pathlib import Path

import pytest

from data_builders.common.source_files import SourceFiles
from data_builders.common.tables import read_csv, whole_number
from dmfer_jax.errors import UserError


def rows_of(content: bytes, place: Path) -> list[tuple[str, dict[str, str]]]:
    """Returns where each row stands, without the file, and its cells image and label."""
    (place / "table.csv").write_bytes(content)
    with SourceFiles(place) as files:
        rows = list(read_csv(files, "table.csv", ("image", "label")))
    return [(where.rpartition(", ")[2], cells) for where, cells in rows]


EXPECTED = [{"image": "a.jpg", "label": "1"}, {"image": "b c.jpg", "label": "2"}]


@pytest.mark.parametrize(
    "content",
    [
        b"image,label\na.jpg,1\nb c.jpg,2\n",
        b"image,label\ra.jpg,1\rb c.jpg,2",
        b"\xef\xbb\xbfImage , LABEL\r\n a.jpg , 1 \r\nb c.jpg,2\r\n",
        b"image;label\na.jpg;1\nb c.jpg;2\n",
        b"image\tlabel\na.jpg\t1\nb c.jpg\t2\n",
        b'"image";"label"\r\n"a.jpg";"1"\r\n"b c.jpg";"2"\r\n',
        b",label,image,note\n0,1,a.jpg,x\n1,2,b c.jpg,\n",
        b"image,label\n\na.jpg,1\n , \nb c.jpg,2\n,\n\n",
        b"image,label\na.jpg,1,\nb c.jpg,2,, \n",
    ],
)
def test_table_is_read_whatever_separates_its_cells_and_rows(content, tmp_path):
    assert [cells for _, cells in rows_of(content, tmp_path)] == EXPECTED


def test_row_is_called_by_its_line_in_the_file(tmp_path):
    content = b"image,label\na.jpg,1\n,\n\nb c.jpg,2\n"
    places = [where for where, _ in rows_of(content, tmp_path)]
    assert places == ["row 2 (the header is row 1)", "row 5 (the header is row 1)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "row 1: the header is ''. It lacks image, label"),
        (b"image;name\na;b\n", "row 1: the header is 'image;name'. It lacks image, label"),
        (b"image,label\na.jpg\n", r"row 2 .*: 1 cells; expected 2"),
        (b"image,label\na.jpg,1\nb, c.jpg,2\n", r'row 3 .*: 3 cells; expected 2.* put "quotes"'),
        (b"image,label\n\xe9.jpg,1\n", r"cannot be read as a csv file \('utf-8' codec"),
        ("image,label\n".encode("utf-16"), r"cannot be read as a csv file \('utf-8' codec"),
        (b"image,label\n" + b"x" * 200_000 + b",1\n", r"cannot be read as a csv file \(field larg"),
    ],
)
def test_table_that_cannot_be_used_is_refused(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        rows_of(content, tmp_path)


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("-1", -1), ("3.0", 3), ("07", 7)])
def test_whole_number_is_read(text, number):
    assert whole_number(text, "row 2", "the label", range(-1, 8)) == number


@pytest.mark.parametrize(
    "text", ["", "-", "--5", "+5", "1_0", "3.5", "٣", "²", "nan", "1e0", "8", "-2", "9" * 5_000]
)
def test_anything_else_is_no_whole_number(text):
    with pytest.raises(UserError, match=r"row 2: the label is .*expected a whole number from -1"):
        whole_number(text, "row 2", "the label", range(-1, 8))
