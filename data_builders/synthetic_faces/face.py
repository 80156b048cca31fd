"""Draws face number i of a split, and says what it shows.

A face depends on the seed, its split and its number alone, so any number of processes, in any
order, draw the same files.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from data_builders.synthetic_faces import photography
from data_builders.synthetic_faces.difficulty import DEFAULT, Difficulty
from data_builders.synthetic_faces.drawing import FINENESS, SIDE, Sketch
from data_builders.synthetic_faces.expression import draw_units, shape_face
from data_builders.synthetic_faces.head import Head, HeadShape, Pose
from data_builders.synthetic_faces.occluders import OCCLUSIONS, draw_occluder
from data_builders.synthetic_faces.person import draw_person
from data_builders.synthetic_faces.portrait import draw_portrait
from dmfer_jax.labels import Expression

SPLITS: tuple[str, ...] = ("train", "valid", "test", "test_occlusion", "test_pose")

_PIXELS_PER_UNIT = 23.5  # of the finished face: half a head is that wide

# What is drawn from each stream of random numbers. Streams are apart, so that a face at another
# intensity, or without its occluder, is the same face otherwise. They are few, as starting one
# costs as much as dozens of numbers do.
_STREAMS = ("label", "occlusion", "picture", "expression", "occluder")


@dataclasses.dataclass(frozen=True)
class Face:
    """A drawn face and what it shows.

    Attributes:
      image: uint8 [64, 64, 3], red first; not yet compressed.
      quality: of the JPEG file that it is meant to become, 1 to 100.
      label: the expression.
      intensity: its strength, 0 (always so for neutral) to 1.
      yaw: degrees; positive turns the nose to the right of the picture.
      pitch: degrees; positive lifts the nose.
      roll: degrees; positive turns the picture clockwise.
      occlusion: one of OCCLUSIONS.
    """

    image: np.ndarray
    quality: int
    label: Expression
    intensity: float
    yaw: float
    pitch: float
    roll: float
    occlusion: str

    def encode(self) -> bytes:
        """Returns the image as the JPEG file that goes into the records."""
        return photography.compress(self.image, self.quality)


def draw_face(
    split: str,
    index: int,
    seed: int = 0,
    difficulty: Difficulty = DEFAULT,
    *,
    expression: Expression | None = None,
    intensity: float | None = None,
) -> Face:
    """Draws one face.

    Args:
      split: one of SPLITS.
      index: the number of the face in the split, from 0.
      seed: of the whole dataset.
      difficulty: how hard the faces are.
      expression: draws this one in place of the one that is due; person, pose, light and camera
        stay the same.
      intensity: likewise; 0 to 1.

    Returns:
      The face.
    """

    def stream(name: str) -> np.random.Generator:
        key = [seed, SPLITS.index(split), index, _STREAMS.index(name)]
        return np.random.default_rng(np.array(key, np.uint32))

    if expression is None:
        expression = Expression(_balanced(seed, split, index, "label", len(Expression)))
    least, mode = difficulty.intensity_min, difficulty.intensity_mode
    mime = stream("expression")
    drawn = float(mime.triangular(least, mode, 1.0))
    if intensity is None:
        intensity = drawn
    if expression == Expression.NEUTRAL:
        intensity = 0.0
    occlusion = "none"
    if split == "test_occlusion":
        kinds = len(OCCLUSIONS) - 1
        occlusion = OCCLUSIONS[1 + _balanced(seed, split, index, "occlusion", kinds)]

    chance = stream("picture")
    person = draw_person(chance, difficulty)
    units = draw_units(mime, expression, intensity, difficulty)
    shape = shape_face(units, person.rest)
    pose = _draw_pose(chance, split, difficulty)
    head = _place_head(chance, person.skull, shape.jaw_drop, pose, difficulty)

    sketch = Sketch(head)
    draw_portrait(sketch, person, shape, chance)
    if occlusion != "none":
        draw_occluder(sketch, person, occlusion, stream("occluder"))
    picture, cover = sketch.paint()
    shade = photography.light(head, chance, difficulty)
    background = photography.draw_background(chance)
    picture = photography.put_together(picture, cover, shade, background)
    return Face(
        image=photography.expose(picture, chance, difficulty),
        quality=int(chance.integers(difficulty.quality_min, difficulty.quality_max + 1)),
        label=expression,
        intensity=intensity,
        yaw=pose.yaw,
        pitch=pose.pitch,
        roll=pose.roll,
        occlusion=occlusion,
    )


def draw_records(
    split: str, indices: Iterable[int], seed: int = 0, difficulty: Difficulty = DEFAULT
) -> list[dict[str, Any]]:
    """Draws faces as records: the work of one process.

    Args:
      split: one of SPLITS.
      indices: numbers of the faces in the split.
      seed: of the whole dataset.
      difficulty: how hard the faces are.

    Returns:
      For each face the fields of the dataset, the image as a JPEG file.
    """
    # The pictures are so small that OpenCV's threads cost more than they do.
    cv2.setNumThreads(1)
    records = []
    for index in indices:
        face = draw_face(split, index, seed, difficulty)
        records.append(
            {
                "image": face.encode(),
                "label": int(face.label),
                "name": f"{split}_{index:05d}",
                "row": index,
                "intensity": face.intensity,
                "yaw": face.yaw,
                "pitch": face.pitch,
                "roll": face.roll,
                "occlusion": face.occlusion,
            }
        )
    return records


def _balanced(seed: int, split: str, index: int, stream: str, count: int) -> int:
    """Returns a number below `count` such that each occurs once in every `count` faces."""
    block, place = divmod(index, count)
    return _shuffled(seed, split, block, stream, count)[place]


@functools.lru_cache(16)
def _shuffled(seed: int, split: str, block: int, stream: str, count: int) -> list[int]:
    key = [seed, SPLITS.index(split), block, _STREAMS.index(stream), count]
    return np.random.default_rng(key).permutation(count).tolist()


def _draw_pose(rng: np.random.Generator, split: str, difficulty: Difficulty) -> Pose:
    d = difficulty
    # Most people look more or less at the camera.
    turns = rng.uniform(-1, 1, 3) * rng.uniform(0.3, 1, 3)
    yaw, pitch, roll = (turns * np.array([d.yaw, d.pitch, d.roll])).tolist()
    if split == "test_pose":
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if rng.random() < 0.7:
            yaw = sign * rng.uniform(d.pose_from, d.pose_yaw_to)
        else:
            pitch = sign * rng.uniform(d.pose_from, d.pose_pitch_to)
    return Pose(float(yaw), float(pitch), float(roll))


def _place_head(
    rng: np.random.Generator, skull: HeadShape, jaw_drop: float, pose: Pose, difficulty: Difficulty
) -> Head:
    size, across, down = (min(max(n, -2.0), 2.0) for n in rng.normal(size=3).tolist())
    scale = _PIXELS_PER_UNIT * (1 + difficulty.scale * size)
    center = SIDE * FINENESS * (np.array([0.5, 0.49]) + difficulty.shift * np.array([across, down]))
    return Head(skull, jaw_drop, pose, scale * FINENESS, center)
