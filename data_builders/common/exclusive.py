"""Lets one process at a time build a dataset, and leaves nothing of a build that fails.

The lock is on the folder itself, held by the system: it ends with its process, however that ends.
"""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_TFDS_INCOMPLETE = "incomplete."  # how the folder begins that TFDS writes to, until it renames it
_TFDS_DEFAULTS = ".config"  # TFDS keeps there which of a dataset's configs is the default one


@contextlib.contextmanager
def building_alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a dataset's folder; waits until no other process does.

    What a build that was killed has left is removed when the lock is held; after an error, so are
    the folders above that were made for this build.

    Args:
      folder: the version folder that is to be built; those above it are made.
    """
    above = _missing_parents(folder)
    descriptor, is_locked = _locked(folder.parent)
    try:
        if is_locked:  # else it may be what another process is writing
            for left in folder.parent.glob(f"{_TFDS_INCOMPLETE}*_{folder.name}"):
                shutil.rmtree(left, ignore_errors=True)
        yield
    except BaseException:
        _remove_empty(above)
        raise
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> tuple[int, bool]:
    """Returns a descriptor of the folder, and whether it is locked, until it is closed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process builds in {folder}; waiting for it ...", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            return descriptor, False  # a file system without locks: the first to finish wins
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor, True
        os.close(descriptor)  # the process before failed and removed the folder


def _missing_parents(folder: Path) -> list[Path]:
    return [parent for parent in folder.parents if not parent.exists()]


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # somebody else's files are in it
        for folder in folders:
            if [path.name for path in folder.iterdir()] == [_TFDS_DEFAULTS]:
                shutil.rmtree(folder / _TFDS_DEFAULTS)
            folder.rmdir()
