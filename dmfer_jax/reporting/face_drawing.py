"""Draws what was said of a photo onto it: a box around each face, its label and its probability."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.console import whole_percent

_INK, _PAPER = "#000000", "#E69F00"
_LARGEST_JPEG = 65_500  # pixels a side


def draw_faces(rgb: np.ndarray, faces: Sequence[Mapping[str, Any]], scale: float = 1.0) -> Any:
    """Returns a photo with its faces marked.

    Args:
      rgb: uint8 `[h, w, 3]`, the upright photo.
      faces: of a record of `face_rows`.
      scale: pixels of the boxes for each of the photo's.

    Returns:
      A PIL image of the same size.
    """
    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    line = max(round(max(image.size) / 400), 2)
    for face in faces:
        left, top, right, bottom = (edge / scale for edge in face["box"])
        draw.rectangle((left, top, right, bottom), outline=_PAPER, width=line)
        # As wide as the face, within what can be read and what covers too much.
        text = f"{face['expression']} {whole_percent(face['probabilities'][face['expression']])}"
        if face.get("track"):
            text = f"{face['track']}: {text}"
        most = min(max(image.size) / 25, 400)
        font: Any = ImageFont.load_default(float(np.clip((right - left) / 8, 11, max(most, 11))))
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
        width, height = x1 - x0 + 2 * line, y1 - y0 + 2 * line
        x = min(max(left, 0), max(image.width - width, 0))
        y = top - height if top >= height else min(bottom, image.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=_PAPER)
        draw.text((x + line - x0, y + line - y0), text, fill=_INK, font=font)
    return image


class NotDrawn(UserError):
    """A video cannot be written; its frames can be looked at all the same."""


class DrawnFiles:
    """Where drawn photos and videos go: a folder in which they lie as the originals do.

    Args:
      folder: made when the first one is written.
      photos: the originals.
      videos: and those that move.

    Raises:
      UserError: a drawn photo would take the place of an original, or of another drawn one.
    """

    def __init__(self, folder: Path, photos: Sequence[Path], videos: Sequence[Path]) -> None:
        self._folder = Path(os.path.abspath(folder))
        originals, moving = [*photos, *videos], set(videos)
        parents = {os.path.dirname(os.path.abspath(path)) for path in originals}
        self._above = os.path.commonpath(parents) if parents else ""
        known = {_identity(path) for path in originals} - {None}
        taken: dict[Path, Path] = {}
        for path in originals:
            place = self.place(path, ".mp4" if path in moving else ".jpg")
            if _identity(place) in known:
                raise UserError(
                    f"--draw={folder} would write over {path}; give a folder of its own"
                )
            if taken.setdefault(place, path) != path:
                raise UserError(
                    f"{taken[place]} and {path} would both be drawn as {place}; rename one of them"
                )

    def open_video(self, source: Path | str) -> "DrawnVideo":
        """Returns what takes the drawn frames of a video or a camera.

        Args:
          source: the video, or what a camera's frames are called.
        """
        if isinstance(source, str):
            return DrawnVideo(self._folder / f"{source}.mp4", endless=True)
        return DrawnVideo(self.place(source, ".mp4"))

    def place(self, original: Path, suffix: str) -> Path:
        """Returns where the drawn one of an original goes.

        Args:
          original: one of those that were given.
          suffix: that the name gets, unless it ends in it or in .png already.
        """
        place = self._folder / os.path.relpath(original, self._above or None)
        if place.suffix.lower() in (suffix, *([".png"] if suffix == ".jpg" else [])):
            return place
        return place.with_name(place.name + suffix)

    def save_photo(self, image: Any, original: Path) -> None:
        """Writes a drawn photo; it is whole or not there.

        Raises:
          UserError: it cannot be written.
        """
        place = self.place(original, ".jpg")
        if place.suffix.lower() != ".png" and max(image.size) > _LARGEST_JPEG:
            raise UserError(
                f"{place} cannot be written: a JPEG has at most {_LARGEST_JPEG:,} pixels a side, "
                f"and this has {max(image.size):,}"
            )
        files.write_atomically(place, lambda part: image.save(part, quality=90))


class DrawnVideo:
    """A video of drawn frames; a context manager, behind which it is whole or not there.

    Args:
      place: of the file, which ends in .mp4.
      endless: whether it is stopped rather than ends, as a camera's; it is kept then. Its frames
        come as they can, and each is shown until the next one.
    """

    def __init__(self, place: Path, *, endless: bool = False) -> None:
        self._place, self._endless = place, endless
        self._part = files.partial_of(place)
        self._writer: Any = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        with files.writing(self._place, NotDrawn):
            try:
                if kind is None or self._endless:
                    self._check_whole()
                    os.replace(self._part, self._place)
            finally:
                self._part.unlink(missing_ok=True)

    def write(self, image: Any, rate: float, seconds: float) -> None:
        """Appends a frame.

        Args:
          image: a PIL image.
          rate: frames a second.
          seconds: of the frame, from the first one on.

        Raises:
          NotDrawn: no video can be written there.
        """
        if self._writer is None:
            self._writer = self._open(rate, image.size)
        pixels = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)
        for _ in range(max(round(seconds * rate) + 1 - self._count, 0) if self._endless else 1):
            self._writer.write(pixels)
            self._count += 1

    def _check_whole(self) -> None:
        """OpenCV says nothing of a disk that is full."""
        written = cv2.VideoCapture(str(self._part))
        try:
            if written.get(cv2.CAP_PROP_FRAME_COUNT) < self._count:
                raise NotDrawn(f"{self._place} cannot be written whole; is the disk full?")
        finally:
            written.release()

    def _open(self, rate: float, size: tuple[int, int]) -> Any:
        with files.writing(self._place, NotDrawn):
            self._part.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not writer.isOpened():
            self._part.unlink(missing_ok=True)
            raise NotDrawn(f"{self._place} cannot be written as a video")
        return writer


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from all others, whatever links and letters it is named by; None of no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
