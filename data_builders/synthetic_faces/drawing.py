"""A sketch: shapes on a face or on the picture, collected first and painted all at once.

Collecting lets one projection serve every point of a face, which is what makes ten thousand faces
affordable. Shapes are painted hard-edged on a canvas four times as fine as the picture, which is
then reduced: that smooths every edge at a fifth of the time of OpenCV's own smooth lines.
"""

import dataclasses
import functools

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


@dataclasses.dataclass(frozen=True)
class _Shape:
    kind: str  # "fill", "hull", "stroke", "line" or "loop"
    points: np.ndarray
    out: float | np.ndarray | None  # height above the face; None: the points are canvas pixels
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
        self._shapes.append(_Shape("fill", points, out, 0.0, colour))

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
        self._shapes.append(_Shape("stroke", points, out, width, colour))

    def loop(self, points: np.ndarray, width: float, colour: Colour, out: float = 0.0) -> None:
        """Draws a closed line of even width on the face."""
        self._shapes.append(_Shape("loop", points, out, width, colour))

    def fill_canvas(self, points: np.ndarray, colour: Colour, hull: bool = False) -> None:
        """Fills a polygon on the canvas, or the convex hull of points."""
        self._shapes.append(_Shape("hull" if hull else "fill", points, None, 0.0, colour))

    def stroke_canvas(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """Draws a brush stroke on the canvas."""
        self._shapes.append(_Shape("stroke", points, None, width, colour))

    def line_canvas(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """Draws a line of even width with round ends on the canvas."""
        self._shapes.append(_Shape("line", points, None, width, colour))

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        """Paints the shapes.

        Returns:
          The picture, float32 [SIDE, SIDE, 3], 0 to 255 and black where nothing is; and how much
          of each pixel is covered, float32 [SIDE, SIDE, 1], 0 to 1.
        """
        counts = np.array([len(shape.points) for shape in self._shapes])
        ends = np.cumsum(counts)
        starts = ends - counts
        points = self._place(counts, starts)
        fixed = _fix(points)
        brim_out, brim_in = (_fix(side) for side in self._brims(points, counts, starts, ends))
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
                polygon = np.concatenate([brim_out[start:end], brim_in[start:end][::-1]])
            elif shape.kind == "hull":
                polygon = cv2.convexHull(fixed[start:end])
            else:
                polygon = fixed[start:end]
            cv2.fillPoly(canvas, [polygon], paint, cv2.LINE_8, _FRACTION_BITS)
        small = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        return small[..., :3], small[..., 3:] / 255

    def _place(self, counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Returns all points in canvas pixels, [n, 2]."""
        points = np.concatenate([shape.points for shape in self._shapes])
        on_face = np.repeat([shape.out is not None for shape in self._shapes], counts)
        out = _spread([0.0 if s.out is None else s.out for s in self._shapes], counts, starts)
        points[on_face] = self.head.place(points[on_face], out[on_face])
        return points

    def _brims(
        self, points: np.ndarray, counts: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns both sides of every stroke, [n, 2] each; other shapes get no width."""
        widths = _spread(
            [
                shape.width * _taper(len(shape.points))
                if shape.kind == "stroke" and isinstance(shape.width, float)
                else shape.width
                for shape in self._shapes
            ],
            counts,
            starts,
        )
        number = np.arange(len(points))
        after = np.minimum(number + 1, np.repeat(ends, counts) - 1)
        before = np.maximum(number - 1, np.repeat(starts, counts))
        along = points[after] - points[before]
        length = np.sqrt((along * along).sum(1)) + 1e-6
        half = (0.5 * self.head.scale * widths / length)[:, None]
        across = along[:, ::-1] * [-1.0, 1.0] * half
        return points + across, points - across


def mix(one: Colour, other: Colour | float, share: float) -> Colour:
    """Returns `one` with `share` (0 to 1) of it replaced by `other`."""
    return one + (other - one) * share


def path(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    """Returns points [n, 2] of coordinates x and y."""
    points = np.empty((len(x), 2))
    points[:, 0] = x
    points[:, 1] = y
    return points


def ellipse(center: np.ndarray, radii: np.ndarray, points: int = 20) -> np.ndarray:
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
