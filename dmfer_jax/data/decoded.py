"""What was read of a build's records once, kept beside them: decoded images, and the other fields.

Decoding RAF-DB takes a quarter of a minute and reading FERPlus's fields six seconds, at every start
of every run. Kept, both are there at once; images are mapped from the file rather than read.

Files lie in `<build>/decoded/`. Their names hold a digest of the records and of how they are
decoded, so that other records or another decoder never find them.
"""

import contextlib
import functools
import hashlib
import math
import os
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmfer_jax.data import builds

DECODER_VERSION = 1
"""Of `images.decode_image`; raised whenever it gives other pixels for any file."""

_FIELDS_VERSION = 1  # of what `records.read_fields` returns
_DAY = 24 * 3600  # seconds


class Decoded:
    """The files that are kept of a split, or of several joined by "+".

    Args:
      dataset_dir: of the build.
      split: name of it.
      shards: files that hold its records.
      number: of its records.
    """

    def __init__(self, dataset_dir: Path, split: str, shards: Sequence[Path], number: int):
        self._folder, self._split, self._number = dataset_dir / "decoded", split, number
        self._records = _digest_of_records(shards)

    def images(
        self, size: int, channels: int, decode: Callable[[np.ndarray], None] | None
    ) -> np.ndarray | None:
        """Returns all images of the split, decoded now if they were not before.

        Args:
          size: height and width, in pixels.
          channels: 1 or 3.
          decode: writes them into uint8 `[n, size, size, channels]`, which is the file itself where
            that can be written, so that they need not fit in memory; None if they shall not be.

        Returns:
          uint8 `[n, size, size, channels]`, mapped read-only from the file where that could be
          written; None if they are not there and shall not be decoded.
        """
        shape = (self._number, size, size, channels)
        kind = f"{self._split}-{size}x{channels}"
        path = self._path(kind, DECODER_VERSION, "npy")
        if path and (found := _whole(path, lambda: _map_images(path, shape))) is not None:
            return found
        if decode is None:
            return None

        def write(file: Any) -> None:
            images = _reserve_images(file, shape)
            decode(images)
            images.flush()

        if path and self._keep(path, kind, write):
            return _map_images(path, shape)
        images = np.empty(shape, np.uint8)
        decode(images)
        return images

    def fields(self, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns `records.read_fields` of the split.

        Args:
          read: reads them from the records.
        """
        path = self._path(f"{self._split}-fields", _FIELDS_VERSION, "npz")
        if path is None:
            return read()
        if (found := _whole(path, lambda: _load_fields(path, self._number))) is not None:
            return found
        fields: dict[str, Any] = read()
        self._keep(path, f"{self._split}-fields", lambda file: np.savez(file, **fields))
        return fields

    def _path(self, kind: str, version: int, suffix: str) -> Path | None:
        """Where a file of this kind lies; None where nothing tells these records from others."""
        if self._records is None:
            return None
        digest = hashlib.sha256(f"{version} {self._records}".encode()).hexdigest()[:16]
        return self._folder / f"{kind}-{digest}.{suffix}"

    def _keep(self, path: Path, kind: str, write: Callable[[Any], None]) -> bool:
        """Writes a file and removes those it takes the place of; says so where it cannot."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # hosts share folders
        try:
            path.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            reason = error.strerror or error
            _say(f"{path.parent} cannot be written ({reason}); nothing is kept there")
            return False
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
        for other in path.parent.glob(f"{kind}-*"):
            # Parts that a killed process left; a younger one may be another's at work.
            left = other.suffix == ".partial" and _age(other) > _DAY
            if left or (other.suffix == path.suffix and other != path):
                with contextlib.suppress(OSError):
                    other.unlink()
        return True


def _digest_of_records(shards: Sequence[Path]) -> str | None:
    """Tells a split's records from all others, by the digests that were written with them."""
    found = hashlib.sha256()
    try:
        for shard in shards:
            found.update(f"{shard.name} {shard.stat().st_size}\n".encode())
            found.update(shard.with_name(shard.name + builds.DIGEST_SUFFIX).read_bytes())
    except OSError:
        return None
    return found.hexdigest()


def _whole(path: Path, read: Callable[[], Any]) -> Any:
    """Reads a file; None if it is not there, or damaged, which is said."""
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        _say(f"{path} is damaged ({error}) and is made again")
        return None


def _reserve_images(file: Any, shape: tuple[int, ...]) -> np.memmap:
    """Writes the head of an array's file, takes its room on the disk, and maps the array in it."""
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    file.flush()
    start, size = file.tell(), math.prod(shape)
    if hasattr(os, "posix_fallocate"):  # without room, writing into the map would end the process
        os.posix_fallocate(file.fileno(), 0, start + size)
    else:
        file.truncate(start + size)
    return np.memmap(file.name, np.uint8, "r+", start, shape)


def _map_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    images: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.shape != shape or not images.flags.c_contiguous:
        raise ValueError(f"it holds {images.dtype} {images.shape}; expected uint8 {shape}")
    if (size := path.stat().st_size) != images.offset + images.nbytes:
        raise ValueError(f"it has {size:,} bytes; expected {images.offset + images.nbytes:,}")
    return images


def _load_fields(path: Path, number: int) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        fields = {key: stored[key] for key in stored.files}
    if "label" not in fields or any(len(values) != number for values in fields.values()):
        raise ValueError(f"its fields are not of {number:,} records")
    return fields


def _age(path: Path) -> float:
    """Seconds since a file was written to; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


@functools.cache
def _say(text: str) -> None:
    """Says something once."""
    print(text, file=sys.stderr)
