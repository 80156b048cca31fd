"""Harm has the strength that its level names, at any size, and depends on kind and row alone."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_builders.synthetic_faces.face import draw_face
from dmfer_jax.data import pipeline
from dmfer_jax.data.corruptions import CORRUPTIONS, FILL, LEVELS, CorruptedImages, corrupt
from dmfer_jax.data.sources import Split

OCCLUSIONS = ("block", "eye_band", "mouth_band", "random_shape")
ALIKE = ("eye_band", "mouth_band", "blur", "low_light", "jpeg", "low_resolution")  # in every row
EVERY_LEVEL = range(1, LEVELS + 1)


def face(side: int) -> np.ndarray:
    """An embedded face, red first."""
    large = cv2.resize(draw_face("test", 34).image, (224, 224), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)


def plain(height: int, width: int, level: int) -> np.ndarray:
    return np.full((height, width, 1), level, np.uint8)


def covered(kind: str, level: int, side: int, row: int = 0) -> np.ndarray:
    """Which pixels an occlusion covers, bool `[side, side]`."""
    changed = corrupt(plain(side, side, 255), kind, level, row)[..., 0]
    assert set(np.unique(changed)) == {FILL, 255}
    return changed == FILL


def disc(side: int, x: float, y: float, radius: float) -> np.ndarray:
    """A white disc with soft edges on black; pixels from the center."""
    at = np.arange(side) - (side - 1) / 2
    distance = np.hypot(at[None] - x, at[:, None] - y)
    return np.rint(255 * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.uint8)[..., None]


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Where the light of a square picture is: x and y, pixels from the center."""
    at = np.arange(len(image)) - (len(image) - 1) / 2
    light = image[..., 0] / image.sum()
    return float((light * at[None]).sum()), float((light * at[:, None]).sum())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_any_size_and_channels_give_the_same_shape_and_leave_the_image_alone(kind):
    assert len(CORRUPTIONS[kind].values) == LEVELS
    for shape in ((32, 32, 1), (48, 48, 3), (112, 112, 1), (224, 224, 3), (40, 57, 1)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        before = image.copy()
        for level in (1, LEVELS):
            harmed = corrupt(image, kind, level, row=7)
            assert (harmed.shape, harmed.dtype) == (shape, np.uint8)
            assert not np.array_equal(harmed, image)
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_grey_image_is_harmed_in_the_same_way_in_one_channel_and_in_three(kind):
    grey = cv2.cvtColor(face(48), cv2.COLOR_RGB2GRAY)[..., None]
    for level in EVERY_LEVEL:
        harmed = corrupt(np.repeat(grey, 3, axis=2), kind, level, row=3)
        np.testing.assert_array_equal(
            harmed, np.repeat(corrupt(grey, kind, level, row=3), 3, axis=2)
        )


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_harm_depends_on_kind_level_and_row_whatever_came_before(kind):
    image = face(48)
    tasks = [(level, row) for level in EVERY_LEVEL for row in (0, 1, 33_333)]
    alone = [corrupt(image, kind, *task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda task: corrupt(image, kind, *task), reversed(tasks)))[::-1]
    np.testing.assert_array_equal(alone, again)
    distinct = len({harmed.tobytes() for harmed in alone})
    if kind in ALIKE:
        assert distinct == LEVELS
    else:
        assert distinct >= 2 * LEVELS  # a rotation knows two directions only


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("side", [48, 112])
def test_each_level_does_more_harm_than_the_one_before(kind, side):
    image = face(side)
    for row in range(3):
        harm = [
            np.abs(corrupt(image, kind, level, row).astype(float) - image).mean()
            for level in EVERY_LEVEL
        ]
        assert harm == sorted(harm)
        assert harm[0] < 0.7 * harm[-1]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_level_does_as_much_harm_to_a_small_crop_as_to_a_large_one(kind):
    """Sizes share what is random too; only the noise is drawn anew for each size."""
    large = face(112)
    small = cv2.resize(large, (48, 48), interpolation=cv2.INTER_AREA)
    for level in EVERY_LEVEL:
        shrunk = corrupt(large, kind, level, row=5)
        shrunk = cv2.resize(shrunk, (48, 48), interpolation=cv2.INTER_AREA).astype(float)
        harmed = corrupt(small, kind, level, row=5).astype(float)
        of_small, of_large = np.abs(harmed - small).mean(), np.abs(shrunk - small).mean()
        # A third: the mildest blur is narrower than a pixel of 48.
        assert of_small == pytest.approx(of_large, rel=0.33)
        if kind not in ("noise", "jpeg"):  # a JPEG's errors are small, and flip with grey levels
            assert np.abs(harmed - shrunk).mean() < 0.45 * of_large


@pytest.mark.parametrize("kind", OCCLUSIONS)
@pytest.mark.parametrize("side", [32, 48, 112])
def test_occlusion_covers_its_share_to_half_a_pixel_and_holds_the_milder_one(kind, side):
    for row in range(4):
        masks = [covered(kind, level, side, row) for level in EVERY_LEVEL]
        for mask, percent in zip(masks, (10, 20, 30, 40, 50), strict=True):
            assert abs(mask.sum() - percent / 100 * side**2) <= 0.5
        for smaller, larger in itertools.pairwise(masks):
            assert (larger | ~smaller).all()


@pytest.mark.parametrize("kind", OCCLUSIONS)
def test_occlusion_leaves_the_other_pixels_as_they_are(kind):
    image = face(48)
    mask = covered(kind, 3, 48, row=2)
    harmed = corrupt(image, kind, 3, row=2)
    np.testing.assert_array_equal(harmed[~mask], image[~mask])
    assert (harmed[mask] == FILL).all()


def test_block_is_one_square_whose_place_spreads_over_the_face():
    middles = []
    for row in range(60):
        for level, side in zip(EVERY_LEVEL, 100 * np.sqrt([0.1, 0.2, 0.3, 0.4, 0.5]), strict=True):
            rows, columns = np.nonzero(covered("block", level, 100, row))
            assert np.ptp(rows) + 1 == pytest.approx(side, abs=1.6)
            assert np.ptp(columns) + 1 == pytest.approx(side, abs=1.6)
            if level == 1:
                middles.append((rows.mean() / 100, columns.mean() / 100))
    # Half of 0.316 of the side must stay between the middle and the edge.
    assert np.min(middles) >= 0.158
    assert np.max(middles) <= 0.842
    # Drawn evenly from 0.05 to 0.95, times the room of 1 - 0.316: a deviation of 0.178.
    assert np.std(middles, axis=0) == pytest.approx([0.178, 0.178], rel=0.25)


@pytest.mark.parametrize(("kind", "height"), [("eye_band", 0.38), ("mouth_band", 0.75)])
def test_band_lies_at_its_height_from_side_to_side(kind, height):
    for level, share in zip(EVERY_LEVEL, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        mask = covered(kind, level, 100)
        rows = np.flatnonzero(mask.all(axis=1))
        assert np.count_nonzero(mask.any(axis=1)) - len(rows) <= 1  # one row covered in part
        assert rows[0] == pytest.approx(100 * (height - share / 2), abs=1)
        assert rows[-1] + 1 == pytest.approx(100 * (height + share / 2), abs=1)


def test_random_shape_is_a_few_pieces_and_no_dust():
    for row in range(20):
        mask = covered("random_shape", 3, 112, row).astype(np.uint8)
        pieces, _, sizes, _ = cv2.connectedComponentsWithStats(mask)
        assert pieces - 1 <= 6
        assert sizes[1:, cv2.CC_STAT_AREA].max() > 0.08 * mask.size


def test_rotation_turns_about_the_center_by_its_degrees_to_either_side():
    image = disc(112, 30, 0, 4)
    sides = set()
    for row in range(20):
        places = [centroid(corrupt(image, "rotation", level, row)) for level in EVERY_LEVEL]
        turned = [np.rad2deg(np.arctan2(y, x)) for x, y in places]
        side = np.sign(turned[0])
        assert turned == pytest.approx([side * d for d in (10, 20, 30, 45, 60)], abs=0.5)
        sides.add(side)
    assert sides == {-1.0, 1.0}


def test_perspective_keeps_the_center_and_foreshortens_by_the_cosine_of_its_degrees():
    image = disc(224, 0, 0, 10)
    for row in range(5):
        for level, degrees in zip(EVERY_LEVEL, (15, 25, 35, 45, 55), strict=True):
            harmed = corrupt(image, "perspective", level, row)
            shrunk = harmed.sum() / image.sum()
            assert shrunk == pytest.approx(np.cos(np.deg2rad(degrees)), rel=0.03)
            assert np.hypot(*centroid(harmed)) < 0.5


def test_perspective_shows_the_nearer_side_larger():
    # Of four discs at 80 pixels from the center, one at least is 80 sin 45 sin 45 = 40 pixels
    # nearer to the camera, which is 448 away, and the one opposite to it as much farther. An area
    # goes with the third power of its depth: (488 / 408)^3 = 1.71.
    for row in range(5):
        west, east, north, south = (
            corrupt(disc(224, x, y, 6), "perspective", 4, row).sum(dtype=float)
            for x, y in ((-80, 0), (80, 0), (0, -80), (0, 80))
        )
        assert max(west / east, east / west, north / south, south / north) > 1.6


@pytest.mark.parametrize("side", [64, 112, 224])
def test_blurred_edge_is_as_wide_as_its_sigma(side):
    image = plain(side, side, 0)
    image[:, side // 2 :] = 255
    at = np.arange(side - 1) - (side / 2 - 1)
    for level, share in zip(EVERY_LEVEL, (0.01, 0.02, 0.03, 0.045, 0.065), strict=True):
        slope = np.diff(corrupt(image, "blur", level, 0)[side // 2, :, 0].astype(float)) / 255
        width = np.sqrt((slope * at**2).sum())
        assert width == pytest.approx(share * side, rel=0.06)  # the kernel ends at three sigma


@pytest.mark.parametrize("side", [32, 48, 112, 224])
def test_noise_has_its_deviation_and_disturbs_coarse_and_fine_crops_alike(side):
    coarse = []
    for level, sigma in zip((1, 2, 3), (10, 20, 35), strict=True):
        harmed = [corrupt(plain(side, side, 128), "noise", level, row)[..., 0] for row in range(20)]
        assert np.std(harmed) == pytest.approx(sigma, rel=0.05)
        assert np.mean(harmed) == pytest.approx(128, abs=0.1 * sigma)
        cells = [cv2.resize(h.astype(float), (8, 8), interpolation=cv2.INTER_AREA) for h in harmed]
        coarse.append(np.std(cells) / sigma)
    # White noise with a power of 1 per grain of 2 sqrt(pi) 0.01 of the side, seen in 1/8 of it.
    assert coarse == pytest.approx([0.0354 * 8] * 3, rel=0.2)


def test_stronger_noise_is_the_same_noise_scaled():
    mild, strong = (
        corrupt(plain(112, 112, 128), "noise", level, 0).astype(float) - 128 for level in (1, 2)
    )
    assert np.abs(strong - 2 * mild).max() <= 1.5  # both are rounded


def test_low_light_multiplies():
    image = np.arange(0, 256, 5, dtype=np.uint8)[None, :, None].repeat(40, axis=0)
    for level, factor in zip(EVERY_LEVEL, (0.6, 0.4, 0.25, 0.15, 0.1), strict=True):
        harmed = corrupt(image, "low_light", level, 0)
        assert np.abs(harmed - factor * image.astype(float)).max() <= 0.5


@pytest.mark.parametrize("side", [32, 48, 112, 224])
def test_low_resolution_keeps_large_forms_and_loses_what_is_finer_than_its_pixels(side):
    large = plain(side, side, 20)
    large[:, side // 2 :] = 220
    stripes = plain(side, side, 20)
    stripes[:, ::2] = 220
    for level in EVERY_LEVEL:
        # Half of what the coarsest level's pixel holds is clear of the edge between the halves.
        left = corrupt(large, "low_resolution", level, 0)[:, : side // 8]
        assert np.abs(left.astype(float) - 20).max() <= 20
    lost = corrupt(stripes, "low_resolution", LEVELS, 0)
    assert np.std(lost) < 0.25 * np.std(stripes)


@pytest.mark.parametrize("kind", ["rotation", "perspective", "blur", "jpeg", "low_resolution"])
def test_plain_image_stays_plain(kind):
    for level in EVERY_LEVEL:
        harmed = corrupt(plain(48, 48, 128), kind, level, row=1)
        assert np.abs(harmed.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("level", [0, -1, 6])
def test_level_that_does_not_exist_is_refused(level):
    with pytest.raises(ValueError, match=f"level {level} of 'blur'; levels are 1 to 5"):
        corrupt(plain(48, 48, 0), "blur", level, 0)


def test_split_serves_the_same_harmed_images_in_batches_of_any_size():
    faces = np.stack([draw_face("test", number).image for number in range(7)])
    rows = np.array([4, 9, 2, 11, 30, 31, 8])
    split = Split(
        name="test",
        images=faces,
        labels=np.zeros(7, np.int32),
        targets=np.ones((7, 1), np.float32),
        rows=rows,
        repeated=np.zeros(7, bool),
        names=np.array(list("abcdefg")),
        groups={},
        class_names=("a",),
    )
    harmed = replace(split, images=CorruptedImages(faces, rows, "random_shape", 2))
    assert len(harmed.images) == 7
    expected = [corrupt(f, "random_shape", 2, row) for f, row in zip(faces, rows, strict=True)]
    for batch_size in (1, 3, 7):
        batches = [batch["image"] for batch in pipeline.eval_batches(harmed, batch_size)]
        np.testing.assert_array_equal(np.concatenate(batches)[:7], expected)
