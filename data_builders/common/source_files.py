"""The files under whatever a user points at, found and read in one way.

A folder, a zip, a tar or a tar.gz. Archives in a folder, and archives in those, are seen as if
unpacked where they lie. Builders look for names and never care what packs them or how many folders
lie above.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from data_builders.common.archives import (
    UNREADABLE_SUFFIXES,
    Archive,
    UnpackBudget,
    are_same,
    copy_to_temporary_file,
    digest,
    open_archive,
    readable,
)
from dmfer_jax.errors import UserError
from dmfer_jax.files import is_of_a_system

MAX_FILE_BYTES = 2**28
"""What `SourceFiles.read` takes into memory at most: no image or annotation comes near it."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
"""Of what is taken for an image, in any case."""

SPLIT_FOLDERS: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
"""Folder name, in any case -> split."""

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_SETS = (*SPLIT_FOLDERS, "train_set", "val_set")
_DEEPEST = 100  # folders in each other
_CONTROL_CHARACTER = re.compile("[\0-\x1f\x7f-\x9f]")

_Place = tuple[Archive, Any] | None  # None: a file on disk, at its own path


class SourceFiles(contextlib.AbstractContextManager["SourceFiles"]):
    """All files under a source, by their path from it, with "/" between the parts.

    Files of systems (hidden ones, `__MACOSX`) are left out. May be read by several threads.

    Args:
      source: a folder or an archive. Another file stands for the folder that it lies in.
      look_into: tells which archives in it are looked into, by their path. Unless given, all are,
        but none of those that happen to lie beside a file.

    Raises:
      UserError: there is nothing, or it cannot be read, or an archive is damaged or hostile.
    """

    def __init__(self, source: Path, look_into: Callable[[str], bool] | None = None):
        self.source = source
        self._look_into = look_into
        self.archives: list[str] = []  # paths of the archives that were looked into
        self.unreadable: list[str] = []  # paths of archives that cannot be looked into
        self.empty_folders: list[str] = []  # paths of folders on disk with nothing in them
        self.broken: list[str] = []  # paths of links on disk that lead to no file
        self._folders: dict[str, dict[str, _Place]] = {}
        self._stack, self._budget = contextlib.ExitStack(), UnpackBudget()
        try:
            self._index()
        except BaseException:
            self._stack.close()
            raise

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def folders(self) -> list[str]:
        """Returns the folders that hold files; "" is the source itself."""
        return sorted(self._folders)

    def names_in(self, folder: str) -> list[str]:
        """Returns the names of the files directly in a folder, sorted; none if it is not there."""
        return sorted(self._folders.get(folder, ()))

    def find(self, *names: str) -> list[str]:
        """Returns the paths of files with one of these names, in any case, nearest first."""
        wanted = {name.lower() for name in names}
        found = [
            f"{folder}/{name}" if folder else name
            for folder, inside in self._folders.items()
            for name in inside
            if name.lower() in wanted
        ]
        return sorted(found, key=lambda path: (path.count("/"), path))

    def forget(self, folder: str) -> None:
        """Drops a folder whose files will not be read any more, to save memory."""
        self._folders.pop(folder, None)

    def __iter__(self) -> Iterator[str]:
        for folder, names in self._folders.items():
            for name in names:
                yield f"{folder}/{name}" if folder else name

    def __contains__(self, path: object) -> bool:
        folder, _, name = str(path).rpartition("/")
        return name in self._folders.get(folder, ())

    def read(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Returns the content of a file.

        Args:
          path: as given by `find` or `names_in`.
          limit: the most bytes that make sense.

        Raises:
          UserError: it cannot be read, is damaged, or is larger than the limit.
        """
        content = self._read_from_disk(path, limit)
        if content is None:
            with self.open(path) as stream:
                content = stream.read(limit + 1)
        if len(content) > limit:
            raise UserError(
                f"{self.where(path)} has more than {limit:,} bytes; nothing like that belongs to "
                "a dataset of faces."
            )
        return content

    def are_alike(self, paths: Sequence[str]) -> bool:
        """Whether files hold the same bytes, however large; a single one is not read."""
        return len(paths) < 2 or len({self._digest(path) for path in paths}) == 1

    def size(self, path: str) -> int:
        """Returns the bytes of a file."""
        folder, _, name = path.rpartition("/")
        if place := self._folders[folder][name]:
            return place[0].size(place[1])
        with readable(self.where(path)):
            return os.stat(f"{self._root}/{path}").st_size

    def _digest(self, path: str) -> bytes:
        with self.open(path) as stream:
            return digest(stream)

    def _read_from_disk(self, path: str, limit: int) -> bytes | None:
        """Reads a file on disk in a tenth of the time that `open` takes: there are a million.

        Returns None for a file in an archive; and after an error, which `open` meets and tells.
        """
        folder, _, name = path.rpartition("/")
        if self._folders[folder][name] is not None:
            return None
        with contextlib.suppress(OSError):
            descriptor = os.open(f"{self._root}/{path}", os.O_RDONLY)
            try:
                size = min(os.fstat(descriptor).st_size, limit)
                content = os.read(descriptor, size + 1)
                return content if len(content) >= size else None
            finally:
                os.close(descriptor)
        return None

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Opens a file as a stream of bytes; damage met inside the block is a `UserError` too."""
        folder, _, name = path.rpartition("/")
        place = self._folders[folder][name]
        with readable(self.where(path)):
            if place is None:
                with (self._root / path).open("rb") as stream:
                    yield stream
            else:
                archive, token = place
                with archive.open(token) as stream:
                    yield stream

    def where(self, path: str) -> str:
        """Returns how to call a file in a message: its place on disk or in its archive."""
        folder, _, name = path.rpartition("/")
        if self._folders.get(folder, {}).get(name) is None:
            return str(self._root / path)
        return f"{self.source} ({path})"

    def describe(self) -> str:
        """Returns what the source holds, in a line, for a message that it is not recognised."""
        names = sorted({path.split("/")[0] + "/" * ("/" in path) for path in self})
        text = f"it holds {', '.join(names[:12]) or 'no file'}{', ...' if len(names) > 12 else ''}"
        if self.unreadable:
            text += f". Unpack {', '.join(self.unreadable[:3])} yourself: it cannot be read here"
        return text

    def _index(self) -> None:
        self._root = self.source
        with readable(str(self.source)):
            is_there = self.source.exists()
        if not is_there:
            raise UserError(f"{self.source} does not exist. Give the file or folder as downloaded.")
        if self.source.is_dir():
            self._index_folder(self.source, "", frozenset())
        elif not self.source.is_file():
            raise UserError(f"{self.source} is no file and no folder. Give what was downloaded.")
        else:
            with readable(str(self.source)):
                file = self._stack.enter_context(self.source.open("rb"))
            if os.fstat(file.fileno()).st_size == 0:
                raise UserError(f"{self.source} is empty (0 bytes). Fetch it again.")
            self._budget.packed += os.fstat(file.fileno()).st_size
            archive = open_archive(file, str(self.source), self._stack, self._budget)
            if archive is None:
                if self.source.name.lower().endswith((*_ARCHIVE_SUFFIXES, *UNREADABLE_SUFFIXES)):
                    raise UserError(
                        f"{self.source} is no zip, tar or tar.gz. Unpack it yourself and give the "
                        "folder, or fetch it again if it should be one."
                    )
                self._root = self.source.parent
                self._index_folder(self._root, "", frozenset())
                self._look_into = self._look_into or (lambda path: False)
            else:
                self.archives.append(self.source.name)
                self._index_archive(archive, "")
        for _ in range(2 if self.source.is_dir() else 1):
            self._look_into_archives()
        if self.archives and self._look_into is None:  # what lies still deeper is not read
            suffixes, known = _ARCHIVE_SUFFIXES, {*self.archives, *self.unreadable}
            deeper = (path for path in self if path.lower().endswith(suffixes))
            self.unreadable += [path for path in deeper if path not in known]

    def _index_folder(self, folder: Path, path: str, above: frozenset[tuple[int, int]]) -> None:
        with readable(str(folder)):
            status = folder.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:  # a link to a folder above
                return
            # A folder may have a million entries: only their names are kept.
            names, below = [], []
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_of_a_system(entry.name):
                        continue
                    with contextlib.suppress(OSError):  # a link that leads to itself
                        if entry.is_dir():
                            below.append(entry.name)
                            continue
                        if entry.is_file():
                            names.append(entry.name)
                            continue
                    self.broken.append(f"{path}/{entry.name}" if path else entry.name)
        for name in itertools.chain(below, names):
            _check_printable(name, str(folder))
        if len(above) > _DEEPEST:
            raise UserError(f"{folder} lies more than {_DEEPEST} folders deep. Move it up.")
        if not names and not below:
            self.empty_folders.append(path)
        if names:
            self._folders[path] = dict.fromkeys(sorted(names))
        for name in sorted(below):
            inside = f"{path}/{name}" if path else name
            # What happens to lie beside a file, such as in /tmp, may be closed to this user.
            with contextlib.suppress(*[UserError] * self.source.is_file()):
                self._index_folder(folder / name, inside, above | {identity})

    def _index_archive(self, archive: Archive, path: str) -> None:
        with readable(archive.where):
            for member, token in archive.members():
                if any(is_of_a_system(part) for part in member.split("/")):
                    continue
                _check_printable(member, archive.where)
                folder, _, name = f"{path}/{member}".strip("/").rpartition("/")
                # What lies unpacked beside its archive comes first: it may have been mended.
                place = (archive, token)
                first = self._folders.setdefault(folder, {}).setdefault(name, place)
                if first is place or first is None:
                    continue
                other = first[0]
                if other is archive:
                    raise UserError(
                        f"{archive.where} holds '{member}' twice, and which one is meant cannot be "
                        "known. Unpack it yourself and give the folder."
                    )
                if not are_same(first, place):
                    raise UserError(
                        f"{other.where} and {archive.where} both hold '{member}', and not the same "
                        "one. Unpack each into a folder of its own, or take one away."
                    )

    def _look_into_archives(self) -> None:
        suffixes = (*_ARCHIVE_SUFFIXES, *UNREADABLE_SUFFIXES)
        known = {*self.archives, *self.unreadable}
        for path in [path for path in self if path.lower().endswith(suffixes)]:
            if path in known:
                continue
            if path.lower().endswith(UNREADABLE_SUFFIXES):
                self.unreadable.append(path)
            if not path.lower().endswith(_ARCHIVE_SUFFIXES):
                continue
            if self._look_into and not self._look_into(path):
                continue
            with self.open(path) as stream:
                file = self._seekable(path, stream)
            archive = open_archive(file, self.where(path), self._stack, self._budget)
            if archive is None:
                self.unreadable.append(path)
            else:
                self.archives.append(path)
                self._index_archive(archive, _place_of(archive, path))

    def _seekable(self, path: str, stream: IO[bytes]) -> IO[bytes]:
        folder, _, name = path.rpartition("/")
        place = self._folders[folder][name]
        if place is None:
            file = self._stack.enter_context((self._root / path).open("rb"))
            self._budget.packed += os.fstat(file.fileno()).st_size
            return file
        where = f"{self.source} ({path})"
        return copy_to_temporary_file(stream, where, self._stack, self._budget)


def _place_of(archive: Archive, path: str) -> str:
    """Returns the folder that an archive is seen as unpacked into: the one that it lies in.

    But `train.zip`, which has no folder of its own name inside, is the folder `train`: beside a
    `test.zip` the images of both would be mixed.
    """
    folder, _, name = path.rpartition("/")
    stem = name.split(".")[0]
    if stem.lower() not in _SETS:
        return folder
    with readable(archive.where):  # mostly the first member tells
        has_own = any(member.split("/")[0].lower() in _SETS for member, _ in archive.members())
    return folder if has_own else f"{folder}/{stem}".strip("/")


def _check_printable(name: str, where: str) -> None:
    """Raises a `UserError` for a name that would break, or forge, the lines it is printed in."""
    if _CONTROL_CHARACTER.search(name):
        raise UserError(
            f"{where} holds a file named {name!r}, which has characters that cannot be printed. "
            "Rename it, or remove it."
        )
