"""The one image decoder, so that pixels never depend on which packages are installed."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dmfer_jax.errors import UserError

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: a small file may claim any size."""


def quiet_decoder() -> None:
    """Keeps Pillow from warning of damaged images: those that cannot be used are an error."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")


def decode_image(encoded: bytes, size: int, channels: int, name: str = "") -> np.ndarray:
    """Decodes an image of any format and colour mode that Pillow reads.

    It is turned upright as its EXIF orientation says. 16 bits a pixel are scaled to 8. What is
    transparent is laid on white, as pages show it. An image that is not square is squeezed.

    Args:
      encoded: the file's bytes.
      size: height and width of the result, in pixels; another size is resampled (bilinear, with
        antialiasing when it shrinks).
      channels: 3 for RGB, 1 for grey.
      name: what to call the image in an error.

    Returns:
      uint8 `[size, size, channels]`.

    Raises:
      UserError: the bytes are no image, or a truncated one, or its pixels have no known range.
    """
    try:
        image = open_image(encoded, channels)
    except ValueError as error:
        raise UserError(
            f"image '{name}' cannot be decoded ({error}); rebuild the dataset from the source files"
        ) from error
    return resized(image, size).reshape(size, size, channels)


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Returns an image as large as a network takes it: bilinear, antialiased when it shrinks.

    Args:
      image: of mode "RGB" or "L"; one that is not square is squeezed.
      size: height and width of the result, in pixels.

    Returns:
      uint8 `[size, size, 3]` or `[size, size]`.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


def open_image(encoded: bytes, channels: int) -> Image.Image:
    """Decodes an image as `decode_image` does, in its own size.

    Args:
      encoded: the file's bytes.
      channels: 3 for RGB, 1 for grey.

    Returns:
      An upright image of mode "RGB" or "L".

    Raises:
      ValueError: the bytes are no image, or a truncated one, or one that is too large, or its
        pixels have no known range. The message is the reason alone.
    """
    with image_header(encoded) as image:
        return make_plain(image, channels)


def make_plain(image: Image.Image, channels: int) -> Image.Image:
    """Returns an image upright, with 8 bits a channel, and what is transparent on white.

    Args:
      image: of any mode, decoded or not.
      channels: 3 for RGB, 1 for grey.

    Raises:
      ValueError: it is damaged, or its pixels have no known range. The message is the reason alone.
    """
    with _one_error():
        image = _opaque(_eight_bits(_upright(image)))
        return image.convert("RGB" if channels == 3 else "L")


def is_animation(image: Image.Image) -> bool:
    """Returns whether there is more than one picture in a GIF, PNG or WebP.

    No picture behind the second is looked at: a small file may have very many.

    Args:
      image: not decoded yet, or of another format.

    Raises:
      ValueError: it is damaged. The message is the reason alone.
    """
    with _one_error():
        return image.format in ("GIF", "PNG", "WEBP") and getattr(image, "is_animated", False)


def image_header(encoded: bytes) -> Image.Image:
    """Returns an image whose size and format are known and whose pixels are not decoded yet.

    Raises:
      ValueError: the bytes are no image, or one of more than `MAX_PIXELS`.
    """
    image = _open_header(encoded)
    _check_pixels(image)
    return image


def shrunk_header(encoded: bytes) -> tuple[Image.Image, int]:
    """Returns an image as `image_header` does, large JPEGs smaller, and by how much.

    A JPEG's decoder can give it at a half, a quarter or an eighth of its size, with neither the
    time nor the memory of the whole. So one of more than `MAX_PIXELS` need not be refused.

    Raises:
      ValueError: as of `image_header`.
    """
    image, by = _open_header(encoded), 1
    if image.format in ("JPEG", "MPO"):
        pixels = image.width * image.height
        by = next((by for by in (1, 2, 4) if pixels <= by**2 * MAX_PIXELS), 8)
        if by > 1:  # what Pillow calls a draft: it has one try
            image.draft(None, (image.width // by, image.height // by))
    _check_pixels(image)
    return image, by


def _open_header(encoded: bytes) -> Image.Image:
    try:
        with _one_error(but=(UnidentifiedImageError, Image.DecompressionBombError)):
            image = Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:
        raise ValueError(f"it is no image; it begins with {encoded[:16]!r}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; at most "
            f"{MAX_PIXELS:,} make sense"
        ) from error
    if image.format == "EPS":  # a program, which Pillow would have Ghostscript run
        raise ValueError("it is a PostScript file and no image")
    # Each scan of a progressive JPEG goes over all pixels, and may itself have a few bytes.
    if image.format in ("JPEG", "MPO"):
        scans, pixels = encoded.count(b"\xff\xda"), image.width * image.height
        if scans > _MOST_SCANS or scans * pixels > _MOST_SCANNED:
            raise ValueError(f"it has {scans:,} scans, and a photo has twenty at most")
    return image


# A film that a phone has put behind the photo has a few such bytes, too.
_MOST_SCANS, _MOST_SCANNED = 1000, 8 * 10**9


@contextlib.contextmanager
def _one_error(but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Pillow's decoders raise nearly anything on damaged files; here it is a ValueError."""
    try:
        yield
    except (MemoryError, *but):
        raise
    except Exception as error:
        raise ValueError(str(error)) from error


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} make sense"
        )


_TURN_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what undoes it; 1 is upright."""


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the EXIF data back, and fails where they are damaged.
    image.load()  # Pillow turns a TIFF by itself when it loads it, and takes the tag away
    turn = _TURN_UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16 bits a pixel to 8; Pillow's own conversion clips them, to a white image."""
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers of no known range")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65_535:
        raise ValueError("its pixels are 32-bit numbers of no known range")
    return Image.fromarray(np.rint(pixels / 257).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
