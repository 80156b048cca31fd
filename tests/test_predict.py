"""The command: photos, folders and videos in, rows and drawn pictures out, whatever is broken."""

import csv
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import dmfer_jax
from dmfer_jax import predict
from dmfer_jax.errors import UserError
from dmfer_jax.expression_model import ExpressionModel
from dmfer_jax.video import read_frames
from tests.test_expression_model import ASTRONAUT, NAMES, make_model
from tests.test_package import run as run_python


@pytest.fixture(scope="module")
def model() -> ExpressionModel:
    return make_model(1)


@pytest.fixture
def run(model, monkeypatch, capsys):
    """Runs the command in this process; returns its status and what it printed."""
    monkeypatch.setattr(dmfer_jax, "load", lambda name, **options: model)

    def run(*names: Any, **flags: Any) -> tuple[int, str, str]:
        options = {"model": "", "format": "", "out": "", "draw": "", "aligned": False}
        options |= {"camera": None, "side": 1024, **flags}
        monkeypatch.setattr(predict, "flags", SimpleNamespace(FLAGS=SimpleNamespace(**options)))
        status = 0
        try:
            predict.main(["predict", *map(str, names)])
        except SystemExit as end:
            status = int(str(end.code))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """A face, two faces, no face, and what is no photo."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    face = Image.open(ASTRONAUT)
    face.save(folder / "a.jpg")
    two = np.hstack([np.asarray(face)] * 2)
    Image.fromarray(two).save(folder / "sub" / "two.png")
    Image.new("RGB", (40, 30)).save(folder / "none.gif")
    (folder / "zero.jpg").touch()
    (folder / "text.jpg").write_text("I am no photo")
    (folder / "notes.txt").write_text("nor do I say so")
    return folder


def test_folder_becomes_rows_and_a_status_that_tells_of_what_was_broken(run, folder):
    status, printed, said = run(folder, format="csv")
    rows = list(csv.DictReader(printed.splitlines()))
    assert status == 1
    assert [(Path(row["photo"]).name, row["faces"]) for row in rows] == [
        ("a.jpg", "1"),
        ("none.gif", "0"),
        ("text.jpg", ""),
        ("zero.jpg", ""),
        ("two.png", "2"),
        ("two.png", "2"),
    ]
    assert "is empty" in rows[3]["error"]
    for row in (rows[0], *rows[4:]):
        assert sum(float(row[name]) for name in NAMES) == pytest.approx(1, abs=1e-5)
        assert row["expression"] in NAMES
    assert "photos and videos: 5, faces: 3; could not be read: 2" in said
    assert "passed over in folders: 1 .txt" in said


def test_sound_photos_end_with_status_0_and_a_table(run, folder):
    status, printed, said = run(folder / "a.jpg", folder / "sub")
    assert status == 0
    lines = printed.splitlines()
    assert lines[0].split()[:3] == ["face", "expression", "probability"]
    assert len(lines) == 4
    assert "could not" not in said


def test_killed_run_goes_on_and_has_each_photo_once(run, folder, tmp_path):
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    run(folder, out=str(whole))
    lines = whole.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    status, _, said = run(folder, out=str(part))
    assert status == 1
    assert "there already: 2" in said
    assert [json.loads(line)["photo"] for line in part.open()] == [
        json.loads(line)["photo"] for line in lines
    ]
    assert run(folder, out=str(part))[0] == 1  # what could not be read still could not
    assert len(part.read_bytes().splitlines()) == 5


def test_crops_are_predicted_as_they_are(run, folder, model):
    status, printed, _ = run(folder / "none.gif", aligned=True, format="json")
    (face,) = json.loads(printed)["faces"]
    assert status == 0
    expected = model(folder / "none.gif", aligned=True)[0]
    assert face["expression"] == expected.expression
    assert face["box"] == [0, 0, 40, 30]


def test_each_photo_is_drawn_where_it_lies_in_its_folder(run, folder, tmp_path):
    drawn = tmp_path / "drawn"
    run(folder, draw=str(drawn))
    names = {str(path.relative_to(drawn)) for path in drawn.rglob("*.*")}
    assert names == {"a.jpg", "none.gif.jpg", "sub/two.png"}
    before, after = (np.asarray(Image.open(at / "sub/two.png")) for at in (folder, drawn))
    assert before.shape == after.shape
    changed = (before != after).any(-1)
    assert 0.02 < changed.mean() < 0.3
    with pytest.raises(UserError, match="would write over"):
        run(folder, draw=str(folder))
    assert np.array_equal(np.asarray(Image.open(folder / "sub/two.png")), before)


@pytest.mark.parametrize("draw", ["", "link", "../c", "other/../../c"])
def test_no_original_is_written_over_whatever_leads_to_it(run, draw, tmp_path, monkeypatch):
    here = tmp_path / "w" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / "link").symlink_to(here)
    Image.new("RGB", (8, 8)).save("x.jpg")
    before = Path("x.jpg").read_bytes()
    with pytest.raises(UserError, match=r"would write over x\.jpg"):
        run("x.jpg", draw=draw or str(here))
    assert Path("x.jpg").read_bytes() == before


def test_photos_beside_the_current_folder_are_drawn_in_the_given_one(run, tmp_path, monkeypatch):
    here = tmp_path / "w" / "c"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    for name in ("../x.jpg", "x.jpg", "y.jpg"):
        Image.new("RGB", (8, 8)).save(name)
    before = Path("x.jpg").read_bytes()
    run("../x.jpg", "y.jpg", draw="drawn")
    assert {str(path.relative_to(here)) for path in here.rglob("*.jpg")} == {
        *("x.jpg", "y.jpg", "drawn/x.jpg", "drawn/c/y.jpg")
    }
    assert Path("x.jpg").read_bytes() == before


def test_what_was_drawn_or_left_half_made_is_no_photo(run, folder):
    (folder / ".a.123.partial.jpg").write_bytes(b"half a ph")
    (folder / "partial.jpg").write_bytes((folder / "a.jpg").read_bytes())
    printed = {run(folder, draw=str(folder / "drawn"), format="json")[1] for _ in range(2)}
    (lines,) = printed  # the same both times
    assert len(lines.splitlines()) == 6
    _, _, said = run(folder, draw=str(folder / "drawn"))
    assert "1 hidden" in said
    assert "1 folder that is drawn to" in said


def test_a_photo_that_cannot_be_drawn_is_told_and_the_others_go_on(run, folder, tmp_path):
    Image.new("RGB", (66_000, 2)).save(folder / "0.tif")  # more than a JPEG can have
    status, printed, said = run(folder, draw=str(tmp_path / "drawn"), format="json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert status == 1
    assert "0.tif.jpg cannot be written" in rows[0]["note"]
    assert (rows[0]["error"], len(rows)) == ("", 6)
    assert "could not be drawn: 1, such as" in said
    names = {path.name for path in (tmp_path / "drawn").rglob("*.*")}
    assert names == {"a.jpg", "none.gif.jpg", "two.png"}


def test_a_photo_of_a_long_name_is_drawn(run, tmp_path):
    name = "\u9854" * 80 + ".jpg"  # 244 bytes, where 255 are allowed
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert run(tmp_path / name, draw=str(tmp_path / "drawn"))[0] == 0
    assert (tmp_path / "drawn" / name).is_file()


def test_frames_are_computed_one_by_one_behind_many_photos(run, folder, video, model, monkeypatch):
    asked = []
    monkeypatch.setattr(predict, "_MANY", 2)
    monkeypatch.setattr(
        dmfer_jax, "load", lambda name, **options: asked.append(options["buckets"]) or model
    )
    run(folder, video)
    run(folder)
    run(video)
    assert [set(buckets) for buckets in asked] == [{1, 64}, {64}, {1}]


@pytest.fixture
def video(tmp_path) -> Path:
    """Ten frames of a face that moves to the right."""
    path = tmp_path / "face.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 224))
    face = np.asarray(Image.open(ASTRONAUT))[..., ::-1]  # OpenCV has blue first
    for frame in range(10):
        image = np.zeros((224, 320, 3), np.uint8)
        image[:220, 8 * frame : 8 * frame + 200] = face
        writer.write(image)
    writer.release()
    return path


def test_video_is_followed_frame_by_frame(run, video, tmp_path):
    status, _, _ = run(video, out=str(tmp_path / "rows.csv"), draw=str(tmp_path / "drawn"))
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert status == 0
    assert [float(row["seconds"]) for row in rows] == pytest.approx(np.arange(10) / 10)
    assert {row["face"] for row in rows} == {"1"}
    lefts = np.diff([float(row["left"]) for row in rows])
    np.testing.assert_allclose(lefts, 8, atol=4)
    drawn = list(read_frames(tmp_path / "drawn" / "face.avi.mp4"))
    assert len(drawn) == 10
    assert drawn[0].rgb.shape == (224, 320, 3)


def test_video_that_cannot_be_drawn_has_its_rows_all_the_same(run, video, tmp_path):
    (tmp_path / "drawn").write_text("a file where the folder should be")
    status, printed, told = run(video, draw=str(tmp_path / "drawn"), format="json")
    assert status == 1
    assert "could not be drawn: 1, such as" in told
    assert [len(json.loads(line)["faces"]) for line in printed.splitlines()] == [1] * 10


def test_originals_that_would_be_drawn_as_one_are_told_before_anything_is(run, folder, tmp_path):
    Image.new("RGB", (40, 30)).save(folder / "none.gif.jpg")
    with pytest.raises(UserError, match=r"none\.gif and .*none\.gif\.jpg would both be drawn as"):
        run(folder, draw=str(tmp_path / "drawn"))
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("source", ["file", "camera"])
def test_interrupted_video_leaves_the_whole_one_and_a_camera_what_was_seen(
    run, source, video, tmp_path, monkeypatch
):
    def interrupted(_):
        yield from itertools.islice(read_frames(video), 3)
        raise KeyboardInterrupt

    (drawn := tmp_path / "drawn").mkdir()
    (drawn / "face.avi.mp4").write_bytes(b"whole")
    monkeypatch.setattr(predict, "read_frames", interrupted)
    names, camera = ([video], None) if source == "file" else ([], 0)
    with pytest.raises(KeyboardInterrupt):
        run(*names, camera=camera, draw=str(drawn))
    assert (drawn / "face.avi.mp4").read_bytes() == b"whole"
    seen = [path for path in drawn.iterdir() if path.name != "face.avi.mp4"]
    assert [path.name[:9] for path in seen] == ["camera 0,"] * (source == "camera")
    assert [len(list(read_frames(path))) for path in seen] == [3] * len(seen)


def test_video_that_is_cut_short_has_its_frames_and_a_row_that_says_so(run, video):
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    status, printed, told = run(video, format="json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert status == 1
    assert 2 < len(rows) < 9
    assert rows[-1]["error"].endswith("of about 10 frames; it is damaged or cut short")
    assert "could not be read: 1" in told


def test_json_is_json_whatever_a_photo_is_called(run, folder):
    (folder / "none.gif").rename(folder / "n\x89\x7f\U0001f600.gif")
    _, printed, _ = run(folder / "n\x89\x7f\U0001f600.gif", format="json")
    assert printed.isascii()
    assert json.loads(printed)["photo"].endswith("n\x89\x7f\U0001f600.gif")


def test_video_in_the_current_folder_may_be_named_by_the_time_of_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("a.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    named = Path("a.mp4").rename("2024-05-01T12:30:00.mp4")
    assert len(list(read_frames(named))) == 1


def test_broken_video_and_missing_camera_are_rows(run, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    status, printed, _ = run(tmp_path / "broken.mp4", camera=99)
    assert status == 1
    assert "broken.mp4 gives no picture" in printed
    assert "camera 99 gives no picture" in printed


def test_pipe_that_is_named_as_a_video_is_not_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "camera.mp4")
    status, printed, _ = run(tmp_path)
    assert status == 1
    assert "camera.mp4 is no regular file; expected a video" in printed


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(run, folder):
    (folder / "a.jpg").chmod(0)
    (folder / "sub").chmod(0)
    status, printed, said = run(folder)
    (folder / "sub").chmod(0o700)
    assert status == 1
    assert "a.jpg cannot be read: Permission denied" in printed
    assert "sub cannot be listed: Permission denied" in said


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        ([], {}, "nothing to look at"),
        (["no/such.jpg"], {}, r"no/such\.jpg: no such file or folder"),
        ([ASTRONAUT], {"out": "rows.txt"}, r"expected a file that ends in \.csv or \.json"),
        ([ASTRONAUT], {"out": "rows.csv", "format": "table"}, "the format table"),
        ([ASTRONAUT], {"side": 1}, "side is 1"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is(
    run, names, flags, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(*names, **flags)
    assert not list(tmp_path.iterdir())


def test_command_takes_files_before_and_behind_flags_and_fails_in_one_line(tmp_path):
    arguments = ("-m", "dmfer_jax.predict", str(ASTRONAUT), "--model=nothing", str(ASTRONAUT))
    process = run_python(*arguments, folder=tmp_path, status=2)
    assert process.stderr.startswith("error: there is no model 'nothing'")
    assert process.stderr.count("\n") == 1
