"""Archives beside each other and in each other: nothing of them is mixed, lost or swells unseen."""

import io
import zipfile

import pytest

from data_builders.common import archives, source_files
from data_builders.common.source_files import SourceFiles
from dmfer_jax.errors import UserError
from tests.data_builders.packing import tar_bytes, write_folder, zip_bytes


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_split_in_an_archive_of_its_own_is_that_split(tmp_path, kind):
    packed = zip_bytes if kind == "zip" else lambda files: tar_bytes(files, "gz")
    for split in ("Train", "test"):
        (tmp_path / f"{split}.{kind}").write_bytes(packed({"happy/1.jpg": split.encode()}))
    (tmp_path / f"val.{kind}").write_bytes(packed({"val/happy/1.jpg": b"val"}))
    with SourceFiles(tmp_path) as files:
        for split in ("Train", "test", "val"):
            assert files.read(f"{split}/happy/1.jpg") == split.encode()


def test_archives_that_hold_other_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "one.zip").write_bytes(zip_bytes({"happy/1.jpg": b"somebody"}))
    for other in (b"somebody else", b"someBODY"):
        (tmp_path / "two.zip").write_bytes(zip_bytes({"happy/1.jpg": other}))
        with pytest.raises(UserError, match=r"one\.zip.* and .*two\.zip both hold 'happy/1\.jpg'"):
            SourceFiles(tmp_path)


def test_an_archive_that_lies_there_twice_is_read_once(tmp_path):
    for name in ("faces.zip", "faces (1).zip"):
        (tmp_path / name).write_bytes(zip_bytes({"happy/1.jpg": b"somebody"}))
    with SourceFiles(tmp_path) as files:
        assert files.names_in("happy") == ["1.jpg"]


def test_many_small_archives_together_fill_no_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 100_000)
    inner = {f"{i}.tar.gz": tar_bytes({f"{i}.bin": bytes(60_000)}, "gz") for i in range(3)}
    (tmp_path / "a.zip").write_bytes(zip_bytes(inner))
    with pytest.raises(UserError, match=r"with what was unpacked before, unpacks to more than"):
        SourceFiles(tmp_path / "a.zip")


def rename_in_zip(name: str, encoding: str) -> bytes:
    """A zip whose only name is in an encoding, and which does not say so."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x" * len(name.encode(encoding)), b"a face")
    return file.getvalue().replace(b"x" * len(name.encode(encoding)), name.encode(encoding))


def test_name_in_a_zip_is_utf8_or_nobody_knows(tmp_path):
    (tmp_path / "mac.zip").write_bytes(rename_in_zip("fröhlich/1.jpg", "utf-8"))
    with SourceFiles(tmp_path / "mac.zip") as files:
        assert list(files) == ["fröhlich/1.jpg"]
    (tmp_path / "windows.zip").write_bytes(rename_in_zip("高兴/1.jpg", "gbk"))
    with pytest.raises(UserError, match="name is in an encoding that it does not tell"):
        SourceFiles(tmp_path / "windows.zip")


def test_files_are_compared_however_large_and_a_single_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "MAX_FILE_BYTES", 2)
    write_folder({"a": b"12345", "b": b"12345", "c": b"12346"}, tmp_path)
    with SourceFiles(tmp_path) as files:
        assert files.are_alike(["a", "b"])
        assert not files.are_alike(["a", "b", "c"])
        monkeypatch.setattr(files, "open", None)
        assert files.are_alike(["a"])


def test_folders_of_drives_are_left_out(tmp_path):
    names = ["$RECYCLE.BIN/1.jpg", "lost+found/1.jpg", "a/@eaDir/1.jpg/THUMB.jpg"]
    write_folder(dict.fromkeys([*names, "a/1.jpg"], b"a"), tmp_path)
    with SourceFiles(tmp_path) as files:
        assert list(files) == ["a/1.jpg"]
