"""A photo is read alike in every form, and what cannot be read is told in plain words."""

import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmfer_jax.data import images
from dmfer_jax.errors import UserError
from dmfer_jax.photos import read_photo


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def test_path_bytes_image_and_array_are_the_same_photo(pixels, tmp_path):
    encoded = encode(Image.fromarray(pixels), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(encoded)
    for photo in (pixels, encoded, path, str(path), Image.fromarray(pixels)):
        np.testing.assert_array_equal(read_photo(photo).rgb, pixels)


def test_grey_array_becomes_three_equal_colours(pixels):
    found = read_photo(pixels[..., 0]).rgb
    assert found.shape == (12, 20, 3)
    assert (found == pixels[..., :1]).all()


def test_photo_is_upright_as_its_exif_orientation_says(pixels):
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees clockwise
    encoded = encode(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(read_photo(encoded).rgb, np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB", "YCbCr"])
def test_jpeg_of_any_colours_is_read(mode):
    image = Image.new("RGB", (16, 16), (200, 40, 40)).convert(mode)
    found = read_photo(encode(image, "JPEG", quality=95)).rgb
    expected = np.asarray(image.convert("RGB"), int)
    assert np.abs(found - expected).max() <= 6


def test_first_picture_of_an_animation_is_taken_and_said():
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    encoded = encode(pictures[0], "GIF", save_all=True, append_images=pictures[1:])
    found = read_photo(encoded)
    assert found.rgb[0, 0].tolist() == [255, 0, 0]
    assert "first picture" in found.note
    assert read_photo(encode(pictures[0], "GIF")).note == ""


def test_animation_that_is_cut_anywhere_is_read_or_refused():
    noise = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)
    pictures = [Image.fromarray(one) for one in noise]
    encoded = encode(pictures[0], "GIF", save_all=True, append_images=pictures[1:])
    read = 0
    for length in range(1, len(encoded)):
        with contextlib.suppress(UserError):
            read += read_photo(encoded[:length]).rgb.shape == (12, 12, 3)
    assert 0 < read < len(encoded)


def test_pictures_of_an_animation_are_not_counted():
    head = b"GIF89a" + bytes([1, 0, 1, 0, 0x80, 0, 0]) + b"\0\0\0\xff\xff\xff"
    picture = b"," + bytes([0, 0, 0, 0, 1, 0, 1, 0, 0]) + b"\x02\x02\x44\x01\x00"
    image: Any = images.image_header(head + 1000 * picture + b";")
    assert images.is_animation(image)
    assert image.fp.tell() < len(head) + 3 * len(picture)
    assert not images.is_animation(images.image_header(head + picture + b";"))


def test_huge_jpeg_is_decoded_smaller_and_other_formats_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 3000)
    image = Image.new("RGB", (160, 64), "green")
    found = read_photo(encode(image, "JPEG"))
    assert found.rgb.shape == (32, 80, 3)  # half of both sides has 2,560 pixels
    assert found.scale == 2
    assert "1/2" in found.note
    with pytest.raises(UserError, match=r"160 x 64 pixels; at most 3,000"):
        read_photo(encode(image, "PNG"))
    with pytest.raises(UserError, match="at most 3,000"):
        read_photo(encode(image.resize((1000, 400)), "JPEG"))  # an eighth is still too large


def test_bomb_is_refused_before_it_is_decoded():
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    head = (20_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    with pytest.raises(UserError, match=r"more than 178,956,970 pixels; at most 50,000,000"):
        read_photo(bomb)


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (b"", "is empty"),
        (b"<svg xmlns='x'/>", 'it is no image; it begins with b"<svg'),
        (b"plain text", "it is no image"),
        (encode(Image.new("RGB", (64, 64), "red"), "JPEG")[:300], "cannot be decoded"),
        (np.zeros((4, 4), np.float32), r"array float32 \[4, 4\]; expected uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"array uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"array uint8 \[0, 4, 3\]"),
        (7, "is a int; expected a path"),
        ("no/such.jpg", r"no/such\.jpg cannot be read: No such file"),
        ("nul\0.jpg", "cannot be read: its name has a NUL"),
        (Path("/dev/zero"), "is no file"),
    ],
)
def test_what_is_no_photo_is_told(photo, message):
    with pytest.raises(UserError, match=message):
        read_photo(photo)


def test_too_large_a_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("dmfer_jax.photos.MAX_BYTES", 10)
    (tmp_path / "a.jpg").write_bytes(b"x" * 11)
    with pytest.raises(UserError, match="has 11 bytes; at most 10"):
        read_photo(tmp_path / "a.jpg")
