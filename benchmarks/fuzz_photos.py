"""Fuzzes the reader of photos with small files of the kinds that people have."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from benchmarks.fuzz_inputs import edited
from dmfer_jax import photos
from dmfer_jax.data.images import quiet_decoder


def open_photo(folder: Path) -> Callable[[bytes], None]:
    """Feeds bytes as a photo."""
    del folder
    quiet_decoder()
    return lambda content: _look_at(photos.read_photo(content))


def _look_at(pixels: photos.Pixels) -> None:
    assert pixels.rgb.dtype == np.uint8
    assert pixels.rgb.ndim == 3
    assert pixels.rgb.shape[2] == 3


def photo_inputs() -> st.SearchStrategy[bytes]:
    """Returns files of several formats and modes, most of them edited."""
    ramp = np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3)
    image = Image.fromarray(ramp)
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation
    return edited(
        [
            _save(image, "JPEG", exif=turned, progressive=True),
            _save(image.convert("CMYK"), "JPEG"),
            _save(image, "PNG"),
            _save(image.convert("P"), "PNG", transparency=0),
            _save(Image.fromarray(ramp[..., 0].astype(np.uint16) * 257), "PNG"),
            _save(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
            _save(image.convert("RGBA"), "WEBP", lossless=True),
            _save(image, "BMP"),
            _save(image, "TIFF", compression="tiff_lzw"),
            _save(image, "PPM"),
            _save(image, "TGA"),
            _save(image, "JPEG2000"),
        ]
    )


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
