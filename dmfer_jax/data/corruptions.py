"""Controlled harm to face crops: eleven kinds at five levels each, from mild to severe.

The image is taken to be the face: an aligned crop, eyes and mouth where such crops have them. A
strength is relative to the image, so that level 3 of a crop of 48 pixels is level 3 of one of 112.
What is random about an image depends on the kind and on the image's row in its source, and is
common to the five levels: a block of 20 % holds the block of 10 %.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dmfer_jax.data.sources import Images

LEVELS = 5

EYE_HEIGHT, MOUTH_HEIGHT = 0.38, 0.75
"""Where eyes and mouth are in an aligned face crop, as a share of its height: an assumption."""

FILL = 128
"""Grey level of what is covered. Mid-grey is near zero for the network: it takes the face away and
adds nothing. Noise would also measure how noise is borne, which has a kind of its own, and would be
the very fill that random erasing shows in training."""

CAMERA_DISTANCE = 2.0
"""Between the camera and a crop that is tilted, in sides of the crop."""

GRAIN = 0.01
"""Standard deviation of a grain of noise, as a share of the side: about half a pixel of 48."""

JPEG_SIDE = 112
"""Pixels along the side when a crop is stored as JPEG: its 8-pixel blocks are 1/14 of any crop."""

SMALLEST = 32
"""Height and width, in pixels, from which on each level harms as much as it says."""

Apply = Callable[[np.ndarray, float, np.random.RandomState], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """One kind of harm.

    Attributes:
      parameter: what is turned up, such as "turned by".
      unit: of `values`.
      values: the parameter at the five levels, mildest first.
      apply: takes uint8 `[h, w, c]`, one of `values` and a source of random numbers; returns the
        harmed image, perhaps without its only channel.
    """

    parameter: str
    unit: str
    values: tuple[float, ...]
    apply: Apply


def corrupt(image: np.ndarray, kind: str, level: int, row: int) -> np.ndarray:
    """Returns a harmed copy of an image.

    The result depends on the arguments alone (and, by single grey levels, on the releases of OpenCV
    and Pillow). A grey image of three equal channels stays grey, and equals that of one channel.

    Args:
      image: uint8 `[h, w, c]`, c 1 or 3, h and w at least `SMALLEST`.
      kind: one of `CORRUPTIONS`.
      level: 1 (mildest) to 5.
      row: of the image in its source.

    Returns:
      uint8 `[h, w, c]`.

    Raises:
      ValueError: there is no such level.
    """
    if not 1 <= level <= LEVELS:
        raise ValueError(f"level {level} of '{kind}'; levels are 1 to {LEVELS}")
    corruption = CORRUPTIONS[kind]
    harmed = corruption.apply(image, corruption.values[level - 1], _random(kind, row))
    return harmed.reshape(image.shape)  # OpenCV and Pillow leave a single channel away


class CorruptedImages:
    """Images that are harmed when they are asked for; serves as a split's `images`."""

    def __init__(self, images: Images, rows: np.ndarray, kind: str, level: int):
        """Serves `images`, which stand in `rows` of their source, at a level of a kind."""
        self._images, self._rows = images, rows
        self._kind, self._level = kind, level

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        images, rows = self._images[index], self._rows[index]
        if rows.ndim == 0:
            return corrupt(images, self._kind, self._level, int(rows))
        harmed = zip(images, rows.tolist(), strict=True)
        return np.stack([corrupt(image, self._kind, self._level, row) for image, row in harmed])


def _random(kind: str, row: int) -> np.random.RandomState:
    """The random numbers of one image, the same for every level."""
    # Of NumPy's generators, only the streams of RandomState are promised never to change.
    seed = np.random.SeedSequence((zlib.crc32(kind.encode()), row))
    return np.random.RandomState(np.random.MT19937(seed))


def _cover(image: np.ndarray, order: np.ndarray, percent: float) -> np.ndarray:
    """Greys the pixels with the lowest numbers in `order [h, w]`: the share, to half a pixel."""
    chosen = np.argsort(order, axis=None, kind="stable")[: round(percent / 100 * order.size)]
    covered = image.copy()
    covered.reshape(order.size, -1)[chosen] = FILL
    return covered


def _block(image: np.ndarray, percent: float, random: np.random.RandomState) -> np.ndarray:
    """A rectangle of the image's shape, at a random place."""
    # A rectangle that grows out of a point and reaches all four sides of the image at once has the
    # shape of the image at every size, and fits in. A pixel's number is the size that reaches it.
    order = np.zeros(image.shape[:2])
    for axis, start in enumerate(random.uniform(0.05, 0.95, 2)):
        at = _positions(image.shape[axis])
        reached = np.maximum((start - at) / start, (at - start) / (1 - start))
        order = np.maximum(order, reached[:, None] if axis == 0 else reached)
    return _cover(image, order, percent)


def _eye_band(image: np.ndarray, percent: float, random: np.random.RandomState) -> np.ndarray:
    return _band(image, percent, EYE_HEIGHT)


def _mouth_band(image: np.ndarray, percent: float, random: np.random.RandomState) -> np.ndarray:
    return _band(image, percent, MOUTH_HEIGHT)


def _band(image: np.ndarray, percent: float, height: float) -> np.ndarray:
    """A band from side to side; its last row is covered in part where the share asks for that."""
    distance = np.abs(_positions(image.shape[0]) - height)
    return _cover(image, np.broadcast_to(distance[:, None], image.shape[:2]), percent)


def _random_shape(image: np.ndarray, percent: float, random: np.random.RandomState) -> np.ndarray:
    """One or a few round shapes: where a smooth random field is lowest."""
    field = random.standard_normal((4, 4))
    height, width = image.shape[:2]
    return _cover(image, cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), percent)


def _rotation(image: np.ndarray, degrees: float, random: np.random.RandomState) -> np.ndarray:
    """Turns about the center, either way; pixels from outside repeat the edge, as in training."""
    height, width = image.shape[:2]
    angle = degrees if random.random_sample() < 0.5 else -degrees
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    flags, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=border)


def _perspective(image: np.ndarray, degrees: float, random: np.random.RandomState) -> np.ndarray:
    """Tilts the picture, as a flat board, about a random axis through its center.

    It is not a turned head, which shows other parts of itself; that needs photographs.
    """
    height, width = image.shape[:2]
    toward = random.uniform(0, 2 * np.pi)
    rotation, _ = cv2.Rodrigues(np.deg2rad(degrees) * np.array([np.cos(toward), np.sin(toward), 0]))
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    corners = middle * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    tilted = np.pad(corners, ((0, 0), (0, 1))) @ rotation.T  # [4, 3], pixels from the center
    distance = CAMERA_DISTANCE * _side(image)
    seen = tilted[:, :2] * distance / (distance + tilted[:, 2:])
    before, after = ((points + middle).astype(np.float32) for points in (corners, seen))
    matrix = cv2.getPerspectiveTransform(before, after)
    flags, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    return cv2.warpPerspective(image, matrix, (width, height), flags=flags, borderMode=border)


def _blur(image: np.ndarray, percent: float, random: np.random.RandomState) -> np.ndarray:
    sigma = percent / 100 * _side(image)
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _noise(image: np.ndarray, sigma: float, random: np.random.RandomState) -> np.ndarray:
    """Adds normal noise, the same to each channel, with grains that grow with the image."""
    grain = GRAIN * _side(image)
    reach = int(np.ceil(3 * grain))
    field = random.standard_normal((image.shape[0] + 2 * reach, image.shape[1] + 2 * reach))
    kernel = cv2.getGaussianKernel(2 * reach + 1, grain)
    smooth = cv2.sepFilter2D(field, -1, kernel, kernel)[reach:-reach, reach:-reach]
    noise = sigma / (kernel**2).sum() * smooth  # smoothing had divided the deviation by that
    return np.rint(np.clip(image + noise[..., None], 0, 255)).astype(np.uint8)


def _low_light(image: np.ndarray, percent: float, random: np.random.RandomState) -> np.ndarray:
    """Darkens, and no more: what a sensor adds in the dark is `noise`."""
    return np.rint(image * (percent / 100)).astype(np.uint8)


def _jpeg(image: np.ndarray, quality: float, random: np.random.RandomState) -> np.ndarray:
    stored = _resize(image, JPEG_SIDE / _side(image))
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=int(quality))
    return _resize_to(np.asarray(Image.open(file)), image)


def _low_resolution(image: np.ndarray, side: float, random: np.random.RandomState) -> np.ndarray:
    return _resize_to(_resize(image, side / _side(image)), image)


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    size = (round(factor * width), round(factor * height))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=kind)


def _resize_to(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    height, width = like.shape[:2]
    kind = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=kind)


def _side(image: np.ndarray) -> int:
    return min(image.shape[:2])


def _positions(size: int) -> np.ndarray:
    """Centers of pixels, 0 to 1."""
    return (np.arange(size) + 0.5) / size


_COVERED = ("area covered", "% of the face", (10, 20, 30, 40, 50))

CORRUPTIONS = {
    "block": Corruption(*_COVERED, _block),
    "eye_band": Corruption(*_COVERED, _eye_band),
    "mouth_band": Corruption(*_COVERED, _mouth_band),
    "random_shape": Corruption(*_COVERED, _random_shape),
    "rotation": Corruption("turned by", "degrees", (10, 20, 30, 45, 60), _rotation),
    "perspective": Corruption("tilted by", "degrees", (15, 25, 35, 45, 55), _perspective),
    "blur": Corruption("sigma", "% of the side", (1, 2, 3, 4.5, 6.5), _blur),
    "noise": Corruption("sigma", "grey levels", (10, 20, 35, 50, 70), _noise),
    "low_light": Corruption("light left", "% of the light", (60, 40, 25, 15, 10), _low_light),
    "jpeg": Corruption("quality", "of 100", (30, 15, 8, 5, 3), _jpeg),
    "low_resolution": Corruption("side", "pixels", (24, 18, 14, 10, 7), _low_resolution),
}
"""Every kind by its name. A kind's random numbers follow from its name, not from its place here."""
