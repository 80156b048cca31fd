"""One process at a time works on a run's folder; a second one is told who the first is."""

import contextlib
import fcntl
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dmfer_jax import files
from dmfer_jax.errors import UserError

_NAME = "run.lock"


@contextlib.contextmanager
def lock(workdir: Path, flag: str = "--workdir") -> Iterator[None]:
    """Holds a folder for this process, which is made if it is not there.

    The system holds the lock, on the file `run.lock`, and gives it up when the process ends in any
    way. So what a killed process left behind stops nobody, however its number is used since.
    Folders that were made here and are still empty afterwards are removed.

    Args:
      workdir: the folder.
      flag: that names it, for messages.

    Raises:
      UserError: another process holds it, or it cannot be made.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = _open_locked(workdir / _NAME, flag)
    except OSError as error:
        raise UserError(
            f"{workdir} cannot be used as {flag}: {error.strerror or error}; give another one"
        ) from error
    with file:
        try:
            if left := _read(file):
                print(f"{workdir} was left by {left}, which ended without tidying up; it is free.")
            with files.writing(workdir / _NAME):
                file.truncate(0)
                file.write(_name_process().encode(errors="backslashreplace"))
            yield
        finally:
            (workdir / _NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, as it is after any step
                for folder in made:
                    folder.rmdir()


def check_free(workdir: Path, flag: str) -> None:
    """Refuses a folder that another process works on; one that is not there is free.

    Args:
      workdir: the folder.
      flag: what names it or a folder above it, for the message.

    Raises:
      UserError: another process holds it.
    """
    if (workdir / _NAME).exists():
        with lock(workdir, flag):
            pass


def _open_locked(path: Path, flag: str) -> IO[bytes]:
    """The lock's file, locked, at its beginning."""
    while True:
        file = path.open("a+b", buffering=0)  # what a full disk refuses is not tried again
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                owner = _read(file) or "another process"
            raise UserError(
                f"{path.parent} is in use by {owner}. Wait for it, stop it, or give another {flag}."
            ) from None
        except OSError:  # a file system without locks
            print(f"{path.parent} lies where files cannot be locked: start no second run in it.")
            return file
        # Whoever held it before may have removed the file since it was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _read(file: IO[bytes]) -> str:
    return file.read().decode(errors="backslashreplace").strip()


def _name_process() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    command = " ".join([Path(sys.argv[0]).name, shlex.join(sys.argv[1:])])
    return f"process {os.getpid()} on {platform.node()}, since {since} ({command})\n"
