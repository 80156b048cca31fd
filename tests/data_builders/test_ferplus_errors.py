"""What the FERPlus builder says of wrong files, and that a failed build leaves nothing behind."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_builders.common import archives
from data_builders.ferplus import fer2013_files, ferplus_dataset_builder, votes_files
from dmfer_jax.errors import UserError
from dmfer_jax.labels import FER2013, FERPLUS_VOTES
from tests.data_builders import ferplus_files as tiny
from tests.data_builders.ferplus_files import FORMS

# Wrong input. Each case: what is done to a good folder, and what the message must say.


def edit(name: str, old: str, new: str, count: int = 1):
    """Returns a change of the first `count` places where `old` stands in a file."""

    def change(source: Path) -> None:
        path = source / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    return change


def remove(name: str):
    return lambda source: (source / name).unlink()


def write(name: str, content: bytes):
    return lambda source: (source / name).write_bytes(content)


def drop_row(name: str, row: int):
    """Returns a change that takes one row out of a file; the header is row 1."""

    def change(source: Path) -> None:
        lines = (source / name).read_text().splitlines(keepends=True)
        (source / name).write_text("".join(lines[: row - 1] + lines[row:]))

    return change


FACES, VOTES, LABEL = "fer2013.csv", "fer2013new.csv", "FER2013Train/label.csv"
# The first two pixels of row 0 are 0 and 255.
WRONG = {
    "no faces": (remove(FACES), "holds no faces.*FER2013Test/, FER2013Train/.*fer2013new.csv"),
    "no votes": (remove(VOTES), "holds no fer2013new.csv.*it holds .*fer2013.csv"),
    "empty faces": (write(FACES, b""), r"fer2013.csv is empty \(0 bytes\)"),
    "empty votes": (write(VOTES, b""), r"fer2013new.csv is empty \(0 bytes\)"),
    "blank votes": (write(VOTES, b"\xef\xbb\xbf\n\n"), "fer2013new.csv, row 1: the header is ''"),
    "empty label.csv": (write(LABEL, b""), r"label.csv is empty \(0 bytes\)"),
    "header alone": (write(FACES, b"emotion,pixels,Usage\n"), "a header and no rows"),
    "votes' header alone": (
        lambda source: write(VOTES, (source / VOTES).read_bytes().splitlines()[0])(source),
        "a header and no rows",
    ),
    "unknown header": (edit(FACES, "emotion", "feeling"), "row 1: the header is 'feeling,pixels"),
    "votes' header": (
        edit(VOTES, "neutral", "calm"),
        "row 1: the header is 'Usage,Image name,calm",
    ),
    "2,303 pixels": (edit(FACES, "0,0 255 ", "0,0 "), "row 2 .*2,303 pixels; expected 2,304"),
    "pixel of 300": (edit(FACES, "0,0 255 ", "0,0 300 "), "row 2 .*pixel 2 is '300'.*0 to 255"),
    "negative pixel": (edit(FACES, "0,0 255 ", "0,0 -5 "), "row 2 .*pixel 2 is '-5'"),
    "pixel that is no number": (edit(FACES, "0,0 255 ", "0,x 255 "), "row 2 .*pixel 1 is 'x'"),
    "emotion of 7": (edit(FACES, "\n6,", "\n7,"), "row 8 .*emotion is '7'; expected 0 to 6"),
    "unknown Usage": (edit(FACES, "PublicTest", "Public"), "row 8 .*Usage is 'Public'"),
    "four columns": (edit(FACES, ",Training", ",,Training"), "row 2 .*4 columns; expected 3"),
    "blank row": (edit(FACES, "Training\n", "Training\n\n"), "row 4 .*row before it is blank"),
    "row without end": (edit(FACES, "0,0 255 ", "0,0 " + "9" * 70_000), "row 2 .*longer than"),
    "fewer votes": (drop_row(VOTES, 13), "has 2 rows of Usage PrivateTest, and .*csv has 3"),
    "fewer faces": (drop_row(FACES, 4), "has 6 rows of Usage Training, and .*csv has 5"),
    "no votes of a split": (
        lambda source: [drop_row(VOTES, row)(source) for row in (13, 12, 11)],
        "has 0 rows of Usage PrivateTest",
    ),
    "votes in another order": (
        lambda source: write(VOTES, _swap_rows((source / VOTES).read_text(), 7, 8))(source),
        "fer2013new.csv, row 7: Usage is PublicTest, but the same row of .*fer2013.csv .* Training",
    ),
    "votes' Usage": (edit(VOTES, "PublicTest", "Public"), "row 8: Usage is 'Public'"),
    "votes' columns": (edit(VOTES, "4,0,0,1,3", "4,0,1,3"), "row 2: 11 columns; expected 12"),
    "half a vote": (edit(VOTES, "4,0,0,1", "4.5,0,0,1"), "row 2: neutral has '4.5' votes"),
    "negative vote": (edit(VOTES, "4,0,0,1", "4,0,0,-1"), "row 2: sadness has '-1' votes"),
    "eleven votes": (edit(VOTES, "4,0,0,1", "11,0,0,1"), "row 2: neutral has '11' votes"),
    "nine votes too many": (edit(VOTES, "4,0,0,1", "10,3,0,1"), "row 2: 19 votes in all; exp.* 10"),
    "no vote at all": (edit(VOTES, "4,0,0,1,3,2", "0,0,0,0,0,0"), "row 2: 0 votes in all"),
    "votes that are no text": (write(VOTES, b"\xff\xfe\x00"), "cannot be read as a csv file"),
    "label.csv's votes": (edit(LABEL, ",4,0,0,1", ",x,0,0,1"), "label.csv, row 1: neutral has 'x'"),
    "label.csv's columns": (edit(LABEL, ",4,0,0,1", ",4"), "label.csv, row 1: 9 columns"),
    "unknown image": (
        edit(LABEL, "fer0000002", "fer0000001"),
        "label.csv, row 2: image 'fer0000001.png': fer2013new.csv has no image of that name",
    ),
    "image of another split": (
        edit(LABEL, "fer0000002", "fer0028638"),
        "row 2: image 'fer0028638.png': .* it belongs to PublicTest, not to Training",
    ),
    "image twice": (edit(LABEL, "fer0000002", "fer0000000"), "row 2: .*stands in the file twice"),
    "label.csv cut short": (drop_row(LABEL, 4), "lacks 1 of the images .* fer0000004.png"),
}


def _swap_rows(text: str, a: int, b: int) -> bytes:
    lines = text.splitlines(keepends=True)
    lines[a - 1], lines[b - 1] = lines[b - 1], lines[a - 1]
    return "".join(lines).encode()


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_named_with_row_and_reason(tmp_path: Path, case: str):
    change, message = WRONG[case]
    source = tiny.write_source(tmp_path)
    change(source)

    with pytest.raises(UserError, match=message):
        tiny.survey(source)


def test_missing_folder_says_what_to_give(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere does not exist\. Give the file or folder"):
        tiny.survey(tmp_path / "nowhere")


def test_no_folder_at_all_says_what_to_fetch(tmp_path: Path):
    with pytest.raises(UserError, match=r"none were given\. Put into one folder"):
        tiny.build(None, tmp_path / "data")


# Wrong archives.


@pytest.mark.parametrize("form", ["fer2013.tar.gz", "archive.zip:fer2013.csv"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_archive_cut_short_is_reported(tmp_path: Path, form: str, keep: float):
    path = tiny.write_faces(tmp_path, form)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(UserError, match=f"{path.name} is damaged, cut short"):
        tiny.read_faces(tmp_path)


@pytest.mark.parametrize("form", ["fer2013.tar.gz", "archive.zip:fer2013.csv"])
def test_wrong_byte_in_an_archive_is_never_taken_for_a_face(tmp_path: Path, form: str):
    path = tiny.write_faces(tmp_path, form)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)

    with pytest.raises(UserError):
        tiny.read_faces(path)


@pytest.mark.parametrize("pack", [tiny.pack_tar_gz, tiny.pack_zip])
def test_archive_without_the_csv_lists_what_it_holds(tmp_path: Path, pack):
    path = tmp_path / ("fer2013.tar.gz" if pack is tiny.pack_tar_gz else "some.zip")
    pack(path, {"fer2013/notes.txt": b"nothing"})

    with pytest.raises(
        UserError, match=rf"no fer2013\.csv.*; it holds .*fer2013/.*looked into {path.name}"
    ):
        tiny.read_faces(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_link_in_a_tar_is_not_followed(tmp_path: Path, kind: bytes):
    secret = tiny.write_faces(tmp_path)
    path = tmp_path / "fer2013.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("fer2013/fer2013.csv")
        info.type, info.linkname = kind, str(secret)
        archive.addfile(info)

    with pytest.raises(UserError, match="is a link or a device"):
        tiny.read_faces(path)


def test_link_in_a_zip_is_not_followed(tmp_path: Path):
    path = tmp_path / "archive.zip"
    info = zipfile.ZipInfo("fer2013.csv")
    info.external_attr = 0o120777 << 16  # a symbolic link
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/hostname")

    with pytest.raises(UserError, match="is a link or a device"):
        tiny.read_faces(path)


@pytest.mark.parametrize("pack", [tiny.pack_tar_gz, tiny.pack_zip])
def test_nothing_is_unpacked_wherever_a_name_points(tmp_path: Path, pack):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "archive"
    pack(path, {"../evil.txt": b"x", "../../fer2013.csv": tiny.faces_csv().encode()})

    with pytest.raises(UserError, match="which leads out of the archive"):
        tiny.read_faces(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["archive", "in"]


@pytest.mark.parametrize("form", [form for form in FORMS if "tar" in form or "zip" in form])
def test_archive_that_swells_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str):
    monkeypatch.setattr(archives, "FREE_BYTES", 50_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 1)
    path = tiny.write_faces(tmp_path, form)

    with pytest.raises(UserError, match="unpacks to "):
        tiny.read_faces(path)


def test_members_passed_over_count_as_swelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 200_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 1)
    path = tmp_path / "fer2013.tar.gz"
    tiny.pack_tar_gz(path, {"zeros": bytes(300_000), "fer2013.csv": tiny.faces_csv().encode()})

    with pytest.raises(UserError, match="unpacks to more than"):
        tiny.read_faces(path)


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_end_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str):
    monkeypatch.setattr(fer2013_files, "MAX_FACES", 11)  # there are 12
    path = tiny.write_faces(tmp_path, form)

    with pytest.raises(UserError, match=r"row 13 .*more than 11 rows; fer2013\.csv has 35,887"):
        tiny.read_faces(path)


# What stays after a failure.


@pytest.mark.parametrize("made_before", [False, True])
def test_nothing_stays_of_a_build_from_wrong_files(tmp_path: Path, made_before: bool):
    source = tiny.write_source(tmp_path / "source")
    edit(FACES, "0,0 255 ", "0,0 300 ")(source)
    data_dir = tmp_path / "deep" / "data"
    if made_before:
        data_dir.mkdir(parents=True)

    with pytest.raises(UserError, match="pixel 2 is '300'"):
        tiny.build(source, data_dir)

    if made_before:
        assert list(data_dir.iterdir()) == []
    else:
        assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_nothing_stays_of_a_build_that_stops_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    calls = iter([io.BytesIO(b""), io.BytesIO(b"")])

    def fail_at_the_third(pixels: bytes) -> io.BytesIO:
        file = next(calls, None)
        if file is None:
            raise error
        return file

    monkeypatch.setattr(ferplus_dataset_builder, "encode_png", fail_at_the_third)
    with pytest.raises(type(error)):
        tiny.build(tiny.write_source(tmp_path / "source"), tmp_path / "data")

    assert not (tmp_path / "data").exists()


def test_failed_build_leaves_other_datasets_alone(tmp_path: Path):
    other = tmp_path / "data" / "other" / "file"
    other.parent.mkdir(parents=True)
    other.write_text("kept")

    with pytest.raises(UserError):
        tiny.build(tmp_path / "nowhere", tmp_path / "data")

    assert [p.name for p in (tmp_path / "data").rglob("*")] == ["other", "file"]


def test_finished_build_is_used_again_without_its_source(tmp_path: Path):
    source = tiny.write_source(tmp_path / "source")
    tiny.build(source, tmp_path / "data")

    again = tiny.build(tmp_path / "nowhere", tmp_path / "data")

    assert again.info.splits["train"].num_examples == 6
    # Only the records: no folder for downloads that never were.
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["ferplus"]


@pytest.mark.parametrize(
    ("start", "rows"), [(0, "2 to 251"), (740, "752 to 1001"), (1_000, "992 to 1241")]
)
def test_rows_that_were_moved_are_noticed_though_every_count_is_right(start, rows):
    """The vote of row i is for the expression that FER2013 gives it, in six rows of ten."""
    emotions = [row % 7 for row in range(1_240)]
    seen = [e if row % 10 < 6 else (e + 1) % 7 for row, e in enumerate(emotions)]
    votes = []
    for emotion in seen:
        counts = [0] * len(FERPLUS_VOTES)
        counts[FER2013[emotion]] = 10
        votes.append(votes_files.VoteRow("Training", "", tuple(counts)))
    faces = [fer2013_files.Face(emotion, b"", "Training") for emotion in emotions]
    assert votes_files.align(faces, "faces", votes, "votes") == list(range(1_240))
    moved = faces[:start] + sorted(faces[start:])
    with pytest.raises(UserError, match=rf"faces, rows {rows}: \d+% of the .*Fetch both again"):
        votes_files.align(moved, "faces", votes, "votes")
