"""Follows faces from one frame of a video to the next, and steadies what is said of them.

A face of a frame is that of the frame before whose box it covers most, if the two share 0.3 of
their union at least (IoU). Its probabilities are averaged over time: a frame's weight falls to
1 / e in half a second, whatever the frame rate. So a label does not flicker with every frame, and
follows a new expression within a second.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dmfer_jax.expression_model import Face

LEAST_IOU = 0.3
SMOOTHING_SECONDS = 0.5
FORGOTTEN_SECONDS = 1.0
"""After which a face that was not seen is a new one."""


class Followed(NamedTuple):
    """A face of a frame.

    Attributes:
      track: its number, the same in all frames; from 1 on.
      face: with the averaged probabilities, and the expression that is likeliest by them.
    """

    track: int
    face: Face


class Tracks:
    """The faces of one video; frames are given in their order."""

    def __init__(self) -> None:
        self._latest: dict[int, tuple[Face, float]] = {}  # track -> averaged face, when it was seen
        self._number = 0

    def follow(self, faces: Sequence[Face], seconds: float) -> list[Followed]:
        """Returns the faces of the next frame with their tracks, in the same order.

        Args:
          faces: of the frame.
          seconds: the frame's time.
        """
        self._latest = {
            track: (face, seen)
            for track, (face, seen) in self._latest.items()
            if seconds - seen <= FORGOTTEN_SECONDS
        }
        tracks = self._match(faces)
        followed = []
        for index, face in enumerate(faces):
            track = tracks.get(index)
            if track is None:
                self._number = track = self._number + 1
            else:
                before, seen = self._latest[track]
                face = _average(before, face, seconds - seen)
            self._latest[track] = (face, seconds)
            followed.append(Followed(track, face))
        return followed

    def _match(self, faces: Sequence[Face]) -> dict[int, int]:
        """Position of a face -> its track; those that share most first, each once."""
        pairs = sorted(
            (
                (iou(face.box, before.box), index, track)
                for index, face in enumerate(faces)
                for track, (before, _) in self._latest.items()
            ),
            reverse=True,
        )
        matched: dict[int, int] = {}
        for share, index, track in pairs:
            if share >= LEAST_IOU and index not in matched and track not in matched.values():
                matched[index] = track
        return matched


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the area that two boxes share, by that which they cover together.

    >>> iou((0, 0, 2, 1), (1, 0, 3, 1)) == 1 / 3
    True
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (sum(areas) - both)


def _average(before: Face, now: Face, seconds: float) -> Face:
    old = math.exp(-max(seconds, 0.0) / SMOOTHING_SECONDS)
    probabilities = {
        name: old * before.probabilities[name] + (1 - old) * value
        for name, value in now.probabilities.items()
    }
    likeliest = max(probabilities, key=lambda name: probabilities[name])
    return replace(now, expression=likeliest, probabilities=probabilities)
