"""Records: copied as they are where they can be, in order, all or none, one builder at a time."""

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import ExifTags, Image

from data_builders.common import exclusive, image_builder, record_builder
from data_builders.common.exclusive import building_alone
from data_builders.common.image_builder import stored_image
from dmfer_jax.data import builds, images
from dmfer_jax.data.records import open_records
from dmfer_jax.errors import UserError
from tests.data_builders import toy_dataset as toys
from tests.data_builders.packing import write_folder


def records_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return list(open_records(folder, split))


def test_records_are_the_files_in_their_order(tmp_path):
    source = toys.write_toys(tmp_path / "in", train=70, test=3)
    records = records_of(toys.build(source, tmp_path / "out"))
    assert [r["name"].decode() for r in records] == [
        f"train/{index % 2}_{index:05d}.jpg"
        for index in sorted(range(70), key=lambda i: (i % 2, i))
    ]
    for position, record in enumerate(records):
        name = record["name"].decode()
        assert record["image"] == (source / name).read_bytes()
        assert record["label"] == int(name[6])
        assert record["row"] == position + 3  # "test" comes first


def test_shards_do_not_change_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(record_builder, "SHARD_EXAMPLES", 4)
    source = toys.write_toys(tmp_path / "in", train=9)
    folder = toys.build(source, tmp_path / "out")
    assert len(list(folder.glob("toy-train.array_record-0000?-of-00003"))) == 3
    assert [r["row"] for r in records_of(folder)] == list(range(3, 12))
    assert builds.verify(folder) == 12


def test_same_content_is_marked_across_splits(tmp_path):
    same, other = toys.jpeg((1, 2, 3)), toys.jpeg((200, 2, 3))
    files = {"test/0_a.jpg": same, "train/0_b.jpg": other, "train/1_c.jpg": same}
    folder = toys.build(write_folder(files, tmp_path / "in"), tmp_path / "out")
    assert [r["first_row"] for r in records_of(folder, "test")] == [0]
    assert [r["first_row"] for r in records_of(folder, "train")] == [1, 0]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("side", [1, 100, image_builder.MAX_SIDE])
def test_image_of_the_right_size_is_copied_byte_for_byte(form, side):
    content = encoded(NOISE.resize((side, max(side // 2, 1))), form)
    assert stored_image(content) == content


def test_large_image_is_shrunk_with_its_proportions():
    found = Image.open(io.BytesIO(stored_image(encoded(NOISE.resize((1200, 600)), "PNG"))))
    assert (found.format, found.size, found.mode) == ("JPEG", (256, 128), "RGB")


def test_photo_of_more_pixels_than_are_decoded_is_shrunk_all_the_same():
    photo = Image.new("RGB", (8160, 6144), (200, 60, 20))
    found = Image.open(io.BytesIO(stored_image(encoded(photo, "JPEG"))))
    assert found.size == (256, 193)
    assert np.abs(np.asarray(found, int) - (200, 60, 20)).max() < 4
    with pytest.raises(ValueError, match="8160 x 6144 pixels"):
        stored_image(encoded(photo, "JPEG"), (0, 0, 100, 100))


def test_box_is_cropped_in_the_upright_image_and_ends_at_its_edge():
    image = Image.new("RGB", (60, 40), "white")
    image.paste("black", (0, 0, 30, 40))
    found = stored_image(encoded(image, "PNG"), (10, -5, 30, 100))
    assert Image.open(io.BytesIO(found)).size == (20, 40)
    assert images.decode_image(found, 8, 1).max() < 10
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # seen after a quarter turn: 40 wide, 60 high
    turned = stored_image(encoded(image, "PNG", exif=exif), (0, 0, 40, 30))
    assert images.decode_image(turned, 8, 1).max() < 10


def test_box_beside_the_image_is_an_error():
    with pytest.raises(ValueError, match="lies outside its 60 x 40 pixels"):
        stored_image(encoded(NOISE, "PNG"), (60, 0, 90, 30))


JPEG = encoded(NOISE, "JPEG")
WRONG = {
    "text": (b"<html>404: Not Found</html>", "it is no image; it begins with b'<html>404: Not"),
    "empty": (b"", "it is no image"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "jpeg without its end": (JPEG[:-30], "truncated"),
    "truncated png": (encoded(NOISE, "PNG")[:-3_000], "truncated"),
    "bomb": (b"P5 8000 8000 255\n\0", "8000 x 8000 pixels; at most 50,000,000 make sense"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_image_stops_the_build_by_name_and_leaves_nothing(case, tmp_path):
    content, message = WRONG[case]
    source = toys.write_toys(tmp_path / "in", train=40)
    (source / "train" / "1_00033.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"in/train/1_00033\.jpg \(image .*\) .*{message}"):
        toys.build(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_source_says_what_to_give(tmp_path):
    with pytest.raises(
        UserError, match=r"toy needs the files as downloaded.*Give a folder of toys"
    ):
        toys.Builder(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    assert list(tmp_path.iterdir()) == []


# A full disk, a killed process, two processes.


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("write() failed: No space left on device; writing x"),
    ],
)
def test_full_disk_is_said_and_nothing_stays(error, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, options):
            Path(path).write_bytes(b"half a shard")

        def write(self, serialized):
            raise error

        def close(self):
            pass

    monkeypatch.setattr(record_builder, "ArrayRecordWriter", Full)
    source = toys.write_toys(tmp_path / "in")
    with pytest.raises(UserError, match=r"has no space left for the records.*--data_dir"):
        toys.build(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["out", "out/toy"])
def test_place_that_is_a_file_is_said(where, tmp_path):
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / where).write_text("a file")
    source = toys.write_toys(tmp_path / "in")
    with pytest.raises(UserError, match=r"cannot be written to .*out/toy .*--data_dir"):
        toys.build(source, tmp_path / "out")
    assert (tmp_path / where).read_text() == "a file"


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "out/toy"),
        RuntimeError("open() failed: Permission denied; writing x"),
    ],
)
def test_place_that_may_not_be_written_is_said(error, tmp_path, monkeypatch):
    def refuse(path, options):
        raise error

    monkeypatch.setattr(record_builder, "ArrayRecordWriter", refuse)
    source = toys.write_toys(tmp_path / "in")
    message = r"cannot be written to .*out/toy \(Permission denied: .*out/toy\)\. Choose another"
    with pytest.raises(UserError, match=message):
        toys.build(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_nothing_stays_of_a_build_that_is_ended(ending, tmp_path):
    def end(number: int) -> None:
        raise ending

    builder = toys.Builder(data_dir=tmp_path / "out", file_format="array_record")
    builder.on_progress = end
    source = str(toys.write_toys(tmp_path / "in"))
    threads = threading.active_count()
    with pytest.raises(ending) as caught:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=source)
        )
    assert not (tmp_path / "out").exists()
    assert threading.active_count() == threads, "left to whenever the error is forgotten"
    assert caught.tb


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, path, options):
            raise RuntimeError("something else")

    monkeypatch.setattr(record_builder, "ArrayRecordWriter", Broken)
    with pytest.raises(RuntimeError, match="something else"):
        toys.build(toys.write_toys(tmp_path / "in"), tmp_path / "out")


def start_build(source: Path, data_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data_builders.toy_dataset", str(source), str(data_dir)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, text=True, stderr=subprocess.PIPE)


def wait_for_writing(process: subprocess.Popen[str], data_dir: Path) -> None:
    while not list(data_dir.glob("toy/incomplete*/*")) and process.poll() is None:
        time.sleep(0.01)


def test_killed_build_never_opens_and_the_next_one_cleans_up(tmp_path):
    source, data_dir = toys.write_toys(tmp_path / "in", train=2_500), tmp_path / "out"
    for seed in range(3):
        process = start_build(source, data_dir)
        wait_for_writing(process, data_dir)
        time.sleep(random.Random(seed).uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL and not (data_dir / "toy" / "1.0.0").exists():
            assert builds.find_build("toy", data_dir) is None
            assert list(data_dir.glob("toy/incomplete*"))
    folder = toys.build(source, data_dir)
    assert builds.verify(folder) == 2_503
    assert [path.name for path in (data_dir / "toy").iterdir()] == ["1.0.0"]


def test_two_builds_at_once_end_with_one_good_build(tmp_path):
    source, data_dir = toys.write_toys(tmp_path / "in", train=1_500), tmp_path / "out"
    processes = [start_build(source, data_dir) for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert builds.verify(data_dir / "toy" / "1.0.0") == 1_503
    assert os.listdir(data_dir / "toy") == ["1.0.0"]


def test_without_locks_what_another_process_may_be_writing_stays(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(exclusive.fcntl, "flock", refuse)
    other = tmp_path / "out" / "toy" / "incomplete.ABC_1.0.0"
    other.mkdir(parents=True)
    assert builds.verify(toys.build(toys.write_toys(tmp_path / "in"), tmp_path / "out")) == 8
    assert other.exists()


def test_second_builder_waits_and_takes_over_when_the_first_fails(tmp_path):
    source, data_dir = toys.write_toys(tmp_path / "in"), tmp_path / "out"
    first = building_alone(data_dir / "toy" / "1.0.0")
    first.__enter__()
    second = start_build(source, data_dir)
    assert second.stderr is not None
    assert any("another process builds in" in line for line in second.stderr)
    assert not list(data_dir.glob("toy/*"))
    first.__exit__(OSError, OSError("the disk is full"), None)  # removes the empty folders
    second.communicate()
    assert second.returncode == 0
    assert builds.verify(data_dir / "toy" / "1.0.0") == 8


# Verification.


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def built(tmp_path) -> Path:
    return toys.build(toys.write_toys(tmp_path / "in", train=30, side=64), tmp_path / "out")


def test_flipped_byte_in_a_record_is_found(built):
    shard = next(built.glob("toy-train.array_record*1"))
    image = next(iter(open_records(built, "train")))["image"]
    flip(shard, shard.read_bytes().index(image[-100:]))
    with pytest.raises(UserError, match=r"is damaged: .*\n  split 'train', record "):
        builds.verify(built)


def test_flipped_byte_in_a_digest_is_found(built):
    flip(next(built.glob("toy-train*.sha256")), 32 * 7 + 5)
    message = r"1 of 33 records .*\n  split 'train', record 7 of toy-train.*: its bytes are not"
    with pytest.raises(UserError, match=message):
        builds.verify(built)


def test_build_without_digests_is_said_to_be_unchecked(built):
    next(built.glob("toy-train*.sha256")).unlink()
    with pytest.raises(UserError, match=r"is missing, so .* cannot be checked"):
        builds.verify(built)


def test_wrong_content_is_found_even_if_its_digest_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(image_builder, "stored_image", lambda encoded, box=None: encoded[:400])
    folder = toys.build(toys.write_toys(tmp_path / "in", train=2, test=1), tmp_path / "out")
    message = (
        r"3 of 3 records.*\n.*its image cannot be decoded .*: fetch 'test/\d_0000\d\.jpg' again"
    )
    with pytest.raises(UserError, match=message):
        builds.verify(folder)
