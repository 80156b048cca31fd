"""What is kept of a build is what would be read again; other or damaged files are not believed."""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmfer_jax.config import get_config
from dmfer_jax.data import decoded, sources
from dmfer_jax.data.sources import RecordImages, load_split


@pytest.fixture
def faces(data_dir: Path, tmp_path: Path) -> Path:
    """A build of its own, of which nothing is kept yet; valid has 16 faces."""
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    ignored = shutil.ignore_patterns("decoded")
    return Path(shutil.copytree(folder, tmp_path / "records", ignore=ignored))


def load(folder: Path, **changes: Any) -> sources.Split:
    options: Any = get_config().data
    options.update({"image_size": 24, "channels": 1, "workers": 2, **changes})
    return load_split(folder, "valid", options, train=False)


def kept(folder: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in (folder / "decoded").iterdir())


@pytest.fixture
def read_nothing(monkeypatch):
    """Makes decoding and reading of records fail."""

    def refuse(*_: Any) -> None:
        raise AssertionError("was read again")

    def forbid() -> None:
        monkeypatch.setattr(RecordImages, "decode_into", refuse)
        monkeypatch.setattr(sources, "read_fields", refuse)

    return forbid


def assert_same(found: sources.Split, expected: sources.Split) -> None:
    np.testing.assert_array_equal(np.asarray(found.images), np.asarray(expected.images))
    for field in ("labels", "targets", "rows", "repeated", "names"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def test_second_load_reads_no_record_and_gives_the_same(faces, read_nothing):
    first = load(faces)
    assert kept(faces) == ["valid-24x1", "valid-fields"]
    read_nothing()
    assert_same(load(faces), first)
    assert len(load(faces, limit=5)) == 5  # what is there serves a part of it, too
    streamed = load(faces, memory_gib=0.0)
    np.testing.assert_array_equal(streamed.images[3], first.images[3])


def test_images_that_a_choice_leaves_in_stay_in_the_file(faces):
    whole = load(faces)
    dropped = whole.class_names[0]
    chosen = load(faces, drop_classes=(dropped,))
    assert isinstance(chosen.images, sources.ChosenImages)
    assert isinstance(chosen.images._images, np.memmap)
    kept_rows = np.flatnonzero(whole.labels)
    assert 0 < len(chosen) == len(chosen.images) == len(kept_rows) < len(whole)
    expected = np.asarray(whole.images)[kept_rows]
    np.testing.assert_array_equal(chosen.images[:], expected)
    np.testing.assert_array_equal(chosen.images[np.array([2, 0])], expected[[2, 0]])
    np.testing.assert_array_equal(chosen.images[1], expected[1])
    assert chosen.images.nbytes == expected.nbytes


def test_what_does_not_fit_or_is_a_part_is_not_kept(faces):
    load(faces, memory_gib=0.0)
    load(faces, limit=5)
    assert kept(faces) == ["valid-fields"]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path.open("wb"), np.zeros((16, 12, 12, 1), np.uint8)),
    ],
    ids=["cut", "empty", "other"],
)
def test_damaged_file_is_made_again_which_is_said(faces, capsys, suffix, damage):
    decoded._say.cache_clear()
    load(faces)
    (path,) = (faces / "decoded").glob(f"*.{suffix}")
    whole = path.read_bytes()
    damage(path)
    load(faces)
    assert f"{path} is damaged" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_other_decoder_or_records_find_nothing_and_leave_nothing_old(faces, monkeypatch):
    load(faces)
    before = {path.name for path in (faces / "decoded").iterdir()}
    monkeypatch.setattr(decoded, "DECODER_VERSION", decoded.DECODER_VERSION + 1)
    load(faces)
    after = {path.name for path in (faces / "decoded").iterdir()}
    assert len(after) == 2
    assert len(after & before) == 1  # the fields do not depend on the decoder
    (digests,) = faces.glob("*valid*.sha256")
    digests.write_bytes(digests.read_bytes()[::-1])
    load(faces)
    assert not {path.name for path in (faces / "decoded").iterdir()} & after


def test_folder_that_cannot_be_written_is_done_without_and_said_once(faces, capsys):
    decoded._say.cache_clear()
    expected = load(faces)
    shutil.rmtree(faces / "decoded")
    (faces / "decoded").write_text("in the way")
    capsys.readouterr()
    assert_same(load(faces), expected)
    load(faces)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{faces / 'decoded'} cannot be written")


def test_interrupted_writing_leaves_nothing(faces, monkeypatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RecordImages, "decode_into", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(faces)
    assert kept(faces) == ["valid-fields"]


def test_a_disk_without_room_is_done_without_before_anything_is_decoded(faces, monkeypatch, capsys):
    decoded._say.cache_clear()
    expected = load(faces)
    shutil.rmtree(faces / "decoded")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decoded.os, "posix_fallocate", refuse)
    assert_same(load(faces), expected)
    assert kept(faces) == ["valid-fields"]
    assert "No space left on device" in capsys.readouterr().err


def test_images_are_decoded_into_the_file_and_not_into_memory(faces, monkeypatch):
    into, honest = [], RecordImages.decode_into

    def note(self: RecordImages, images: np.ndarray) -> None:
        into.append(type(images))
        honest(self, images)

    monkeypatch.setattr(RecordImages, "decode_into", note)
    split = load(faces)
    assert into == [np.memmap]
    whole = RecordImages(sources.open_records(faces, "valid"), np.arange(len(split)), 24, 1, 1)
    np.testing.assert_array_equal(split.images, whole.decode_all())
