"""Finds the faces of a photo, and cuts each out upright as the images of FER2013 were.

The finder is CenterFace (Xu et al., 2019, arXiv:1911.03599), run by OpenCV; its weights lie in this
package (`weights/centerface/`, see its README). Where FER2013 has a face in its frame was measured
by `benchmarks/face_frames.py`: the finder's own boxes and landmarks on images of its training
split. So a face is cut out where the finder sees in the cut what it sees in those images.

Points are x, y in pixels of the photo, from its upper left corner; the first pixel's middle is at
0.5, 0.5.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from dmfer_jax.data.images import resized
from dmfer_jax.errors import UserError

WEIGHTS = Path(__file__).parent / "weights" / "centerface" / "centerface.onnx"

LANDMARKS = (
    "left eye",
    "right eye",
    "nose",
    "left corner of the mouth",
    "right corner of the mouth",
)
"""What the rows of a face's landmarks are; left is the viewer's left."""

FRAME_LANDMARKS = np.array(
    [[0.3125, 0.403], [0.6875, 0.403], [0.5, 0.6035], [0.35, 0.7575], [0.65, 0.7575]]
)
"""Medians over FER2013, in shares of the frame's side, made symmetric."""

FRAME_BOX_SIDE = 0.88
"""The side of a square as large as the finder's box, in shares of the frame's side: a median."""

FRAME_BOX_MIDDLE = 0.5125
"""How far down the frame the middle of the box is: a median. Across, it is in the middle."""


class Frame(NamedTuple):
    """A square of a photo, which may stand askew.

    Attributes:
      x: of its middle, in pixels.
      y: of its middle, in pixels.
      side: in pixels.
      roll: how far it is turned clockwise, in radians.
    """

    x: float
    y: float
    side: float
    roll: float

    def to_photo(self, shares: np.ndarray) -> np.ndarray:
        """Returns where points of the frame lie in the photo.

        Args:
          shares: `[n, 2]`, of the frame's side, from its upper left corner.

        Returns:
          float64 `[n, 2]`, pixels.
        """
        sine, cosine = math.sin(self.roll), math.cos(self.roll)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return (shares - 0.5) * self.side @ turn + (self.x, self.y)


class FoundFace(NamedTuple):
    """A face of a photo.

    Attributes:
      box: x and y of the upper left corner, x and y of the lower right, pixels; the face from the
        hairline to the chin. It may reach out of the photo.
      landmarks: float32 `[5, 2]`, pixels; what `LANDMARKS` names.
      score: how sure the finder is that this is a face, 0 to 1.
      frame: what to cut out, turned as the face is.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float
    frame: Frame


def scale_face(face: FoundFace, by: float) -> FoundFace:
    """Returns a face as it lies in the photo of another size.

    Args:
      face: of a photo.
      by: that photo's size by this one's.
    """
    x, y, side, roll = face.frame
    x0, y0, x1, y1 = face.box
    return FoundFace(
        (x0 * by, y0 * by, x1 * by, y1 * by),
        face.landmarks * np.float32(by),
        face.score,
        Frame(x * by, y * by, side * by, roll),
    )


class FaceFinder:
    """Finds faces; may be called from any number of threads.

    Args:
      side: pixels that a photo's longer side is shrunk to, where it has more. Faces of less than 15
        pixels there are missed; time and memory grow with the square.
      least_score: what is less surely a face is left out, 0 to 1.

    Raises:
      UserError: an argument is out of range.
    """

    def __init__(self, side: int = 1024, least_score: float = 0.5) -> None:
        if not _COARSE <= side <= 8192:
            raise UserError(f"the finder's side is {side}; expected {_COARSE} to 8192 pixels")
        if not 0.1 <= least_score < 1:
            raise UserError(f"the finder's least score is {least_score}; expected 0.1 to below 1")
        self._side, self._least_score = side, least_score
        self._free: list[Any] = []  # networks that no thread is using; each serves one at a time

    def __call__(self, photo: np.ndarray) -> list[FoundFace]:
        """Returns the faces of a photo, the largest first.

        Args:
          photo: uint8 `[h, w, 3]`, RGB.
        """
        try:
            network = self._free.pop()
        except IndexError:
            network = cv2.dnn.readNetFromONNX(str(WEIGHTS))
        try:
            faces = [_refine(network, photo, face) for face in self._find(network, photo)]
        finally:
            self._free.append(network)
        return sorted(faces, key=lambda face: -face.frame.side)

    def _find(self, network: Any, photo: np.ndarray) -> list[FoundFace]:
        """Faces as they are seen in the whole photo, each once."""
        found: list[FoundFace] = []
        for side in _sides(max(photo.shape[:2]), self._side):
            scale = side / max(photo.shape[:2])
            seen = see(network, _resize(photo, scale), self._least_score)
            for face in seen:
                width = face.box[2] - face.box[0]
                if side > _COARSE and width > _LARGEST_SEEN:
                    continue  # a part of a large face, which is seen whole in the smaller photo
                face = scale_face(face, 1 / scale)
                if all(_overlap(face.box, other.box) < _SAME_FACE for other in found):
                    found.append(face)
        return found


_LEAST = 160
"""Pixels that a photo's longer side has at least: smaller ones are enlarged. FER2013's own images
(48 pixels) are found in 97 % so, and in 83 % as they are."""

_COARSE = 320
"""Pixels of the longer side where large faces are looked for."""

_LARGEST_SEEN = 400
"""Pixels above which a face is seen as several small ones."""

_SAME_FACE = 0.5
"""The share of the smaller one of two boxes that both cover, from which they are of one face."""

REFINED_SIDE = 160
"""Pixels of a face's frame when it is looked at again."""


def _sides(longer: int, most: int) -> list[int]:
    """Longer sides of the photo to look for faces in, the smallest first."""
    if longer <= _LARGEST_SEEN:
        return [max(longer, _LEAST)]
    return [_COARSE, min(longer, most)] if most > _COARSE else [_COARSE]


def _refine(network: Any, photo: np.ndarray, face: FoundFace) -> FoundFace:
    """Looks at a face again, upright and in the size in which FER2013's faces were measured.

    Landmarks get more exact by it, and the box no longer depends on how large the face is in the
    photo, how it is turned, and what is around it.
    """
    frame = face.frame
    cut = cut_out(photo, frame, REFINED_SIDE)
    for seen in see(network, cut, _LEAST_SCORE_AGAIN):
        middle = np.array([[seen.frame.x, seen.frame.y]]) / REFINED_SIDE
        grows = seen.frame.side / REFINED_SIDE
        if np.abs(middle - 0.5).max() > 0.25 or not 0.6 < grows < 1.6:
            continue  # another face beside it, or a part of it
        x, y = frame.to_photo(middle)[0]
        return face._replace(
            landmarks=frame.to_photo(seen.landmarks / REFINED_SIDE).astype(np.float32),
            frame=Frame(float(x), float(y), frame.side * grows, frame.roll + seen.frame.roll),
        )
    return face


_LEAST_SCORE_AGAIN = 0.3


def cut_out(photo: np.ndarray, frame: Frame, size: int) -> np.ndarray:
    """Returns what a frame holds, upright.

    It is cut out with about as many pixels as it has in the photo, and then resized as
    a dataset's crops are (`data.images.resized`). Beyond the photo's edge its outermost pixels go
    on.

    Args:
      photo: uint8 `[h, w]` or `[h, w, c]`.
      frame: of a face.
      size: height and width of the result, in pixels.

    Returns:
      uint8 `[size, size]` or `[size, size, c]`.
    """
    pixels = min(max(round(frame.side), 1), _MOST_CUT)
    corners = frame.to_photo(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    across, down = (corners[1] - corners[0]) / pixels, (corners[2] - corners[0]) / pixels
    # OpenCV turns no image of 2^15 pixels on a side, so it gets the part around the frame.
    most = np.array([photo.shape[1], photo.shape[0]])
    start = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, most - 1)
    stop = np.clip(np.ceil(corners.max(0)).astype(int) + 2, start + 1, most)
    # And it counts pixels by their middles.
    first = corners[0] + (across + down) / 2 - 0.5 - start
    cut = cv2.warpAffine(
        photo[start[1] : stop[1], start[0] : stop[0]],
        np.column_stack([across, down, first]),
        (pixels, pixels),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return resized(Image.fromarray(cut), size)


_MOST_CUT = 4096  # pixels; more of a face than any network takes


def see(network: Any, image: np.ndarray, least_score: float) -> list[FoundFace]:
    """Returns what the network sees in an image as large as it is, the surest first.

    Its four outputs have a place for every 4 x 4 pixels: how sure it is of the middle of a face
    there, the logarithms of the box's height and width in fours of pixels, the middle's offset, and
    the landmarks in shares of the box; y always before x.

    Args:
      network: of OpenCV, which no other thread uses meanwhile.
      image: uint8 `[h, w, 3]`, RGB.
      least_score: what is less surely a face is left out.

    Returns:
      Faces, in pixels of the image; no two whose boxes overlap much.
    """
    height, width = image.shape[:2]
    padded = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
    padded[:height, :width] = image
    network.setInput(cv2.dnn.blobFromImage(padded))
    heat, sizes, offsets, points = network.forward(_OUTPUTS)
    rows, columns = np.nonzero(heat[0, 0] >= least_score)
    scores = heat[0, 0, rows, columns]
    high, wide = 4 * np.exp(sizes[0][:, rows, columns].astype(np.float64))
    y = 4 * (rows + 0.5 + offsets[0, 0, rows, columns]) - high / 2
    x = 4 * (columns + 0.5 + offsets[0, 1, rows, columns]) - wide / 2
    boxes = np.stack([x, y, x + wide, y + high], 1)
    shares = points[0][:, rows, columns].reshape(5, 2, -1).transpose(2, 0, 1)[..., ::-1]
    landmarks = boxes[:, None, :2] + shares * np.stack([wide, high], 1)[:, None]
    return [
        FoundFace(
            tuple(boxes[index].tolist()),
            landmarks[index].astype(np.float32),
            float(scores[index]),
            _frame(boxes[index], landmarks[index]),
        )
        for index in _strongest(boxes, scores)
    ]


_OUTPUTS = ("537", "538", "539", "540")


def _frame(box: np.ndarray, landmarks: np.ndarray) -> Frame:
    """The frame that FER2013 would have: as large as the box says, turned as the landmarks say.

    A model was right on 85.9 % of 1,920 validation images cut out so, on 85.6 % as they are, and on
    85.3 % cut out by the landmarks alone, by which faces turned aside are too small.
    """
    roll = _roll(landmarks)
    middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    side = math.sqrt(size[0] * size[1]) / FRAME_BOX_SIDE
    lower = (FRAME_BOX_MIDDLE - 0.5) * side
    x, y = middle[0] + lower * math.sin(roll), middle[1] - lower * math.cos(roll)
    return Frame(float(x), float(y), side, roll)


def _roll(landmarks: np.ndarray) -> float:
    """How far landmarks are turned clockwise against `FRAME_LANDMARKS`, by least squares."""
    found, upright = (points - points.mean(0) for points in (landmarks, FRAME_LANDMARKS))
    cosine = np.sum(found * upright)
    sine = np.sum(found[:, 1] * upright[:, 0] - found[:, 0] * upright[:, 1])
    return math.atan2(sine, cosine)


def _strongest(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Of boxes that overlap, the surest ones (non-maximum suppression)."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        upper = np.maximum(boxes[best, :2], boxes[left, :2])
        lower = np.minimum(boxes[best, 2:], boxes[left, 2:])
        both = np.prod(np.maximum(lower - upper, 0), axis=1)
        left = left[both < _SUPPRESSED * (areas[best] + areas[left] - both)]
    return kept


_SUPPRESSED = 0.3  # of the union of two boxes, as CenterFace's authors have it


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The share of the smaller box that both cover."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)


def _resize(photo: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return photo
    height, width = (max(round(pixels * scale), 1) for pixels in photo.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(photo, (width, height), interpolation=how)
