"""Rows are added photo by photo; whatever a killed run left, the next one has each photo once."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.face_rows import Csv, Json, RowFile, Table

NAMES = ("happy", "sad")


def record(photo: str, faces: int = 1, *, seconds: float | None = None, error: str = "") -> dict:
    face = {
        "track": None if seconds is None else 7,
        "expression": "happy",
        "probabilities": {"happy": 0.75, "sad": 0.25},
        "box": [1.0, 2.0, 30.5, 40.25],
        "landmarks": None,
        "score": 0.9,
    }
    return {
        "photo": photo,
        "seconds": seconds,
        "width": 50,
        "height": 60,
        "faces": [face] * faces,
        "error": error,
        "note": "",
    }


RECORDS = [
    record("a.jpg"),
    record('b, "c"\nd.jpg', 3),
    record("none.jpg", 0),
    record("bad.jpg", 0, error="is empty"),
    record("=1+1\r.jpg", 2),
    record("e.jpg", 2),
]


def write(path, rows, records=RECORDS) -> RowFile:
    with RowFile(path, rows) as file:
        for one in records:
            if one["photo"] not in file.done:
                file.write(one)
    return file


@pytest.mark.parametrize("rows", [Csv(NAMES), Json(NAMES)])
def test_a_run_killed_at_any_byte_is_gone_on_with(rows, tmp_path):
    path = tmp_path / "rows"
    write(path, rows)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        write(path, rows)
        assert path.read_bytes() == whole


def test_csv_has_a_row_for_each_face_and_one_for_a_photo_without(tmp_path):
    write(tmp_path / "rows.csv", Csv(NAMES))
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == [
        "a.jpg",
        *['b, "c"\nd.jpg'] * 3,
        "none.jpg",
        "bad.jpg",
        *["./=1+1\r.jpg"] * 2,
        *["e.jpg"] * 2,
    ]
    assert [row["face"] for row in rows] == ["1", "1", "2", "3", "", "", "1", "2", "1", "2"]
    assert [row["faces"] for row in rows] == ["1", "3", "3", "3", "0", "", "2", "2", "2", "2"]
    assert rows[5]["error"] == "is empty"
    assert rows[0]["happy"] == "0.750000"
    assert (rows[0]["left"], rows[0]["bottom"]) == ("1.0", "40.2")


@pytest.mark.parametrize("first", "=+-@\t\r")
def test_no_cell_of_a_file_name_is_a_formula(first, tmp_path):
    name = f'{first}HYPERLINK("x").jpg'
    written = record(name, 0, error=f"{name} is empty")
    write(tmp_path / "rows.csv", Csv(NAMES), [written])
    with (tmp_path / "rows.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["photo"] == f"./{name}"
    assert row["error"] == f"./{name} is empty"
    with RowFile(tmp_path / "rows.csv", Csv(NAMES)) as file:
        assert file.done == {name}


@pytest.mark.parametrize("first", "=+-@\t\r")
def test_no_cell_of_a_class_is_a_formula(first, tmp_path):
    said = record("a.jpg", 1)
    said["faces"] = [
        said["faces"][0] | {"expression": f"{first}1", "probabilities": {f"{first}1": 1}}
    ]
    write(tmp_path / "rows.csv", Csv([f"{first}1"]), [said])
    with (tmp_path / "rows.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["expression"] == f"./{first}1"
    assert row[f"./{first}1"] == "1.000000"


def test_json_is_a_photo_on_each_line(tmp_path):
    write(tmp_path / "rows.json", Json(NAMES))
    lines = (tmp_path / "rows.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == RECORDS


def test_done_and_failed_count_what_was_there(tmp_path):
    rows = Csv(NAMES)
    write(tmp_path / "rows", rows)
    with RowFile(tmp_path / "rows", rows) as file:
        assert file.done == {one["photo"] for one in RECORDS}
        assert file.failed == 1


@pytest.mark.parametrize("rows", [Csv(NAMES), Json(NAMES)])
def test_a_video_that_stands_last_is_begun_again_where_it_is_named(rows, tmp_path):
    frames = [record("v.mp4", 2, seconds=0.04 * frame) for frame in range(3)]
    write(tmp_path / "rows", rows, RECORDS)
    before = (tmp_path / "rows").read_bytes()
    with RowFile(tmp_path / "rows", rows) as file:
        for frame in frames:
            file.write(frame)
    whole = (tmp_path / "rows").read_bytes()
    with RowFile(tmp_path / "rows", rows, {"another.mp4"}) as file:
        assert "v.mp4" in file.done  # it may be whole, and nobody would make its rows anew
    assert (tmp_path / "rows").read_bytes() == whole
    with RowFile(tmp_path / "rows", rows, {"v.mp4"}) as file:
        assert "v.mp4" not in file.done
    assert (tmp_path / "rows").read_bytes() == before


@pytest.mark.parametrize("rows", [Csv(NAMES), Json(NAMES)])
def test_a_video_that_ended_early_and_what_a_camera_saw_stay(rows, tmp_path):
    camera = "camera 0, 2026-11-27 03.50.00"
    frames = [record("v.mp4", 1, seconds=0.0), record("v.mp4", 0, error="it is cut short")]
    frames += [record(camera, 1, seconds=0.04 * frame) for frame in range(2)]
    for written in (frames[:2], frames[2:]):
        with RowFile(tmp_path / "rows", rows) as file:
            for frame in written:
                file.write(frame)
    before = (tmp_path / "rows").read_bytes()
    with RowFile(tmp_path / "rows", rows) as file:
        assert file.done == {"v.mp4", camera}
        assert file.failed == 1
    assert (tmp_path / "rows").read_bytes() == before


def test_rows_of_another_model_are_left_alone(tmp_path):
    write(tmp_path / "rows", Json(NAMES))
    with pytest.raises(UserError, match="line 1: its faces are of other classes"):
        write(tmp_path / "rows", Json(["calm", *NAMES[1:]]))


def test_a_full_disk_is_told_once(tmp_path):
    rows: Any = RowFile(tmp_path / "rows", Csv(NAMES))

    def write_to_a_full_disk() -> None:
        with rows:
            rows._file.close()
            rows._file = open("/dev/full", "ab")  # noqa: SIM115 (rows closes it)
            rows.write(RECORDS[0])

    with pytest.raises(UserError, match="No space left"):
        write_to_a_full_disk()


@pytest.mark.parametrize("rows", [Csv(NAMES), Json(NAMES)])
@pytest.mark.parametrize(
    "text", ["hello", "hello\n", "name,label\na,b\n", '{"a": 1}\n', "{\n}\n", '{"a": 1}', "\0"]
)
def test_a_file_of_something_else_is_left_alone(rows, text, tmp_path):
    path = tmp_path / "rows"
    path.write_text(text)
    with pytest.raises(UserError, match=r"something else .* is left as it is"):
        write(path, rows)
    assert path.read_text() == text


def test_rows_of_a_model_with_other_classes_are_left_alone(tmp_path):
    write(tmp_path / "rows", Csv(NAMES))
    with pytest.raises(UserError, match="its header is another"):
        write(tmp_path / "rows", Csv(("happy", "angry")))


def test_two_processes_cannot_write_one_file(tmp_path):
    path = tmp_path / "rows"
    with RowFile(path, Json(NAMES)), pytest.raises(UserError, match="by another process"):
        RowFile(path, Json(NAMES)).__enter__()


def test_table_tells_the_two_likeliest_and_why_there_is_no_face():
    table = Table()
    (line,) = table.format(record("a.jpg")).splitlines()
    assert " ".join(line.split()) == "1 happy 75 % sad 25 % 1, 2, 30, 40 a.jpg"
    assert "no face" in table.format(record("a.jpg", 0))
    assert "is empty" in table.format(record("a.jpg", 0, error="is empty"))
    assert "7" in table.format(record("v.mp4", seconds=1.5))
    assert "v.mp4 at 1.50 s" in table.format(record("v.mp4", seconds=1.5))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/full"), tmp_path / "pipe"):
        with pytest.raises(UserError, match=f"{path} is no regular file; leave --out away"):
            RowFile(path, Csv(["a"])).__enter__()
