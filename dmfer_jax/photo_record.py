"""What is said of a photo as plain values: rows of the command, and answers of a server.

docs/use.md describes the fields.
"""

from collections.abc import Sequence
from typing import Any

from dmfer_jax.expression_model import Face, Photo


def make_record(
    name: str, photo: Photo, seconds: float | None = None, tracks: Sequence[int] = ()
) -> dict[str, Any]:
    """Returns what `reporting.face_rows` takes of a photo or a frame.

    Args:
      name: what to call it.
      photo: what is said of it.
      seconds: of a frame, its time.
      tracks: of a frame, the number of each face.
    """
    numbers = tracks or [None] * len(photo.faces)
    return {
        "photo": name,
        "seconds": seconds,
        "width": photo.width,
        "height": photo.height,
        "faces": [_face(face, track) for face, track in zip(photo.faces, numbers, strict=True)],
        "error": photo.error,
        "note": photo.note,
    }


def _face(face: Face, track: int | None) -> dict[str, Any]:
    return {
        "track": track,
        "expression": face.expression,
        "probabilities": {name: round(value, 7) for name, value in face.probabilities.items()},
        "box": [round(edge, 2) for edge in face.box],
        "landmarks": None
        if face.landmarks is None
        else face.landmarks.astype(float).round(2).tolist(),
        "score": None if face.score is None else round(face.score, 4),
    }
