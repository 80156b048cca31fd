"""The head as a solid: where a point of the face lies in space, and in the picture.

Features are designed on a flat, frontal face. `Head.lift` puts such a point onto the surface of the
head, `Head.project` turns the head and projects it, so that features shift and foreshorten as those
of a real head do.

Units: 1 is half the width of an average head. x points to the right of the picture, y down, z to
the viewer; the origin lies inside the head, at the height of the eyes. Angles are degrees; a
positive yaw turns the nose to the right of the picture, a positive pitch lifts it, a positive roll
turns the picture clockwise.
"""

import dataclasses

import numpy as np

_VIEW_DISTANCE = 7.0
_LEVELS = 9
_TURNS = 16
_ALL_TURNS = np.linspace(-180, 180, _TURNS, endpoint=False)
_STEPS_DOWN = np.linspace(0, 1, _LEVELS) ** 1.5


@dataclasses.dataclass(frozen=True)
class Pose:
    """How a head is turned, in degrees."""

    yaw: float
    pitch: float
    roll: float

    def matrix(self) -> np.ndarray:
        """Returns the rotation [3, 3] that maps points of the head to the viewer's axes."""
        (sy, sp, sr), (cy, cp, cr) = (
            f(np.radians([self.yaw, self.pitch, self.roll])) for f in (np.sin, np.cos)
        )
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return roll @ yaw @ pitch


@dataclasses.dataclass(frozen=True)
class HeadShape:
    """What makes one skull differ from the next; lengths in head units."""

    width: float = 1.0
    crown: float = -1.38
    chin: float = 1.25
    jaw: float = 2.3  # 2 is an oval, 3 nearly a square
    depth: float = 1.0


class Head:
    """A head of some shape, turned, and placed in a picture.

    Args:
      shape: the skull.
      jaw_drop: how far the open mouth lowers the chin, in head units.
      pose: how the head is turned.
      scale: pixels of one head unit.
      center: where the middle of the face goes, [2] in pixels.
    """

    def __init__(
        self, shape: HeadShape, jaw_drop: float, pose: Pose, scale: float, center: np.ndarray
    ):
        self.shape = shape
        self.pose = pose
        self.scale = scale
        self.chin = shape.chin + jaw_drop
        self._rotation = pose.matrix()
        self._offset = np.zeros(2)
        # A face detector centres its box on what it sees of the face: half-way between the middle
        # of the skull and the nose once the head is turned.
        face = self.project(np.array([[0.0, 0.12, 0.55 * shape.depth]]))[0]
        self._offset = np.asarray(center) - face

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """Returns half the width of the head at the heights y."""
        up = 1 - _fraction(y / self.shape.crown) ** 2.6
        down = 1 - _fraction(y / self.chin) ** self.shape.jaw
        return self.shape.width * np.maximum(np.where(y < 0, up, down), 1e-3) ** 0.5

    def depth(self, y: np.ndarray) -> np.ndarray:
        """Returns how far the front of the head reaches towards the viewer at the heights y."""
        # Flatter than the width: forehead and chin stand nearly as far out as the cheeks.
        up = 1 - _fraction(y / self.shape.crown) ** 3.2
        down = 1 - _fraction(y / (self.chin * 1.04)) ** 3.6
        return self.shape.depth * np.maximum(np.where(y < 0, up, down), 1e-3) ** 0.5

    def lift(self, points: np.ndarray, out: float | np.ndarray = 0.0) -> np.ndarray:
        """Puts points [n, 2] of the frontal face on the surface, `out` above it: [n, 3]."""
        x, y = points[:, 0], points[:, 1]
        sine = np.minimum(np.maximum(x / self.half_width(y), -0.985), 0.985)
        lifted = np.empty((len(points), 3))
        lifted[:, 0], lifted[:, 1] = x, y
        lifted[:, 2] = self.depth(y) * np.sqrt(1 - sine * sine) + out
        return lifted

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects points [n, 3] of the head into the picture: [n, 2] in pixels."""
        turned = points @ self._rotation.T
        factor = self.scale * _VIEW_DISTANCE / (_VIEW_DISTANCE - turned[:, 2:])
        return turned[:, :2] * factor + self._offset

    def place(self, points: np.ndarray, out: float | np.ndarray = 0.0) -> np.ndarray:
        """Projects points [n, 2] of the frontal face: [n, 2] in pixels."""
        return self.project(self.lift(points, out))

    def around(self, y: np.ndarray, turn: np.ndarray, grow: float = 1.0) -> np.ndarray:
        """Projects points of the surface given by height and by the turn from the front.

        Args:
          y: heights, [n].
          turn: degrees around the vertical axis; 0 is the front, 90 the right ear, [n].
          grow: 1 is the skin; more lies outside it.

        Returns:
          [n, 2] in pixels.
        """
        angle = np.radians(turn)
        across, along = np.sin(angle), np.cos(angle)
        # The back of the skull is round above and ends in the neck below.
        behind = np.interp(y, [-0.2, 0.9], [1.12, 0.25])
        along = np.where(along < 0, along * behind, along)
        points = np.empty((len(y), 3))
        points[:, 0] = self.half_width(y) * across
        points[:, 1] = y
        points[:, 2] = self.depth(y) * along
        return self.project(points * grow)

    def surface(self, top: float, bottom: float, grow: float = 1.0) -> np.ndarray:
        """Projects a net of points all around the head between two heights: [m, 2] in pixels."""
        # Denser at the crown, where a step down moves the surface far outwards.
        y = top + (bottom - top) * _STEPS_DOWN
        return self.around(np.repeat(y, _TURNS), np.tile(_ALL_TURNS, _LEVELS), grow)

    def cap(self, top: float, edge: float, bottom: float, grow: float) -> np.ndarray:
        """Projects points of what hair covers: all around above `edge`, only behind below it."""
        above = self.surface(top, edge, grow)
        behind = np.abs(_ALL_TURNS) >= 85
        turn = np.tile(_ALL_TURNS[behind], 3)
        y = np.repeat(np.linspace(edge, bottom, 3), int(behind.sum()))
        return np.concatenate([above, self.around(y, turn, grow)])

    def front(self, upper: np.ndarray, lower: float, side: float = 95.0) -> np.ndarray:
        """Outlines the visible front of the head from an upper edge down to a height.

        Args:
          upper: heights of the upper edge, at turns evenly spaced from -side to side, [k].
          lower: the height of the lower edge.
          side: degrees; how far round the part reaches.

        Returns:
          A closed polygon, [m, 2] in pixels.
        """
        left, right = self._visible(side)
        turns = np.linspace(left, right, 25)
        top = np.interp(turns, np.linspace(-side, side, len(upper)), upper)
        down = np.linspace(0, 1, 16)[1:-1]
        right_y, left_y = (edge + (lower - edge) * down for edge in (top[-1], top[0]))
        y = np.concatenate([top, right_y, np.full(25, lower), left_y[::-1]])
        turn = np.concatenate([turns, np.full(14, right), turns[::-1], np.full(14, left)])
        return self.around(y, turn)

    def _visible(self, side: float) -> tuple[float, float]:
        """Returns the turns of the left and the right edge of what the viewer sees."""
        ratio = self.shape.width / self.shape.depth
        yaw = np.radians(self.pose.yaw)
        edge = np.degrees(np.arctan2(ratio * np.cos(yaw), abs(np.sin(yaw))))
        return (-side, min(side, edge)) if self.pose.yaw > 0 else (max(-side, -edge), side)


def _fraction(values: np.ndarray) -> np.ndarray:
    """Returns the values, cut to 0 to 1; faster than clip on few values."""
    return np.minimum(np.maximum(values, 0), 1)
