"""Draws what was said of a photo onto it: a box around each face, its label and its probability."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmfer_jax.errors import UserError
from dmfer_jax.reporting import plain_json
from dmfer_jax.reporting.console import whole_percent

_INK, _PAPER = "#000000", "#E69F00"


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
        most = max(image.size) / 25
        font: Any = ImageFont.load_default(float(np.clip((right - left) / 8, 11, max(most, 11))))
        x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font)
        width, height = x1 - x0 + 2 * line, y1 - y0 + 2 * line
        x = min(max(left, 0), max(image.width - width, 0))
        y = top - height if top >= height else min(bottom, image.height - height)
        draw.rectangle((x, y, x + width, y + height), fill=_PAPER)
        draw.text((x + line - x0, y + line - y0), text, fill=_INK, font=font)
    return image


class DrawnFiles:
    """Where drawn photos and videos go: a folder in which they lie as the originals do.

    Args:
      folder: made when the first one is written.
      originals: of all.

    Raises:
      UserError: a drawn photo would take the place of an original.
    """

    def __init__(self, folder: Path, originals: Sequence[Path]) -> None:
        self._folder = folder
        parents = {str(path.absolute().parent) for path in originals}
        self._above = os.path.commonpath(parents) if parents else ""
        originals_known = {path.absolute() for path in originals}
        for path in originals:
            places = {self.place(path, suffix).absolute() for suffix in (".jpg", ".mp4")}
            if places & originals_known:
                raise UserError(
                    f"--draw={folder} would write over {path}; give a folder of its own"
                )

    def open_video(self, source: Path | int, rate: float) -> "DrawnVideo":
        """Returns what takes the drawn frames of a video or a camera.

        Args:
          source: the video, or the camera's number.
          rate: frames a second.
        """
        if isinstance(source, int):
            return DrawnVideo(self._folder / f"camera {source}.mp4", rate)
        return DrawnVideo(self.place(source, ".mp4"), rate)

    def place(self, original: Path, suffix: str) -> Path:
        """Returns where the drawn one of an original goes.

        Args:
          original: one of those that were given.
          suffix: that the name gets, unless it ends in it or in .png already.
        """
        place = self._folder / os.path.relpath(original.absolute(), self._above or None)
        if place.suffix.lower() in (suffix, *([".png"] if suffix == ".jpg" else [])):
            return place
        return place.with_name(place.name + suffix)

    def save_photo(self, image: Any, original: Path) -> None:
        """Writes a drawn photo; it is whole or not there.

        Raises:
          UserError: it cannot be written.
        """
        place = self.place(original, ".jpg")
        try:
            plain_json.write_atomically(place, lambda part: image.save(part, quality=90))
        except OSError as error:
            raise UserError(f"{place} cannot be written: {error.strerror or error}") from error


class DrawnVideo:
    """A video of drawn frames; the file is there when it is whole.

    Args:
      place: of the file, which ends in .mp4.
      rate: frames a second.
    """

    def __init__(self, place: Path, rate: float) -> None:
        self._place, self._rate = place, rate
        self._part = place.with_name(f".{place.stem}.{os.getpid()}.partial{place.suffix}")
        self._writer: Any = None

    def write(self, image: Any) -> None:
        """Appends a frame, a PIL image.

        Raises:
          UserError: no video can be written there.
        """
        if self._writer is None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._part), code, self._rate, image.size)
            if not self._writer.isOpened():
                raise UserError(f"{self._place} cannot be written as a video")
        self._writer.write(cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Puts what was written in its place."""
        if self._writer is not None:
            self._writer.release()
            os.replace(self._part, self._place)
