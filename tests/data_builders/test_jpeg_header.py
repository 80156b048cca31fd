"""The quick look at a JPEG sees what Pillow sees, or nothing."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_builders.common.jpeg_header import whole_jpeg_size


def encode(kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """Returns an image of 37 x 21 random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (21, 37, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x010E] = "a description with \xff\xd9 in it"


@pytest.mark.parametrize(
    "encoded",
    [
        encode(),
        encode(progressive=True),
        encode(mode="L"),
        encode(mode="CMYK"),
        encode(optimize=True, quality=95, subsampling=0),
        encode(restart_marker_rows=1),
        encode(comment=b"a comment"),
        encode(exif=EXIF, icc_profile=b"x" * 70_000),
    ],
)
def test_size_is_that_of_the_image(encoded: bytes):
    assert whole_jpeg_size(encoded) == (37, 21)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        encode("PNG"),
        encode("PNG") + b"\xff\xd9",
        encode()[:-1],
        encode()[:100] + b"\xff\xd9",
        encode().partition(b"\xff\xda")[0] + b"\xff\xd9",  # no pixels
        b"\xff\xd8<html>\xff\xd9",
        b"\xff\xd8" + b"\xff" * 100 + b"\xff\xd9",
        b"\xff\xd8\xff\xe0\x00\x00" + b"\xff\xd9" * 10,
        encode().replace(b"\xff\xc0\x00\x11\x08\x00\x15", b"\xff\xc0\x00\x11\x08\x00\x00"),
        encode().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),  # 12 bits
    ],
)
def test_anything_else_is_left_to_pillow(encoded: bytes):
    assert whole_jpeg_size(encoded) is None
