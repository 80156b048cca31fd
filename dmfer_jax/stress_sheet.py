"""Draws one face under every kind and level of harm, to look at before believing any curve.

python -m dmfer_jax.stress_sheet --out=docs/images/stress.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_builders.synthetic_faces.face import draw_face
from dmfer_jax.data.corruptions import CORRUPTIONS, LEVELS, corrupt

_MARGIN, _HEADER, _GAP = 92, 16, 12


def contact_sheet(image: np.ndarray, row: int = 0, zoom: int = 1) -> Image.Image:
    """Draws a labelled sheet.

    Args:
      image: uint8 `[h, w, c]`, c 1 or 3.
      row: of the image in its source; decides what is random.
      zoom: pixels of the sheet for one pixel of the image.

    Returns:
      An image with one row for each kind: on its left the image as it is, then levels 1 to 5.
    """
    height, width = zoom * image.shape[0], zoom * image.shape[1]
    step = (width + 2, height + _GAP)
    size = (_MARGIN + (LEVELS + 1) * step[0], _HEADER + len(CORRUPTIONS) * step[1])
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 2), "as it is, and levels 1 to 5", fill="black")
    for place, (kind, corruption) in enumerate(CORRUPTIONS.items()):
        top = _HEADER + place * step[1]
        pen.text((4, top + height // 2 - 18), f"{kind}:\n{corruption.parameter},", fill="black")
        pen.text((4, top + height // 2 + 12), corruption.unit, fill="black")
        tiles = [image, *(corrupt(image, kind, level, row) for level in range(1, LEVELS + 1))]
        for column, (tile, value) in enumerate(zip(tiles, ("", *corruption.values), strict=True)):
            left = _MARGIN + column * step[0]
            shown = Image.fromarray(tile.squeeze(-1) if tile.shape[-1] == 1 else tile)
            sheet.paste(shown.resize((width, height), Image.Resampling.NEAREST), (left, top))
            pen.text((left + 2, top + height), str(value), fill="black")
    return sheet


def main() -> None:
    """Reads the flags and writes the sheet of an embedded face."""
    parser = argparse.ArgumentParser(description="Draws a face under every kind of harm.")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--face", type=int, default=34, help="number of an embedded test face")
    parser.add_argument("--zoom", type=int, default=1, help="enlargement of each face")
    flags = parser.parse_args()
    image = draw_face("test", flags.face).image
    contact_sheet(image, flags.face, flags.zoom).save(flags.out, optimize=True)
    print(f"wrote {flags.out}")


if __name__ == "__main__":
    main()
