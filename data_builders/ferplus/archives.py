"""Reads one csv out of a file that may be plain, a tar.gz or a zip, as a stream.

Nothing is ever unpacked to disk, so names and links inside an archive can lead nowhere: the first
ordinary file with a wanted name is read, all else is passed over. What a small archive may swell
to is bounded.
"""

import contextlib
import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from dmfer_jax.errors import UserError

MAX_BYTES = 2**30
"""What may come out of one file. The complete fer2013.csv has 301 MB."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_ENCRYPTED = 0x1
_DAMAGE = (
    EOFError,
    zlib.error,
    tarfile.TarError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    NotImplementedError,  # zipfile: an unknown version or compression
    UnicodeDecodeError,  # zipfile: a name that is no text
)


@contextlib.contextmanager
def open_csv(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, io.BufferedReader]]:
    """Opens a csv, in whichever form it comes.

    What the file holds decides, not what it is called. Damage met while the caller reads is
    reported as a `UserError` too, so read inside the `with` block.

    Args:
      path: a plain csv, a tar.gz or a zip.
      names: file names to look for in an archive, best first.

    Yields:
      A name for messages ("fer2013.tar.gz (fer2013/fer2013.csv)") and the stream of bytes.

    Raises:
      UserError: the file is empty, unreadable or damaged, holds no such csv, or swells beyond
        `MAX_BYTES`.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if not magic:
                raise UserError(f"{path} is empty (0 bytes). Fetch it again.")
            if magic.startswith(_GZIP_MAGIC):
                opened = _open_tar_gz(path, file, names)
            elif magic == _ZIP_MAGIC:
                opened = _open_zip(path, file, names)
            else:
                opened = _open_plain(path, file)
            with opened as (name, stream):
                yield name, stream
    except _DAMAGE as error:
        raise UserError(
            f"{path} is damaged, cut short, or packed in a way that cannot be read here ({error}). "
            f"Fetch it again, or unpack it yourself and give the folder with {names[0]}."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def zip_holds(path: Path, names: tuple[str, ...]) -> bool:
    """Returns whether a zip lists a file of one of these names; False if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_rank(info.filename, names) is not None for info in archive.infolist())
    except (*_DAMAGE, OSError):
        return False


@contextlib.contextmanager
def _open_plain(path: Path, file: IO[bytes]) -> Iterator[tuple[str, io.BufferedReader]]:
    yield str(path), _bounded(file, path)


@contextlib.contextmanager
def _open_tar_gz(
    path: Path, file: IO[bytes], names: tuple[str, ...]
) -> Iterator[tuple[str, io.BufferedReader]]:
    with gzip.open(file) as unzipped:
        # The bound lies under tarfile, so that members passed over count as well.
        source = _bounded(unzipped, path)
        with tarfile.open(fileobj=source, mode="r|") as archive:
            seen: list[str] = []
            for member in archive:
                seen.append(member.name)
                # REGTYPE and AREGTYPE only: no links, no devices, no sparse files.
                ordinary = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if ordinary and _rank(member.name, names) is not None:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield f"{path} ({member.name})", _bounded(content, path)
                    # gzip compares its checksum at the end only.
                    while source.read(2**20):
                        pass
                    return
    raise _nothing_inside(path, names, seen)


@contextlib.contextmanager
def _open_zip(
    path: Path, file: IO[bytes], names: tuple[str, ...]
) -> Iterator[tuple[str, io.BufferedReader]]:
    with zipfile.ZipFile(file) as archive:
        wanted = [
            (rank, info)
            for info in archive.infolist()
            if (rank := _rank(info.filename, names)) is not None and _is_ordinary(info)
        ]
        if not wanted:
            raise _nothing_inside(path, names, archive.namelist())
        _, member = min(wanted, key=lambda pair: pair[0])
        if member.flag_bits & _ZIP_ENCRYPTED:
            raise UserError(
                f"{path} ({member.filename}) is locked with a password. Unpack it yourself and "
                f"give the folder with {names[0]}."
            )
        with archive.open(member) as content:
            yield f"{path} ({member.filename})", _bounded(content, path)


def _is_ordinary(info: zipfile.ZipInfo) -> bool:
    # Zips made on Unix keep the file type in the upper half; 0 where the maker kept none.
    kind = stat.S_IFMT(info.external_attr >> 16)
    return not info.is_dir() and kind in (0, stat.S_IFREG)


def _rank(member: str, names: tuple[str, ...]) -> int | None:
    name = PurePosixPath(member).name
    return names.index(name) if name in names else None


def _nothing_inside(path: Path, names: tuple[str, ...], seen: list[str]) -> UserError:
    found = ", ".join(seen[:10]) + (", ..." if len(seen) > 10 else "")
    return UserError(
        f"{path} holds no {' or '.join(names)}; it holds {found or 'nothing'}. Give the archive "
        "as its owners hand it out, or the csv itself."
    )


def _bounded(stream: IO[bytes] | gzip.GzipFile, path: Path) -> io.BufferedReader:
    return io.BufferedReader(_Bounded(stream, path), buffer_size=2**18)


class _Bounded(io.RawIOBase):
    """Hands on a stream and stops with a `UserError` after `MAX_BYTES`."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, path: Path):
        self._stream = stream
        self._path = path
        self._left = MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UserError(
                f"{self._path} unpacks to more than {MAX_BYTES:,} bytes; fer2013.csv has 301 "
                "million. This is not the file its owners hand out."
            )
        buffer[: len(data)] = data
        return len(data)
