"""Turns a drawing into a photograph: light, background, colour, sharpness, noise, compression."""

import cv2
import numpy as np

from data_builders.synthetic_faces.difficulty import Difficulty
from data_builders.synthetic_faces.drawing import FINENESS, SIDE, ellipse
from data_builders.synthetic_faces.head import Head

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)

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
_RELIEF_RINGS = np.stack(
    [ellipse(np.array([x, y]), np.array([rx, ry]), 12) for x, y, rx, ry, _ in _RELIEF]
)


def light(
    picture: np.ndarray, head: Head, rng: np.random.Generator, difficulty: Difficulty
) -> np.ndarray:
    """Lights the head from one direction, as a solid, and adds the soft relief of a face.

    Args:
      picture: float32 [SIDE, SIDE, 3], 0 to 255, evenly lit.
      head: where the head is.
      rng: source of the light's direction and strength.
      difficulty: how strong it may get.

    Returns:
      The lit picture, float32 [SIDE, SIDE, 3].
    """
    middle = head.project(np.array([[0.0, 0.0, 0.0]]))[0] / FINENESS
    radius = head.scale / FINENESS
    x = (_X - middle[0]) / (1.12 * radius)
    y = (_Y - middle[1]) / (1.45 * radius)
    out = np.sqrt(np.maximum(1 - x * x - y * y, 0.05))
    side, above = rng.normal(0, 0.75), rng.normal(-0.45, 0.45)
    toward = np.array([side, above, 1.1])
    toward /= np.linalg.norm(toward)
    lambert = x * toward[0] + y * toward[1] + out * toward[2]
    strength = rng.uniform(0.25, 1) * difficulty.light
    shade = 1 - strength + strength * 1.25 * np.clip(lambert, 0.0, 1.1)

    relief = np.full((SIDE, SIDE), 128, np.uint8)
    rings = head.place(_RELIEF_RINGS.reshape(-1, 2)).reshape(_RELIEF_RINGS.shape)
    for ring, (*_, amount) in zip(np.rint(rings / FINENESS * 16), _RELIEF, strict=True):
        cv2.fillPoly(relief, [ring.astype(np.int32)], 128 + amount, cv2.LINE_8, 4)
    relief = cv2.GaussianBlur(relief, (0, 0), 0.11 * radius)
    shade = shade.astype(np.float32) * (relief.astype(np.float32) / 128)
    return picture * shade[..., None]


def draw_background(rng: np.random.Generator) -> np.ndarray:
    """Draws what stands behind a person, out of focus: float32 [SIDE, SIDE, 3]."""
    ends = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    slope = rng.uniform(-1, 1, 2)
    ramp = np.clip(0.5 + ((_X - 32) * slope[0] + (_Y - 32) * slope[1]) / SIDE, 0, 1)[..., None]
    picture = ends[0] + (ends[1] - ends[0]) * ramp.astype(np.float32)
    for _ in range(int(rng.integers(0, 9))):
        colour = tuple(float(c) for c in rng.uniform(10, 245, 3))
        start, size = rng.uniform(-10, SIDE, 2).astype(int), rng.uniform(4, 30, 2).astype(int)
        low, high = tuple(map(int, start)), tuple(map(int, start + size))
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.rectangle(picture, low, high, colour, -1)
        elif kind == 1:
            cv2.circle(picture, low, int(size[0]) // 2, colour, -1)
        else:
            cv2.line(picture, low, high, colour, int(rng.integers(1, 5)))
    return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 3.0)))


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
    slope = rng.normal(0, 0.14, 2)
    ramp = 1 + ((_X - 32) * slope[0] + (_Y - 32) * slope[1]) / 32
    picture = picture * (ramp[..., None] * gain).astype(np.float32)
    contrast = rng.uniform(0.75, 1.15)
    picture = 118 + (picture - 118) * np.float32(contrast)
    if rng.random() < d.grey_chance:
        grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
        picture = np.repeat(grey[..., None], 3, axis=2)
    if rng.random() < d.low_resolution_chance:
        side = int(rng.integers(d.low_resolution_side, SIDE))
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < d.blur_chance:
        across, along = rng.uniform(0.3, d.blur_sigma, 2)
        picture = cv2.GaussianBlur(picture, (0, 0), float(across), sigmaY=float(along))
    noise = rng.standard_normal(picture.shape, np.float32)
    picture = picture + noise * np.float32(rng.uniform(0.5, d.noise) * rng.random())
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def compress(picture: np.ndarray, quality: int) -> bytes:
    """Returns a picture uint8 [h, w, 3], red first, as a JPEG file."""
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return data.tobytes()
