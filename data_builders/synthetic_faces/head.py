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
import functools
import math

import numpy as np

_VIEW_DISTANCE = 7.0

# The profile of a head, tabulated: squares of half its width and of its depth, as shares of the
# greatest, from the crown (-1) over the eyes (0) to a little below the chin (1).
_LEVELS = np.concatenate([np.linspace(-1, 0, 48, endpoint=False), np.linspace(0, 1, 49)])
_ABOVE = _LEVELS < 0
_BELOW_CHIN = 1.04
_LEAST = 1e-3
_WIDTHS_ABOVE = np.maximum(1 - np.abs(_LEVELS[_ABOVE]) ** 2.6, _LEAST)
_TO_CHIN = np.minimum(_LEVELS[~_ABOVE] * _BELOW_CHIN, 1)
# Flatter than the width: forehead and chin stand nearly as far out as the cheeks.
_DEPTHS = np.maximum(1 - np.abs(_LEVELS) ** np.where(_ABOVE, 3.2, 3.6), _LEAST)
_NECK_HEIGHTS, _NECK_DEPTHS = np.array([-0.2, 0.9]), np.array([1.12, 0.25])

# Nets of turns in degrees and shares of a height. The one all around is denser at its top: at the
# crown, a step down moves the surface far outwards.
_TURNS = np.linspace(-180, 180, 16, endpoint=False)


def _net(turns: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return np.stack([np.tile(turns, len(shares)), np.repeat(shares, len(turns))], 1)


_NET = _net(_TURNS, np.linspace(0, 1, 9) ** 1.5)
_NET_BEHIND = _net(_TURNS[np.abs(_TURNS) >= 85], np.linspace(0, 1, 3))

_ALONG_EDGE = np.linspace(0, 1, 25)
_DOWN_SIDE = np.linspace(0, 1, 16)[1:-1]


@dataclasses.dataclass(frozen=True)
class Pose:
    """How a head is turned, in degrees."""

    yaw: float
    pitch: float
    roll: float

    def matrix(self) -> np.ndarray:
        """Returns the rotation [3, 3] that maps points of the head to the viewer's axes."""
        angles = [math.radians(angle) for angle in (self.yaw, self.pitch, self.roll)]
        (sy, sp, sr), (cy, cp, cr) = map(math.sin, angles), map(math.cos, angles)
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
        above = len(_WIDTHS_ABOVE)
        self._heights = _LEVELS * (self.chin * _BELOW_CHIN)
        self._heights[:above] = _LEVELS[:above] * -shape.crown
        self._widths = np.empty(len(_LEVELS))
        self._widths[:above] = _WIDTHS_ABOVE
        self._widths[above:] = np.maximum(1 - _TO_CHIN**shape.jaw, _LEAST)
        # A face detector centres its box on what it sees of the face: half-way between the middle
        # of the skull and the nose once the head is turned.
        face = self.project(np.array([[0.0, 0.12, 0.55 * shape.depth]]))[0]
        self._offset = np.asarray(center) - face

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """Returns half the width of the head at the heights y."""
        return self.shape.width * np.sqrt(np.interp(y, self._heights, self._widths))

    def depth(self, y: np.ndarray) -> np.ndarray:
        """Returns how far the front of the head reaches towards the viewer at the heights y."""
        return self.shape.depth * np.sqrt(np.interp(y, self._heights, _DEPTHS))

    def lift(self, points: np.ndarray, out: float | np.ndarray = 0.0) -> np.ndarray:
        """Puts points [n, 2] of the frontal face on the surface, `out` above it: [n, 3]."""
        x, y = points[:, 0], points[:, 1]
        sine = np.minimum(np.maximum(x / self.half_width(y), -0.985), 0.985)
        lifted = np.empty((len(points), 3))
        lifted[:, :2] = points
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

    def around(self, points: np.ndarray, grow: float | np.ndarray = 1.0) -> np.ndarray:
        """Projects points of the surface given by the turn from the front and by height.

        Args:
          points: [n, 2]; first degrees around the vertical axis, where 0 is the front and 90 the
            right ear, then the height.
          grow: 1 is the skin; more lies outside it. For all points or for each.

        Returns:
          [n, 2] in pixels.
        """
        y = points[:, 1]
        angle = np.radians(points[:, 0])
        along = np.cos(angle)
        # The back of the skull is round above and ends in the neck below.
        behind = np.interp(y, _NECK_HEIGHTS, _NECK_DEPTHS)
        along = np.where(along < 0, along * behind, along)
        solid = np.empty((len(points), 3))
        solid[:, 0] = self.half_width(y) * np.sin(angle) * grow
        solid[:, 1] = y * grow
        solid[:, 2] = self.depth(y) * along * grow
        return self.project(solid)

    def surface(self, top: float, bottom: float) -> np.ndarray:
        """Returns a net of points for `around`, all around the head between two heights: [m, 2]."""
        net = _NET.copy()
        net[:, 1] = top + (bottom - top) * net[:, 1]
        return net

    def cap(self, top: float, edge: float, bottom: float) -> np.ndarray:
        """Returns points for `around` on what hair covers: above `edge`, and behind below it."""
        behind = _NET_BEHIND.copy()
        behind[:, 1] = edge + (bottom - edge) * behind[:, 1]
        return np.concatenate([self.surface(top, edge), behind])

    def front(self, upper: np.ndarray, lower: float, side: float = 95.0) -> np.ndarray:
        """Outlines the visible front of the head from an upper edge down to a height.

        Args:
          upper: heights of the upper edge, at turns evenly spaced from -side to side, [k].
          lower: the height of the lower edge.
          side: degrees; how far round the part reaches.

        Returns:
          A closed polygon for `around`, [78, 2].
        """
        left, right = self._visible(side)
        turns = left + (right - left) * _ALONG_EDGE
        edge = np.interp(turns * ((len(upper) - 1) / (2 * side)), _centered(len(upper)), upper)
        outline = np.empty((78, 2))
        outline[:25, 0], outline[:25, 1] = turns, edge
        outline[25:39, 0], outline[25:39, 1] = right, edge[-1] + (lower - edge[-1]) * _DOWN_SIDE
        outline[39:64, 0], outline[39:64, 1] = turns[::-1], lower
        outline[64:, 0], outline[64:, 1] = left, lower + (edge[0] - lower) * _DOWN_SIDE
        return outline

    def _visible(self, side: float) -> tuple[float, float]:
        """Returns the turns of the left and the right edge of what the viewer sees."""
        ratio = self.shape.width / self.shape.depth
        yaw = math.radians(self.pose.yaw)
        edge = math.degrees(math.atan2(ratio * math.cos(yaw), abs(math.sin(yaw))))
        return (-side, min(side, edge)) if self.pose.yaw > 0 else (max(-side, -edge), side)


@functools.cache
def _centered(count: int) -> np.ndarray:
    return np.arange(count) - (count - 1) / 2
