"""Turns a drawing into a photograph: light, background, colour, sharpness, noise, compression."""

import math

import cv2
import numpy as np

from data_builders.synthetic_faces.difficulty import Difficulty
from data_builders.synthetic_faces.drawing import FINENESS, SIDE, ellipse
from data_builders.synthetic_faces.head import Head

_X = np.arange(SIDE, dtype=np.float32)[None] + np.float32(0.5)
_Y = _X.T

# Drawing fresh noise for each picture would cost more than all its light does.
_GRAIN = np.random.default_rng(0).standard_normal(1 << 17, np.float32)

_RELIEF = (
    # x, y, radius across, radius along, how much lighter (+) or darker (-) in grey levels
    (-0.42, -0.1, 0.3, 0.22, -34),
    (0.42, -0.1, 0.3, 0.22, -34),
    (0.0, 0.56, 0.2, 0.06, -26),
    (0.0, 1.0, 0.28, 0.06, -22),
    (-0.5, 0.32, 0.2, 0.15, 16),
    (0.5, 0.32, 0.2, 0.15, 16),
    (0.0, -0.75, 0.45, 0.22, 10),
    (0.0, 0.25, 0.07, 0.2, 22),
)
_RING = 12
_RELIEF_RINGS = np.concatenate(
    [ellipse(np.array([x, y]), (rx, ry), _RING) for x, y, rx, ry, _ in _RELIEF]
)


def light(head: Head, rng: np.random.Generator, difficulty: Difficulty) -> np.ndarray:
    """Lights the head from one direction, as a solid, and adds the soft relief of a face.

    Args:
      head: where the head is.
      rng: source of the light's direction and strength.
      difficulty: how strong it may get.

    Returns:
      The light that arrives, float32 [SIDE, SIDE]; 1 leaves a picture as it is.
    """
    middle = (head.project(np.zeros((1, 3)))[0] / FINENESS).tolist()
    radius = head.scale / FINENESS
    x = (_X - middle[0]) / (1.12 * radius)
    y = (_Y - middle[1]) / (1.45 * radius)
    out = np.sqrt(np.maximum(1 - x * x - y * y, np.float32(0.05)))
    side, above, front = rng.normal(0, 0.75), rng.normal(-0.45, 0.45), 1.1
    length = math.sqrt(side * side + above * above + front * front)
    strength = rng.uniform(0.25, 1) * difficulty.light
    lambert = x * (side / length) + y * (above / length) + out * (front / length)
    lambert = np.minimum(np.maximum(lambert, np.float32(0)), np.float32(1.1))

    relief = np.full((SIDE, SIDE), 128, np.float32)
    rings = np.rint(head.place(_RELIEF_RINGS) * (16 / FINENESS)).astype(np.int32)
    for ring, (*_, amount) in zip(rings.reshape(-1, _RING, 2), _RELIEF, strict=True):
        cv2.fillPoly(relief, [ring], 128 + amount, cv2.LINE_8, 4)
    relief = cv2.GaussianBlur(relief, (0, 0), 0.11 * radius)
    return (lambert * (strength * 1.25 / 128) + (1 - strength) / 128) * relief


def draw_background(rng: np.random.Generator) -> np.ndarray:
    """Draws what stands behind a person, out of focus: float32 [SIDE, SIDE, 3]."""
    ends = rng.uniform(20, 235, (2, 3))
    across, down = rng.uniform(-1, 1, 2).tolist()
    ramp = np.minimum(np.maximum(_slope(across / SIDE, down / SIDE, 0.5), 0), 1)
    picture = cv2.merge([ramp * (b - a) + a for a, b in ends.T.tolist()])
    for _ in range(int(rng.integers(0, 9))):
        colour = rng.uniform(10, 245, 3).tolist()
        start, size = rng.uniform(-10, SIDE, 2).astype(int), rng.uniform(4, 30, 2).astype(int)
        low, high = start.tolist(), (start + size).tolist()
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.rectangle(picture, low, high, colour, -1)
        elif kind == 1:
            cv2.circle(picture, low, int(size[0]) // 2, colour, -1)
        else:
            cv2.line(picture, low, high, colour, int(rng.integers(1, 5)))
    return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 3.0)))


def put_together(
    picture: np.ndarray, cover: np.ndarray, shade: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """Lights a person and puts the background behind.

    Args:
      picture: the person, uint8 [SIDE, SIDE, 3], black where nobody is.
      cover: how much of each pixel the person covers, uint8 [SIDE, SIDE]; 255 is all.
      shade: the light that arrives, float32 [SIDE, SIDE].
      background: float32 [SIDE, SIDE, 3].

    Returns:
      float32 [SIDE, SIDE, 3], 0 to 255 and more where light is strong.
    """
    lit = cv2.multiply(picture, cv2.merge([shade] * 3), dtype=cv2.CV_32F)
    bare = (255 - cover) * np.float32(1 / 255)
    return lit + background * cv2.merge([bare] * 3)


def expose(picture: np.ndarray, rng: np.random.Generator, difficulty: Difficulty) -> np.ndarray:
    """Does what a camera does to a picture, all but compression.

    Args:
      picture: float32 [SIDE, SIDE, 3], 0 to 255.
      rng: source of the camera's settings.
      difficulty: how bad the camera may be.

    Returns:
      uint8 [SIDE, SIDE, 3].
    """
    d = difficulty
    gain = rng.normal(1, d.colour_cast, 3) * rng.uniform(0.75, 1.2)
    across, down = rng.normal(0, 0.14, 2).tolist()
    slope = _slope(across / 32, down / 32, 1.0)
    picture = picture * cv2.merge([slope * one for one in gain.tolist()])
    contrast = rng.uniform(0.75, 1.15)
    if rng.random() < d.grey_chance:
        picture = cv2.merge([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)] * 3)
    if rng.random() < d.low_resolution_chance:
        side = int(rng.integers(d.low_resolution_side, SIDE))
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < d.blur_chance:
        across, along = rng.uniform(0.3, d.blur_sigma, 2).tolist()
        picture = cv2.GaussianBlur(picture, (0, 0), across, sigmaY=along)
    start = int(rng.integers(len(_GRAIN) - picture.size))
    noise = _GRAIN[start : start + picture.size].reshape(picture.shape)
    amount = rng.uniform(0.5, d.noise) * rng.random()
    # Contrast around middle grey, noise, rounding and clipping in one pass.
    level = 118 * (1 - contrast)
    return cv2.addWeighted(picture, contrast, noise, amount, level, dtype=cv2.CV_8U)


def compress(picture: np.ndarray, quality: int) -> bytes:
    """Returns a picture uint8 [h, w, 3], red first, as a JPEG file."""
    blue_first = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return data.tobytes()


def _slope(across: float, down: float, middle: float) -> np.ndarray:
    """Returns an even slope, float32 [SIDE, SIDE], from its rise for each pixel."""
    return (_X - SIDE / 2) * across + ((_Y - SIDE / 2) * down + middle)
