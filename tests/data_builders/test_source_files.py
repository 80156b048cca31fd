"""Whatever packs a source, its files are the same; what is damaged or hostile is refused."""

import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_builders.common import archives
from data_builders.common.source_files import SourceFiles
from dmfer_jax.errors import UserError
from tests.data_builders.packing import PACKINGS, pack, tar_bytes, write_folder, zip_bytes

FILES = {
    "list.txt": b"a.jpg 1\n",
    "Image/aligned/a.JPG": b"A" * 3_000,
    "Image/aligned/b.jpg": b"",
    "Image/c.jpg": bytes(range(256)),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_gives_the_same_files(packing, tmp_path):
    with SourceFiles(pack(FILES, packing, tmp_path / "in")) as files:
        for path, content in FILES.items():
            (found,) = files.find(Path(path).name.lower())
            assert found.endswith(path)
            assert files.read(found) == content
            assert found in files
            folder, _, name = found.rpartition("/")
            assert name in files.names_in(folder)
    assert {p.name for p in tmp_path.iterdir()} == {"in"}  # nothing is unpacked beside it


def test_archive_lies_where_it_would_be_unpacked(tmp_path):
    inner = zip_bytes({"aligned/a.jpg": b"from the zip", "aligned/b.jpg": b"b"})
    write_folder({"Image/aligned.zip": inner, "Image/aligned/a.jpg": b"mended"}, tmp_path)
    with SourceFiles(tmp_path) as files:
        assert files.names_in("Image/aligned") == ["a.jpg", "b.jpg"]
        assert files.read("Image/aligned/a.jpg") == b"mended"  # what is unpacked comes first
        assert files.archives == ["Image/aligned.zip"]


@pytest.mark.parametrize("source", [".", "a.zip"])
def test_archives_are_looked_into_two_levels_deep(tmp_path, source):
    deep = zip_bytes({"deep.zip": zip_bytes({"c.jpg": b"c"})})
    (tmp_path / "a.zip").write_bytes(zip_bytes({"b.zip": deep}))
    with SourceFiles(tmp_path / source) as files:
        assert {"b.zip", "deep.zip"} <= set(files)
        assert "c.jpg" not in files
        assert files.unreadable == ["deep.zip"]


def test_archives_beside_a_file_are_left_alone(tmp_path):
    write_folder({"list.txt": b"a", "other.zip": b"PK\x03\x04 damaged"}, tmp_path)
    with SourceFiles(tmp_path / "list.txt") as files:
        assert files.archives == []


def test_files_of_systems_are_left_out(tmp_path):
    clutter = dict.fromkeys(
        ["__MACOSX/._a.jpg", ".DS_Store", "x/._a.jpg", "Thumbs.db", "Icon\r"], b""
    )
    for packing in ("folder", "zip", "tar"):
        with SourceFiles(pack({"a.jpg": b"a", **clutter}, packing, tmp_path / packing)) as files:
            assert list(files) == ["a.jpg"]


def test_a_file_stands_for_its_folder(tmp_path):
    write_folder(FILES, tmp_path)
    with SourceFiles(tmp_path / "list.txt") as files:
        assert files.read("Image/c.jpg") == FILES["Image/c.jpg"]


def test_threads_read_the_same_archive(tmp_path):
    contents = {f"{number}.bin": bytes([number]) * 50_000 for number in range(40)}
    for packing in ("zip", "tar"):
        with (
            SourceFiles(pack(contents, packing, tmp_path / packing)) as files,
            ThreadPoolExecutor(8) as pool,
        ):
            assert dict(zip(contents, pool.map(files.read, contents), strict=True)) == contents


def zip_with(name: str, mode: int = 0o100644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"content")
    return file.getvalue()


def tar_with(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/hostname"
        archive.addfile(info)
    return file.getvalue()


HOSTILE = {
    "zip leads up": (zip_with("../../evil.jpg"), "'../../evil.jpg', which leads out"),
    "zip leads up later": (zip_with("a/../../evil.jpg"), "which leads out of the archive"),
    "zip leads up by backslash": (zip_with("..\\evil.jpg"), "which leads out of the archive"),
    "zip from the root": (zip_with("/etc/evil.jpg"), "'/etc/evil.jpg', which leads out"),
    "zip from a drive": (zip_with("C:evil.jpg"), "'C:evil.jpg', which leads out"),
    "zip breaks lines": (zip_with("a\nerror: b.jpg"), "'a\\\\nerror: b.jpg', which has characters"),
    "zip with a link": (zip_with("a.jpg", 0o120777), "'a.jpg', which is a link or a device"),
    "tar leads up": (tar_with("../evil.jpg"), "'../evil.jpg', which leads out"),
    "tar from the root": (tar_with("/evil.jpg"), "'/evil.jpg', which leads out"),
    "tar with a link": (tar_with("a.jpg", tarfile.SYMTYPE), "'a.jpg', which is a link"),
    "tar with a hard link": (tar_with("a.jpg", tarfile.LNKTYPE), "which is a link or a device"),
    "tar with a pipe": (tar_with("a.jpg", tarfile.FIFOTYPE), "which is a link or a device"),
    "tar with a device": (tar_with("a.jpg", tarfile.CHRTYPE), "which is a link or a device"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive_is_refused_by_name(case, nested, tmp_path):
    content, message = HOSTILE[case]
    path = tmp_path / f"images.{case.split()[0]}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"images\.\w+ holds .*{message}"):
        SourceFiles(tmp_path if nested else path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[31mb.jpg", "a\rb/c.jpg", "a\x9b.jpg"])
def test_name_that_would_forge_what_is_printed_is_refused(name, tmp_path):
    write_folder({name: b"a"}, tmp_path / "source")
    with pytest.raises(UserError, match=r"source holds a file named 'a\\.*cannot be printed"):
        SourceFiles(tmp_path / "source")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_that_holds_a_name_twice_is_refused(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    one, two = (
        pack({"x/a.jpg": content}, kind, tmp_path / str(content)) for content in (b"1", b"2")
    )
    if kind == "tar":
        path.write_bytes(one.read_bytes()[:1_024] + two.read_bytes())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/a.jpg", b"1")
            archive.writestr("x//a.jpg", b"2")
    with pytest.raises(UserError, match=r"holds 'x/a\.jpg' twice, and which one is meant"):
        SourceFiles(path)


def test_swelling_zip_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 10_000)
    (tmp_path / "a.zip").write_bytes(zip_bytes({"bomb.jpg": bytes(2_000_000)}))
    with (
        SourceFiles(tmp_path / "a.zip") as files,
        pytest.raises(UserError, match=r"a\.zip \(bomb\.jpg\) unpacks to 2,000,000 bytes from"),
    ):
        files.read("bomb.jpg")


def test_swelling_tar_gz_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 10_000)
    (tmp_path / "a.tar.gz").write_bytes(tar_bytes({"bomb.jpg": bytes(9_000_000)}, "gz"))
    with pytest.raises(UserError, match=r"a\.tar\.gz, .*unpacks to more than [\d,]+ bytes"):
        SourceFiles(tmp_path / "a.tar.gz")


def test_file_too_large_for_memory_is_refused(tmp_path, monkeypatch):
    write_folder({"a.jpg": bytes(101)}, tmp_path)
    with SourceFiles(tmp_path) as files:
        assert len(files.read("a.jpg", limit=101)) == 101
        with pytest.raises(UserError, match=r"a\.jpg has more than 100 bytes"):
            files.read("a.jpg", limit=100)


@pytest.mark.parametrize("packing", ["zip", "tar.gz"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95])
def test_archive_cut_short_is_reported(packing, keep, tmp_path):
    noise = {"a.jpg": os.urandom(30_000), "b.jpg": os.urandom(30_000)}
    path = pack(noise, packing, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match="is damaged, cut short, or packed"):
        SourceFiles(path)


@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_tar_cut_short_is_reported(keep, tmp_path):
    path = pack({"a.jpg": os.urandom(30_000), "b.jpg": os.urandom(30_000)}, "tar", tmp_path)
    path.write_bytes(path.read_bytes()[: int(keep * 63_000)])

    def read_all() -> None:
        with SourceFiles(path) as files:
            for name in files:
                files.read(name)

    with pytest.raises(UserError, match="is damaged, cut short"):
        read_all()


def test_tar_cut_between_two_files_is_reported(tmp_path):
    path = pack({"a.jpg": b"a" * 512, "b.jpg": b"b"}, "tar", tmp_path)
    path.write_bytes(path.read_bytes()[:1_024])  # a header and a.jpg
    with pytest.raises(UserError, match=r"is damaged, cut short.*\(it lacks its end\)"):
        SourceFiles(path)


def header(kind: bytes, size: int = 4) -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(record: bytes) -> bytes:
    return header(tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")


LONG_NAME = header(tarfile.GNUTYPE_LONGNAME) + b"b\0".ljust(512, b"\0")
HOSTILE_HEADERS = {
    "of a negative size": header(tarfile.REGTYPE, -1_024),
    "of a name of a negative size": header(tarfile.GNUTYPE_LONGNAME, -512),
    "of a name beyond all memory": header(tarfile.GNUTYPE_LONGNAME, 2**62),
    "of a size beyond all disks": header(tarfile.REGTYPE, 2**70),
    "in thousands before one file": LONG_NAME * 3_000 + header(tarfile.REGTYPE, 0),
    "of a map of holes": pax(b"24 GNU.sparse.map=a,b,c\n") + header(tarfile.REGTYPE, 0),
    "that is none, after a file": header(tarfile.REGTYPE, 0) + b"x" * 512,
}


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
def test_tar_with_a_hostile_header_is_refused(case, tmp_path):
    (tmp_path / "a.tar").write_bytes(HOSTILE_HEADERS[case] + bytes(1_024))
    with pytest.raises(UserError, match=r"a\.tar is damaged, cut short, or packed in a way"):
        SourceFiles(tmp_path / "a.tar")


def test_flipped_byte_in_a_zip_is_reported(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored, not deflated
        archive.writestr("a.jpg", b"x" * 1_000)
    path.write_bytes(path.read_bytes().replace(b"x" * 9, b"x" * 8 + b"y", 1))
    with (
        SourceFiles(path) as files,
        pytest.raises(UserError, match=r"a\.zip \(a\.jpg\) is damaged"),
    ):
        files.read("a.jpg")


@pytest.mark.parametrize("way", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_content_is_reported_however_it_was_packed(way, tmp_path):
    path, content = tmp_path / "a.zip", bytes(range(256)) * 20
    with zipfile.ZipFile(path, "w", way) as archive:
        archive.writestr("a.jpg", content)
    whole, refused = path.read_bytes(), 0
    for place in range(40, 80):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with SourceFiles(path) as files:
            try:
                assert files.read("a.jpg") == content  # not every byte matters
            except UserError:
                refused += 1
    assert refused > 30


def test_zip_with_a_nameless_file_is_reported(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_bytes({"name": b"a"}).replace(b"name", b"\0ame"))
    with pytest.raises(UserError, match=r"a\.zip is damaged.*\(a file without a name\)"):
        SourceFiles(tmp_path / "a.zip")


def test_locked_zip_says_to_unpack_it(tmp_path):
    locked = bytearray(zip_bytes({"a.jpg": b"a"}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag that says so, in the directory
    (tmp_path / "a.zip").write_bytes(locked)
    with SourceFiles(tmp_path) as files, pytest.raises(UserError, match="locked with a password"):
        files.read("a.jpg")


def test_nothing_there_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist\. Give the file or folder"):
        SourceFiles(tmp_path / "nowhere")


def test_source_whose_name_no_disk_takes_is_reported():
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        SourceFiles(Path("/" + "a" * 300))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.rar", "a.7z"])
def test_no_archive_by_an_archive_name_is_reported(name, tmp_path):
    (tmp_path / name).write_bytes(b"<html>404: Not Found</html>")
    with pytest.raises(UserError, match=rf"{name} is no zip, tar or tar\.gz\. Unpack it yourself"):
        SourceFiles(tmp_path / name)


def test_empty_file_is_reported(tmp_path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(UserError, match=r"a\.zip is empty \(0 bytes\)"):
        SourceFiles(tmp_path / "a.zip")


def test_full_temporary_folder_says_what_to_set(tmp_path, monkeypatch):
    path = pack({"a.jpg": b"a"}, "tar.gz", tmp_path)

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.tempfile, "TemporaryFile", Full)
    with pytest.raises(UserError, match=r"cannot be unpacked into .*No space left.*TMPDIR"):
        SourceFiles(path)


def test_source_is_described_with_what_cannot_be_read(tmp_path):
    write_folder({"a.rar": b"Rar!", "b/c.txt": b"", "b/d.zip": b"<html>"}, tmp_path)
    with SourceFiles(tmp_path) as files:
        assert files.describe() == (
            "it holds a.rar, b/. Unpack a.rar, b/d.zip yourself: it cannot be read here"
        )
