"""Draws a contact sheet of the drawn faces, to look at before believing any accuracy.

python -m data_builders.synthetic_faces.contact_sheet --out=faces.png
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from data_builders.synthetic_faces.drawing import SIDE
from data_builders.synthetic_faces.face import Face, draw_face
from data_builders.synthetic_faces.occluders import OCCLUSIONS
from dmfer_jax.labels import Expression

_MARGIN = 76
_HEADER = 16


def contact_sheet(columns: int = 12, seed: int = 0, zoom: int = 1) -> Image.Image:
    """Draws a labelled sheet.

    Args:
      columns: faces in a row.
      seed: of the dataset.
      zoom: pixels of the sheet for one pixel of a face.

    Returns:
      An image with one row for each expression, weak faces on the left and strong ones on the
      right, one for each kind of occlusion, and two for turned heads.
    """
    rows: list[tuple[str, list[Face]]] = []
    for expression in Expression:
        faces = _find(columns, "train", seed, lambda face, e=expression: face.label == e)
        faces.sort(key=lambda face: face.intensity)
        rows.append((expression.name.lower(), faces))
    for kind in OCCLUSIONS[1:]:
        faces = _find(columns, "test_occlusion", seed, lambda face, k=kind: face.occlusion == k)
        rows.append((kind, faces))
    rows.append(("yaw", _find(columns, "test_pose", seed, lambda face: abs(face.yaw) > 30)))
    rows.append(("pitch", _find(columns, "test_pose", seed, lambda face: abs(face.pitch) > 30)))
    return _arrange(rows, zoom)


def _find(count: int, split: str, seed: int, wanted: Callable[[Face], bool]) -> list[Face]:
    found: list[Face] = []
    index = 0
    while len(found) < count:
        face = draw_face(split, index, seed)
        if wanted(face):
            found.append(face)
        index += 1
    return found


def _arrange(rows: Sequence[tuple[str, Sequence[Face]]], zoom: int) -> Image.Image:
    step = SIDE * zoom + 2
    columns = max(len(faces) for _, faces in rows)
    size = (_MARGIN + columns * step, _HEADER + len(rows) * step)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    title = "Embedded faces; expressions are weak on the left and strong on the right"
    pen.text((_MARGIN, 2), title, fill="black")
    for row, (name, faces) in enumerate(rows):
        top = _HEADER + row * step
        pen.text((4, top + step // 2 - 6), name, fill="black")
        for column, face in enumerate(faces):
            tile = Image.fromarray(np.ascontiguousarray(face.image))
            tile = tile.resize((SIDE * zoom, SIDE * zoom), Image.Resampling.BICUBIC)
            sheet.paste(tile, (_MARGIN + column * step, top))
    return sheet


def main() -> None:
    """Reads the flags and writes the sheet."""
    parser = argparse.ArgumentParser(description="Draws a contact sheet.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="PNG file to write")
    parser.add_argument("--columns", type=int, default=12, help="faces in a row")
    parser.add_argument("--seed", type=int, default=0, help="seed of the dataset")
    parser.add_argument("--zoom", type=int, default=1, help="enlargement of each face")
    flags = parser.parse_args()
    contact_sheet(flags.columns, flags.seed, flags.zoom).save(flags.out)
    print(f"wrote {flags.out}")


if __name__ == "__main__":
    main()
