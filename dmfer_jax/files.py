"""Files that are either whole or not there, and one error where they cannot be written."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from dmfer_jax.errors import UserError

_LEFT_BY_SYSTEMS = (
    *("__macosx", "thumbs.db", "desktop.ini", "icon\r", "@eadir"),
    *("lost+found", "$recycle.bin", "system volume information"),
)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8; the file is whole or not there, as of `write_atomically`."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Lets `write` make the file under another name and moves it to its place when it is whole.

    Args:
      path: where the file shall be; folders above it are made, an older file is replaced.
      write: gets the path to write to, in the same folder and with the same suffix.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    partial = partial_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], kind: type[UserError] = UserError) -> Iterator[None]:
    """Turns what a full disk or a place that is not to be written raises into a `UserError`.

    Args:
      path: of the file that is written meanwhile, for the message.
      kind: of the error.
    """
    try:
        yield
    except OSError as error:
        raise kind(
            f"{os.fspath(path)} cannot be written: {error.strerror or error}; make room for it, or "
            "choose another place"
        ) from error


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets one process at a time change what is in a folder; the others wait for it.

    The system holds the lock and gives it up when the process ends in any way. Nothing is written
    for it.

    Args:
      folder: that is locked; it is made if it is not there.

    Raises:
      UserError: it cannot be made or opened.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def partial_of(path: Path) -> Path:
    """Returns where this process makes a file before it is whole: beside it, with its suffix."""
    # Shortened: names end at 255 bytes, and a character may take four. On hosts that share a disk
    # processes may have one number.
    return path.with_name(f".{path.stem[:32]}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")


def is_of_a_system(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that systems leave in all folders."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS
