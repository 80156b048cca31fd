"""A sketch: shapes on a face or on the picture, collected first and painted all at once.

Collecting lets one projection serve every point of a face, which is what makes ten thousand faces
affordable. Shapes are painted hard-edged on a canvas four times as fine as the picture, which is
then reduced: that smooths every edge at a fifth of the time of OpenCV's own smooth lines.
"""

import functools
import itertools
from typing import NamedTuple

import cv2
import numpy as np

from data_builders.synthetic_faces.head import Head

SIDE = 64
"""Height and width of a finished face, in pixels."""

FINENESS = 4
"""Canvas pixels for one pixel of the picture, in each direction."""

_FRACTION_BITS = 4

Colour = np.ndarray
"""Red, green and blue, 0 to 255, float [3]."""


class _Shape(NamedTuple):
    kind: str  # "fill", "hull", "stroke", "line" or "loop"
    points: np.ndarray
    where: str  # "face", "around" or "canvas": what the points mean
    out: float | np.ndarray  # height above the face; growth of what goes around the head
    width: float | np.ndarray
    colour: Colour


class Sketch:
    """Shapes in the order in which they are painted.

    Points [n, 2] lie on the frontal face, in head units, `out` above its surface; those of the
    methods on the canvas are canvas pixels. Widths are head units everywhere.
    """

    def __init__(self, head: Head):
        self.head = head
        self._shapes: list[_Shape] = []

    def fill(self, points: np.ndarray, colour: Colour, out: float | np.ndarray = 0.0) -> None:
        """Fills a polygon on the face."""
        self._shapes.append(_Shape("fill", points, "face", out, 0.0, colour))

    def stroke(
        self,
        points: np.ndarray,
        width: float | np.ndarray,
        colour: Colour,
        out: float | np.ndarray = 0.0,
    ) -> None:
        """Draws a brush stroke on the face.

        Args:
          points: its middle, [n, 2].
          width: its greatest width if a number: the stroke then thins out to both ends; or its
            width at each point, [n].
          colour: its colour.
          out: height above the face, for all points or for each.
        """
        self._shapes.append(_Shape("stroke", points, "face", out, width, colour))

    def loop(self, points: np.ndarray, width: float, colour: Colour, out: float = 0.0) -> None:
        """Draws a closed line of even width on the face."""
        self._shapes.append(_Shape("loop", points, "face", out, width, colour))

    def fill_around(
        self, points: np.ndarray, colour: Colour, grow: float = 1.0, hull: bool = False
    ) -> None:
        """Fills a polygon, or the convex hull of points, given as `Head.around` takes them."""
        kind = "hull" if hull else "fill"
        self._shapes.append(_Shape(kind, points, "around", grow, 0.0, colour))

    def stroke_around(
        self, points: np.ndarray, width: float, colour: Colour, grow: float = 1.0
    ) -> None:
        """Draws a brush stroke through points given as `Head.around` takes them."""
        self._shapes.append(_Shape("stroke", points, "around", grow, width, colour))

    def fill_canvas(self, points: np.ndarray, colour: Colour, hull: bool = False) -> None:
        """Fills a polygon on the canvas, or the convex hull of points."""
        kind = "hull" if hull else "fill"
        self._shapes.append(_Shape(kind, points, "canvas", 0.0, 0.0, colour))

    def stroke_canvas(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """Draws a brush stroke on the canvas."""
        self._shapes.append(_Shape("stroke", points, "canvas", 0.0, width, colour))

    def line_canvas(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """Draws a line of even width with round ends on the canvas."""
        self._shapes.append(_Shape("line", points, "canvas", 0.0, width, colour))

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        """Paints the shapes.

        Returns:
          The picture, uint8 [SIDE, SIDE, 3], black where nothing is; and how much of each pixel
          is covered, uint8 [SIDE, SIDE], 255 for all of it.
        """
        counts = np.array([len(shape.points) for shape in self._shapes])
        ends = np.cumsum(counts)
        starts = ends - counts
        points = self._place(counts, starts)
        fixed = _fix(points)
        brims = iter(self._brims(points, counts))
        colours = np.clip([shape.colour for shape in self._shapes], 0, 255).astype(int).tolist()
        canvas = np.zeros((SIDE * FINENESS, SIDE * FINENESS, 4), np.uint8)
        for shape, start, end, colour in zip(
            self._shapes, starts.tolist(), ends.tolist(), colours, strict=True
        ):
            paint = (*colour, 255)
            if shape.kind in ("line", "loop"):
                width = max(1, round(float(shape.width) * self.head.scale))
                closed = shape.kind == "loop"
                path = [fixed[start:end]]
                cv2.polylines(canvas, path, closed, paint, width, cv2.LINE_8, _FRACTION_BITS)
                continue
            if shape.kind == "stroke":
                polygon = next(brims)
            elif shape.kind == "hull":
                hull = cv2.convexHull(fixed[start:end])
                cv2.fillConvexPoly(canvas, hull, paint, cv2.LINE_8, _FRACTION_BITS)
                continue
            else:
                polygon = fixed[start:end]
            cv2.fillPoly(canvas, [polygon], paint, cv2.LINE_8, _FRACTION_BITS)
        # Two halvings: OpenCV has fast code for those, and none for quarters.
        half = cv2.resize(canvas, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
        small = cv2.resize(half, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGBA2RGB), cv2.extractChannel(small, 3)

    def _place(self, counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Returns all points in canvas pixels, [n, 2]."""
        points = np.concatenate([shape.points for shape in self._shapes])
        out = _spread([shape.out for shape in self._shapes], counts, starts)
        where = [shape.where for shape in self._shapes]
        for kind, place in (("face", self.head.place), ("around", self.head.around)):
            chosen = np.repeat([kind == other for other in where], counts).nonzero()[0]
            points[chosen] = place(points[chosen], out[chosen])
        return points

    def _brims(self, points: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
        """Returns the outline [2 k, 2] of each stroke: along one side and back on the other."""
        is_stroke = [shape.kind == "stroke" for shape in self._shapes]
        points = points[np.repeat(is_stroke, counts)]
        widths = [
            shape.width * _taper(len(shape.points))
            if isinstance(shape.width, float)
            else shape.width
            for shape in self._shapes
            if shape.kind == "stroke"
        ]
        counts = counts[is_stroke]
        ends = np.cumsum(counts)
        first, beyond = np.repeat(ends - counts, counts), np.repeat(ends, counts)
        number = np.arange(len(points))
        after = np.minimum(number + 1, beyond - 1)
        before = np.maximum(number - 1, first)
        along = points[after] - points[before]
        x, y = along[:, 0], along[:, 1]
        half = 0.5 * self.head.scale * np.concatenate(widths) / (np.sqrt(x * x + y * y) + 1e-6)
        across = np.empty_like(points)
        across[:, 0], across[:, 1] = -y * half, x * half
        outlines = np.empty((2 * len(points), 2))
        outlines[first + number] = points + across
        outlines[first + 2 * beyond - 1 - number] = points - across
        fixed, edges = _fix(outlines), [0, *(2 * ends).tolist()]
        return [fixed[low:high] for low, high in itertools.pairwise(edges)]


def mix(one: Colour, other: Colour | float, share: float) -> Colour:
    """Returns `one` with `share` (0 to 1) of it replaced by `other`."""
    return one + (other - one) * share


def path(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    """Returns points [n, 2] of coordinates x and y."""
    points = np.empty((len(x), 2))
    points[:, 0] = x
    points[:, 1] = y
    return points


def ellipse(
    center: np.ndarray, radii: np.ndarray | tuple[float, float], points: int = 20
) -> np.ndarray:
    """Returns an ellipse as a polygon [points, 2]."""
    return _circle(points) * radii + center


def curve(points: np.ndarray, samples: int = 12) -> np.ndarray:
    """Returns a smooth curve [samples, 2] through points [n, 2] (cubic, Catmull-Rom)."""
    return _spline(len(points), samples) @ points


@functools.cache
def _circle(points: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


@functools.cache
def _spline(knots: int, samples: int) -> np.ndarray:
    """Returns the weights [samples, knots] of a curve's points on its knots."""
    eye = np.eye(knots)
    padded = np.concatenate([2 * eye[:1] - eye[1:2], eye, 2 * eye[-1:] - eye[-2:-1]])
    at = np.linspace(0, knots - 1, samples)
    index = np.minimum(at.astype(int), knots - 2)
    t = (at - index)[:, None]
    a, b, c, d = (padded[index + k] for k in range(4))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


@functools.cache
def _taper(points: int) -> np.ndarray:
    return np.sin(np.linspace(0.12, np.pi - 0.12, points)) ** 0.6


def _spread(values: list, counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns one number for each point, from one for each shape or for each of its points."""
    many = [k for k, value in enumerate(values) if isinstance(value, np.ndarray)]
    spread = np.repeat([0.0 if isinstance(v, np.ndarray) else v for v in values], counts)
    for k in many:
        spread[starts[k] : starts[k] + counts[k]] = values[k]
    return spread


def _fix(points: np.ndarray) -> np.ndarray:
    return np.rint(points * (1 << _FRACTION_BITS)).astype(np.int32)
