"""One image, whatever its file format and colour mode, gives one array; what is none, an error."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from dmfer_jax.data.images import decode_image, open_image
from dmfer_jax.errors import UserError

SIDE = 16
GREYS = np.arange(256, dtype=np.uint8).reshape(SIDE, SIDE)
"""Every grey value once; the first half is dark, the second bright."""

BLACK_AND_WHITE = np.where(GREYS < 128, 0, 255).astype(np.uint8)


def encode(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def palette_image() -> Image.Image:
    """Greys whose indices run the other way than their values."""
    image = Image.fromarray(255 - GREYS, "P")
    image.putpalette([value for index in range(256) for value in [255 - index] * 3])
    return image


def with_alpha(mode: str) -> Image.Image:
    image = Image.fromarray(GREYS).convert(mode)
    image.putalpha(255)
    return image


GREY_FILES = {
    "grey": encode(Image.fromarray(GREYS)),
    "grey with alpha": encode(with_alpha("LA")),
    "RGB": encode(Image.fromarray(GREYS).convert("RGB")),
    "RGB with alpha": encode(with_alpha("RGBA")),
    "palette": encode(palette_image()),
    "CMYK": encode(
        Image.merge("CMYK", [Image.new("L", (SIDE, SIDE))] * 3 + [Image.fromarray(255 - GREYS)]),
        "TIFF",
    ),
    "16-bit PNG": encode(Image.fromarray(GREYS.astype(np.uint16) * 257)),
    "16-bit TIFF": encode(Image.fromarray(GREYS.astype(np.uint16) * 257), "TIFF"),
    "16-bit PGM": b"P5 16 16 65535\n" + (GREYS.astype(">u2") * 257).tobytes(),
    "BMP": encode(Image.fromarray(GREYS), "BMP"),
    "GIF": encode(Image.fromarray(GREYS), "GIF"),
    "WebP": encode(Image.fromarray(GREYS), "WEBP", lossless=True),
}


@pytest.mark.parametrize("form", GREY_FILES)
def test_every_form_of_a_grey_image_gives_the_same_pixels(form):
    grey, rgb = (decode_image(GREY_FILES[form], SIDE, channels) for channels in (1, 3))
    assert grey.dtype == rgb.dtype == np.uint8
    np.testing.assert_array_equal(grey, GREYS[:, :, None])
    np.testing.assert_array_equal(rgb, np.repeat(GREYS[:, :, None], 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_black_and_white_gives_0_and_255(channels):
    found = decode_image(encode(Image.fromarray(BLACK_AND_WHITE).convert("1")), SIDE, channels)
    np.testing.assert_array_equal(found, np.repeat(BLACK_AND_WHITE[:, :, None], channels, axis=2))


def test_colours_stand_in_the_order_red_green_blue():
    found = decode_image(encode(Image.new("RGB", (8, 8), (200, 100, 50))), 8, 3)
    assert found[0, 0].tolist() == [200, 100, 50]
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B = 124.2.
    assert decode_image(encode(Image.new("RGB", (8, 8), (200, 100, 50))), 8, 1)[0, 0] == 124


def transparent(mode: str) -> Image.Image:
    """Black with full transparency on the left, black with none on the right."""
    alpha = np.repeat([[0] * 4 + [255] * 4], 8, axis=0).astype(np.uint8)
    if mode == "P":
        image = Image.fromarray(alpha // 255, "P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.info["transparency"] = 0
        return image
    image = Image.new(mode, (8, 8))
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_parts_are_white(mode):
    found = decode_image(encode(transparent(mode)), 8, 3)
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == 0).all()


CORNER_MARKED = np.zeros((8, 8), np.uint8)
CORNER_MARKED[:4, :4], CORNER_MARKED[:4, 4:] = 255, 100

# The EXIF standard: where the first row and the first column of the file are to be seen.
ORIENTATIONS = {
    1: CORNER_MARKED,
    2: CORNER_MARKED[:, ::-1],
    3: CORNER_MARKED[::-1, ::-1],
    4: CORNER_MARKED[::-1],
    5: CORNER_MARKED.T,  # row on the left, column on top
    6: CORNER_MARKED.T[:, ::-1],  # row on the right, column on top
    7: CORNER_MARKED.T[::-1, ::-1],
    8: CORNER_MARKED.T[::-1],  # row on the left, column at the bottom
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_image_is_turned_upright(orientation, form):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    found = decode_image(encode(Image.fromarray(CORNER_MARKED), form, exif=exif), 8, 1)
    np.testing.assert_array_equal(found[:, :, 0], ORIENTATIONS[orientation])


def test_orientation_that_does_not_exist_is_passed_over():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    found = decode_image(encode(Image.fromarray(CORNER_MARKED), exif=exif), 8, 1)
    np.testing.assert_array_equal(found[:, :, 0], CORNER_MARKED)


@pytest.mark.parametrize("size", [(40, 40), (10, 30)])
def test_other_size_is_resampled_to_a_square(size):
    image = Image.new("RGB", size, (10, 20, 30))
    found = decode_image(encode(image), 24, 3)
    np.testing.assert_array_equal(found, np.full((24, 24, 3), (10, 20, 30)))


def test_shrinking_averages_all_pixels():
    # Every other column white: picking single pixels would give 0 or 255.
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    found = decode_image(encode(Image.fromarray(stripes)), 8, 1)
    assert np.abs(found.astype(float) - 127.5).max() < 10


GARBAGE = {
    "empty": b"",
    "text": b"<html>404: Not Found</html>",
    "truncated png": GREY_FILES["RGB"][:-40],
    "truncated jpeg": encode(Image.fromarray(GREYS), "JPEG")[:-100],
    "header only": GREY_FILES["BMP"][:54],
    "claims 100,000 x 100,000": b"P5 100000 100000 255\n\0",
    "floating point": encode(Image.fromarray(GREYS.astype(np.float32)), "TIFF"),
    "32 bits": encode(Image.fromarray(GREYS.astype(np.int32) * 70_000), "TIFF"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_bytes_that_are_no_image_are_an_error_that_names_it(kind):
    with pytest.raises(UserError, match=r"image 'fer0000007\.png \(row 12\)' cannot be decoded"):
        decode_image(GARBAGE[kind], SIDE, 3, "fer0000007.png (row 12)")


def test_postscript_is_refused_before_a_program_runs_it():
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(ValueError, match="it is a PostScript file and no image"):
        open_image(program, 3)


def test_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG", progressive=True)
    photo = file.getvalue()
    assert decode_image(photo, 64, 1).shape == (64, 64, 1)
    start = photo.index(b"\xff\xda")
    scan = photo[start : photo.index(b"\xff", start + 2)]
    with pytest.raises(ValueError, match=r"it has 1,00. scans, and a photo has twenty"):
        decode_image(photo[:start] + scan * 1001 + photo[start:], 64, 1)


def test_exif_entry_of_a_wrong_type_does_not_cost_the_image():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ResolutionUnit] = 2
    good = encode(Image.fromarray(CORNER_MARKED), "JPEG", exif=exif)
    # An entry begins with two bytes of tag (0x128) and two of type: a number becomes a text.
    damaged = good.replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x02")
    assert damaged != good
    np.testing.assert_array_equal(decode_image(damaged, 8, 1), decode_image(good, 8, 1))
