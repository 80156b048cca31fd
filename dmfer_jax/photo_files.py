"""Lists the photos and videos that files and folders hold, each once, in a lasting order."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dmfer_jax import files, video
from dmfer_jax.errors import UserError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png"}
    | {".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""Of the files that are taken for photos where they lie in a folder."""


@dataclass
class Listed:
    """What was found.

    Attributes:
      photos: paths, in the order of the arguments, a folder's sorted by name.
      videos: likewise.
      passed_over: {suffix: how many} of files in folders that are neither, or hidden.
      unreadable: folders that cannot be listed, and why.
    """

    photos: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def list_photos(names: Iterable[str], drawn_to: str = "") -> Listed:
    """Lists photos and videos.

    A file that is named itself is taken for a photo whatever it is called, unless its suffix is
    that of a video. Folders are gone through with all that lie in them; one that a link leads back
    to is not gone through twice. What is hidden, or `predict` draws or left half-made, is no photo.

    Args:
      names: of files and folders.
      drawn_to: a folder that is passed over in others, if any.

    Raises:
      UserError: there is no such file.
    """
    listed, taken, folders = Listed(), set(), set()
    for name in names:
        path = Path(name)
        if not (name and os.path.lexists(path)):  # Path("") is the current folder
            raise UserError(
                f"{name or repr(name)}: no such file or folder; expected photos, videos or folders"
            )
        if not path.is_dir():
            _take(path, listed, taken)
            continue
        for found in _walk(path, listed, folders, drawn_to):
            kind = "hidden" if files.is_of_a_system(found.name) else found.suffix.lower()
            if kind in SUFFIXES | video.SUFFIXES:
                _take(found, listed, taken)
            else:
                listed.passed_over[kind or "no suffix"] += 1
    return listed


def _take(path: Path, listed: Listed, taken: set[Path]) -> None:
    if path not in taken:
        taken.add(path)
        is_video = path.suffix.lower() in video.SUFFIXES
        (listed.videos if is_video else listed.photos).append(path)


def _walk(
    folder: Path, listed: Listed, seen: set[tuple[int, int]], drawn_to: str
) -> Iterator[Path]:
    """The files of a folder and of those in it, each folder once."""
    drawn = os.stat(drawn_to) if drawn_to and os.path.exists(drawn_to) else None

    def complain(error: OSError) -> None:
        listed.unreadable.append(f"{error.filename} cannot be listed: {error.strerror}")

    for here, folders, names in os.walk(folder, followlinks=True, onerror=complain):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        if drawn and os.path.samestat(status, drawn) and here != str(folder):
            listed.passed_over["folder that is drawn to"] += 1
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not files.is_of_a_system(name))
        yield from (Path(here, name) for name in sorted(names))
