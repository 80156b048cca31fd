"""The frames of a video file or a camera, through OpenCV."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dmfer_jax.errors import UserError

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})


_USUAL_RATE = 25.0
_WHOLE = 0.9  # of the frames that a file says it has; some do not count them


class VideoFrame(NamedTuple):
    """One picture of a video.

    Attributes:
      seconds: since its beginning.
      rgb: uint8 `[h, w, 3]`.
      rate: frames a second, as far as the video says.
    """

    seconds: float
    rgb: np.ndarray
    rate: float


def read_frames(source: Path | int) -> Iterator[VideoFrame]:
    """Yields the frames of a video file, or of the camera with a number.

    Raises:
      UserError: there is no such file or camera, or it gives no frame; behind the last frame, if a
        file has far fewer than it says, and of a camera that gives no more, whenever that is.
    """
    # Its complaints name no file; ours do.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    name = f"camera {source}" if isinstance(source, int) else str(source)
    if isinstance(source, Path):
        try:
            if not stat.S_ISREG(source.stat().st_mode):  # opening a pipe would wait for its writer
                raise UserError(f"{name} is no regular file; expected a video")
            with source.open("rb"):
                pass
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}") from error
    # Absolute: FFmpeg takes what stands before a colon, as in 12:30.mp4, for a protocol.
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source.absolute()))
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 1 <= rate <= 1000 else _USUAL_RATE
    promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)  # about so many, or nothing
    began, count = time.monotonic(), 0
    try:
        while True:
            there, bgr = capture.read()
            if not there:
                break
            count += 1
            if isinstance(source, int):
                seconds = time.monotonic() - began
            else:
                seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield VideoFrame(seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), rate)
    finally:
        capture.release()
    if not count:
        raise UserError(
            f"{name} gives no picture; "
            + (
                "is it there, and free?"
                if isinstance(source, int)
                else "it is no video, or damaged"
            )
        )
    if isinstance(source, int):
        raise UserError(f"{name} gives no more pictures; is it still there?")
    if count < _WHOLE * promised:
        raise UserError(
            f"{name} ends after {count:,} of about {promised:,.0f} frames; it is damaged or cut "
            "short"
        )
