"""A face is found wherever it is and however it is turned, and cut out upright and unaliased."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmfer_jax import faces
from dmfer_jax.errors import UserError
from dmfer_jax.faces import FaceFinder, Frame, cut_out

ASTRONAUT = Path(__file__).parent / "stored" / "astronaut.jpg"
EYES = np.array([[83.0, 104.0], [126.0, 106.0]])
"""Where they are in it, as a person sees it: pixels."""


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(ASTRONAUT).convert("RGB")


def test_a_face_is_found_with_its_eyes_and_nothing_else(finder, photo):
    (face,) = finder(np.asarray(photo))
    np.testing.assert_allclose(face.landmarks[:2], EYES, atol=4)
    left, top, right, bottom = face.box
    assert left < EYES[0, 0] < EYES[1, 0] < right
    assert top < EYES[0, 1] < bottom
    assert face.score > 0.8
    assert finder(np.zeros((300, 200, 3), np.uint8)) == []
    assert finder(np.zeros((1, 3000, 3), np.uint8)) == []


@pytest.mark.parametrize("angle", [30, -50, 90])
def test_a_turned_face_is_cut_out_as_the_upright_one(finder, photo, angle):
    turned = np.asarray(photo.rotate(angle, expand=True))  # counter-clockwise
    (expected,), (found,) = finder(np.asarray(photo)), finder(turned)
    assert math.degrees(expected.frame.roll - found.frame.roll) == pytest.approx(angle, abs=4)
    assert found.frame.side == pytest.approx(expected.frame.side, rel=0.1)
    middle = slice(8, 40)  # the corners may be beyond the photo
    cuts = [
        cut_out(image, face.frame, 48)[middle, middle].ravel().astype(float)
        for image, face in ((np.asarray(photo), expected), (turned, found))
    ]
    assert np.corrcoef(cuts)[0, 1] > 0.8


@pytest.mark.parametrize("scale", [0.25, 1.7, 6.0])
def test_frame_grows_with_the_photo(finder, photo, scale):
    (expected,) = finder(np.asarray(photo))
    size = (round(photo.width * scale), round(photo.height * scale))
    (found,) = finder(np.asarray(photo.resize(size, Image.Resampling.BICUBIC)))
    assert found.frame.side == pytest.approx(scale * expected.frame.side, rel=0.12)
    assert found.frame.x == pytest.approx(scale * expected.frame.x, abs=0.06 * found.frame.side)
    assert found.frame.y == pytest.approx(scale * expected.frame.y, abs=0.06 * found.frame.side)


def test_every_face_of_a_crowd_is_found_once(finder, photo):
    face = np.asarray(photo.resize((64, 70)))
    crowd = np.tile(face, (5, 12, 1))
    assert len(finder(crowd)) == 60


def test_threads_find_what_one_call_finds(finder, photo):
    images = [np.asarray(photo.rotate(angle)) for angle in (-10, 0, 10)] * 2
    expected = [finder(image)[0].box for image in images]
    with ThreadPoolExecutor(3) as threads:
        assert [found[0].box for found in threads.map(finder, images)] == expected


def test_the_largest_face_is_the_first(finder, photo):
    image = np.asarray(photo)
    small = np.asarray(photo.resize((100, 110)))
    padded = np.pad(small, ((0, 110), (0, 0), (0, 0)))
    sides = [face.frame.side for face in finder(np.hstack([padded, image]))]
    assert len(sides) == 2
    assert sides[0] > 1.5 * sides[1]


def test_roll_is_that_of_the_landmarks():
    turn = math.radians(25)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    landmarks = 80 * faces.FRAME_LANDMARKS @ matrix.T + (7, -3)
    assert faces._roll(landmarks) == pytest.approx(turn)


def test_frame_of_a_box_is_that_of_fer2013_by_hand():
    """The box is 0.88 of the frame's side, and its middle lies 0.0125 of it below the frame's."""
    landmarks = 100 * faces.FRAME_LANDMARKS
    found = faces._frame(np.array([10.0, 20.0, 98.0, 108.0]), landmarks)
    assert found == pytest.approx((54.0, 62.75, 100.0, 0.0), abs=1e-9)


def test_frame_holds_box_and_landmarks_where_the_template_has_them():
    frame = Frame(100.0, 60.0, 40.0, math.radians(90))
    # Turned by 90 degrees, the frame's right is the photo's bottom.
    np.testing.assert_allclose(frame.to_photo(np.array([[1.0, 0.5]])), [[100.0, 80.0]])
    np.testing.assert_allclose(frame.to_photo(np.array([[0.5, 0.0]])), [[120.0, 60.0]])


@pytest.mark.parametrize("shape", [(30, 30), (30, 30, 3)])
def test_cut_of_the_whole_is_the_whole(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(cut_out(image, Frame(15, 15, 30, 0), 30), image)


def test_cut_is_resized_as_a_datasets_crop_is():
    image = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    crop = Image.fromarray(image[20:180, 40:200])
    for size in (48, 320):
        expected = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
        found = cut_out(image, Frame(120, 100, 160, 0), size)
        np.testing.assert_array_equal(found, expected)


def test_stripes_finer_than_the_cuts_pixels_become_grey():
    stripes = np.zeros((600, 600), np.uint8)
    stripes[:, ::2] = 255
    cut = cut_out(stripes, Frame(300, 300, 500, math.radians(5)), 48)
    assert np.abs(cut.astype(int) - 127).max() < 20


def test_beyond_the_edge_the_outermost_pixels_go_on():
    image = np.full((10, 10), 7, np.uint8)
    assert (cut_out(image, Frame(0, 0, 20, 0.3), 12) == 7).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"side": 10}, "side is 10"), ({"least_score": 0}, "score is 0")]
)
def test_option_out_of_range_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        FaceFinder(**options)


def test_cut_does_not_depend_on_how_long_the_photo_is():
    image = np.random.default_rng(0).integers(0, 256, (220, 200), np.uint8)
    panorama = np.zeros((220, 40_000), np.uint8)
    panorama[:, -200:] = image
    found = cut_out(panorama, Frame(39_900, 110, 90, 0.5), 48)
    np.testing.assert_array_equal(found, cut_out(image, Frame(100, 110, 90, 0.5), 48))
