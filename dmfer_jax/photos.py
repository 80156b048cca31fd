"""Reads a photo in whatever form it is given: a path, a file's bytes, a PIL image or an array."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dmfer_jax.data.images import is_animation, make_plain, shrunk_header
from dmfer_jax.errors import UserError

PhotoLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path; the bytes of a file; an image of any mode; or uint8 `[h, w, 3]` (RGB) or `[h, w]`."""

MAX_BYTES = 2**29
"""Of a file; larger ones are not read."""


class Pixels(NamedTuple):
    """A photo, decoded and upright.

    Attributes:
      rgb: uint8 `[h, w, 3]`.
      scale: pixels of the photo for each of these; 1 unless a very large JPEG was decoded smaller.
      note: what the reader of a result should know of it, or nothing.
    """

    rgb: np.ndarray
    scale: float
    note: str


def read_photo(photo: PhotoLike) -> Pixels:
    """Decodes a photo, turned upright as its EXIF orientation says.

    Transparent parts lie on white, 16 bits a pixel are scaled to 8, and of an animation the first
    picture is taken. A JPEG of more than `images.MAX_PIXELS` is decoded smaller.

    Raises:
      UserError: it cannot be read, is no image, is damaged or too large; or the array has another
        type or shape.
    """
    if isinstance(photo, np.ndarray):
        return Pixels(_check_array(photo), 1.0, "")
    if isinstance(photo, Image.Image):
        return _decode(photo, "the image")
    if isinstance(photo, bytes):
        return _open(photo, "the image")
    if isinstance(photo, (str, os.PathLike)):
        return _open(_read_file(Path(photo)), str(photo))
    raise UserError(
        f"a photo is a {type(photo).__name__}; expected a path, the bytes of an image file, a PIL "
        "image, or an array uint8 [h, w, 3] of red, green and blue"
    )


def _check_array(photo: np.ndarray) -> np.ndarray:
    found = f"a photo is an array {photo.dtype} {list(photo.shape)}"
    fits = photo.ndim == 2 or (photo.ndim == 3 and photo.shape[2] == 3)
    if photo.dtype != np.uint8 or not fits or not photo.size:
        raise UserError(
            f"{found}; expected uint8 [h, w, 3] of red, green and blue, or [h, w], from 0 to 255"
        )
    if photo.ndim == 2:
        photo = np.repeat(photo[..., None], 3, axis=2)
    return np.ascontiguousarray(photo)


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        encoded = b""
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
            encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read: its name has a NUL in it") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise UserError(f"{path} is no file; expected a photo")
    if status.st_size > MAX_BYTES:
        raise UserError(
            f"{path} has {status.st_size:,} bytes; at most {MAX_BYTES:,} are read as a photo"
        )
    return encoded


def _open(encoded: bytes, name: str) -> Pixels:
    if not encoded:
        raise UserError(f"{name} is empty")
    try:
        image, shrunk = shrunk_header(encoded)
    except ValueError as error:
        raise UserError(f"{name} cannot be decoded: {error}") from error
    with image:
        return _decode(image, name, shrunk)


def _decode(image: Image.Image, name: str, shrunk: int = 1) -> Pixels:
    try:
        animated = is_animation(image)
        plain = make_plain(image, 3)
    except ValueError as error:
        raise UserError(f"{name} cannot be decoded: {error}") from error
    note = "an animation; only its first picture was looked at" if animated else ""
    if shrunk > 1:
        note = f"very large; looked at in 1/{shrunk} of its size"
    return Pixels(np.asarray(plain, np.uint8), float(shrunk), note)
