"""Zip, tar and tar.gz archives as lists of members that can be read in any order.

Nothing is ever unpacked under a member's name, so a hostile name or link can lead nowhere; an
archive that holds one is refused all the same, since it is not what a dataset's owners hand out.
What a small archive may swell to is bounded.
"""

import contextlib
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

from dmfer_jax.errors import UserError

MAX_RATIO = 100
"""How many times its own size an archive may unpack to; images hardly shrink, text by 3 to 10."""

FREE_BYTES = 2**30
"""What archives may unpack to, whatever their own size."""

UNREADABLE_SUFFIXES = (".rar", ".7z", ".z01", ".001", ".bz2", ".xz")
"""Archives that are met in the wild and are not read here."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_TAR_END = bytes(tarfile.BLOCKSIZE)
_ZIP_ENCRYPTED, _ZIP_UTF8 = 0x1, 0x800
_DAMAGE = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    NotImplementedError,  # zipfile: an unknown version or compression
    UnicodeDecodeError,  # zipfile: a name that is no text
)


class UnpackBudget:
    """How much all archives of a source may unpack to: a few small ones may hold many others.

    Attributes:
      packed: bytes of those on disk.
      unpacked: bytes of what came out of all.
    """

    def __init__(self) -> None:
        self.packed = self.unpacked = 0

    def take(self, size: int, where: str) -> None:
        """Counts what came out of an archive.

        Raises:
          UserError: it is more than any dataset holds.
        """
        self.unpacked += size
        limit = max(FREE_BYTES, MAX_RATIO * self.packed)
        if self.unpacked > limit:
            raise UserError(
                f"{where}, with what was unpacked before, unpacks to more than {limit:,} bytes, "
                f"far more than the {self.packed:,} on disk. This is not an archive as a dataset's "
                "owners hand it out."
            )


class Archive(Protocol):
    """The ordinary files of an archive; `token` is what the archive needs to find one again.

    Attributes:
      where: its name, for messages.
    """

    where: str

    def members(self) -> Iterator[tuple[str, Any]]:
        """Yields each member's name and token."""
        ...

    def open(self, token: Any) -> IO[bytes]:
        """Returns a member's content as a stream; several may be open at once."""
        ...

    def size(self, token: Any) -> int:
        """Returns a member's size in bytes, as the archive states it."""
        ...


def open_archive(
    file: IO[bytes], where: str, stack: contextlib.ExitStack, budget: UnpackBudget
) -> Archive | None:
    """Opens an archive; what the file holds decides, not what it is called.

    Args:
      file: seekable.
      where: the file's name, for messages.
      stack: closes what is opened.
      budget: for what is unpacked.

    Returns:
      The archive, or None if the file is none.

    Raises:
      UserError: it is damaged, or swells beyond all measure.
    """
    with readable(where):
        magic = file.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
        file.seek(0)
        if magic.startswith(_ZIP_MAGICS):
            return _Zip(stack.enter_context(zipfile.ZipFile(file)), where)
        if magic.startswith(_GZIP_MAGIC):
            unpacked = _gunzipped(file, where, stack, budget)
            return None if unpacked is None else _Tar(unpacked, where)
        if magic[_TAR_MAGIC_AT:] == _TAR_MAGIC:
            return _Tar(file, where)
    return None


def are_same(first: tuple[Archive, Any], second: tuple[Archive, Any]) -> bool:
    """Returns whether members of two archives, each with its token, hold the same bytes."""
    if first[0].size(first[1]) != second[0].size(second[1]):
        return False
    with first[0].open(first[1]) as one, second[0].open(second[1]) as other:
        return digest(one) == digest(other)


def digest(stream: IO[bytes]) -> bytes:
    """Returns the SHA-256 of what is left of a stream, however long."""
    return hashlib.file_digest(stream, "sha256").digest()  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def readable(where: str) -> Iterator[None]:
    """Turns what reading a damaged or locked file raises into a `UserError` that names it."""
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f"{where} is damaged, cut short, or packed in a way that cannot be read here "
            f"({error}). Fetch it again, or unpack it yourself and give the folder."
        ) from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or error}.") from error


def copy_to_temporary_file(
    stream: IO[bytes], where: str, stack: contextlib.ExitStack, budget: UnpackBudget
) -> IO[bytes]:
    """Unpacks a stream into a nameless file, which vanishes with the process.

    Args:
      stream: to read to its end.
      where: its name, for messages.
      stack: closes the file.
      budget: for what comes out.

    Raises:
      UserError: more comes out than any dataset holds, or the disk is full.
    """
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    while block := stream.read(2**20):
        budget.take(len(block), where)
        try:
            file.write(block)
        except OSError as error:
            raise UserError(
                f"{where} cannot be unpacked into {tempfile.gettempdir()}: {error.strerror}. Set "
                "the environment variable TMPDIR to a folder with more space, or unpack it "
                "yourself and give the folder."
            ) from error
    file.seek(0)
    return file


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, where: str):
        self._archive, self.where = archive, where

    def members(self) -> Iterator[tuple[str, zipfile.ZipInfo]]:
        for info in self._archive.infolist():
            if not info.filename:
                raise zipfile.BadZipFile("a file without a name")
            if info.is_dir():
                continue
            # Zips made on Unix keep the file type in the upper half; 0 where the maker kept none.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _not_a_file(self.where, info.filename)
            yield _checked_name(self.where, _decoded_name(self.where, info)), info

    def open(self, token: zipfile.ZipInfo) -> IO[bytes]:
        if token.flag_bits & _ZIP_ENCRYPTED:
            raise UserError(
                f"{self.where} ({token.filename}) is locked with a password. Unpack it yourself "
                "and give the folder."
            )
        if token.file_size > max(FREE_BYTES, MAX_RATIO * token.compress_size):
            raise UserError(
                f"{self.where} ({token.filename}) unpacks to {token.file_size:,} bytes from "
                f"{token.compress_size:,}. This is not a file as a dataset's owners hand it out."
            )
        return self._archive.open(token)

    def size(self, token: zipfile.ZipInfo) -> int:
        return token.file_size


class _Tar:
    def __init__(self, file: IO[bytes], where: str):
        self._file, self.where = file, where

    def members(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for member in self._headers():
            if member.isdir():
                continue
            # REGTYPE and AREGTYPE only: no links, no devices, no sparse files.
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise _not_a_file(self.where, member.name)
            yield _checked_name(self.where, member.name), (member.offset_data, member.size)

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        """Yields what the tar says of each member.

        Raises:
          tarfile.TarError: it is damaged, or cut short.
        """
        self._file.seek(0)
        with _parsed(lambda: tarfile.open(fileobj=self._file, mode="r:")) as archive:
            while (member := _parsed(archive.next)) is not None:
                # tarfile keeps a kilobyte for each member that it has passed.
                archive.members.clear()
                if member.size < 0:  # tarfile would go back, and round in a circle
                    raise tarfile.TarError("a member of less than no bytes")
                yield member
            # At anything that is no header tarfile ends as if all had been read.
            if os.pread(self._file.fileno(), tarfile.BLOCKSIZE, archive.offset) != _TAR_END:
                raise tarfile.TarError("it lacks its end")

    def open(self, token: tuple[int, int]) -> IO[bytes]:
        return io.BufferedReader(_Part(self._file.fileno(), *token))

    def size(self, token: tuple[int, int]) -> int:
        return token[1]


def _parsed(read: Callable[[], Any]) -> Any:
    """Calls what parses a header; tarfile raises nearly anything on hostile ones."""
    try:
        return read()
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise tarfile.TarError(f"a header cannot be read: {error}") from error


class _Part(io.RawIOBase):
    """A stretch of a file; threads may read several at once."""

    def __init__(self, descriptor: int, start: int, size: int):
        self._descriptor, self._at, self._end = descriptor, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = min(len(buffer), self._end - self._at)
        data = os.pread(self._descriptor, wanted, self._at)
        if wanted and not data:
            raise EOFError("a member reaches beyond the end of the file")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _gunzipped(
    file: IO[bytes], where: str, stack: contextlib.ExitStack, budget: UnpackBudget
) -> IO[bytes] | None:
    """A tar.gz cannot be read in any order; returns the tar inside it, or None if there is none."""
    with gzip.open(file) as unzipped:
        magic = unzipped.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
        if magic[_TAR_MAGIC_AT:] != _TAR_MAGIC:
            return None
        unzipped.seek(0)
        return copy_to_temporary_file(unzipped, where, stack, budget)  # pyright: ignore[reportArgumentType]


def _decoded_name(where: str, info: zipfile.ZipInfo) -> str:
    """A zip says whether its names are UTF-8, which some makers forget to; else nobody knows."""
    if info.flag_bits & _ZIP_UTF8 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode()  # as zipfile has read it
    except UnicodeError:
        raise UserError(
            f"{where} holds a file whose name is in an encoding that it does not tell "
            f"({info.filename!r}). Unpack it yourself and give the folder."
        ) from None


def _checked_name(where: str, name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))  # some zips of Windows have its separators
    drive = re.match("[A-Za-z]:", name)
    if path.is_absolute() or ".." in path.parts or drive:
        raise UserError(
            f"{where} holds a file named {name!r}, which leads out of the archive. This is not an "
            "archive as a dataset's owners hand it out; fetch it again from them."
        )
    return str(path)


def _not_a_file(where: str, name: str) -> UserError:
    return UserError(
        f"{where} holds {name!r}, which is a link or a device and no file. This is not an archive "
        "as a dataset's owners hand it out; fetch it again, or unpack it yourself if you trust it."
    )
