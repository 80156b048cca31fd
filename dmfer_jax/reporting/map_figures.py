"""Pictures of what a network looks at: maps over faces, and the weights of its attention.

The first hold the images themselves. Owners of real datasets mostly forbid to pass images on, so
they are drawn only when asked for, and stay with whoever holds the data.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from dmfer_jax.reporting.console import whole_percent
from dmfer_jax.reporting.drawing import BLUE, VERMILLION, StrPath, new_figure, save


class Face(NamedTuple):
    """A face and its maps.

    Attributes:
      image: uint8 `[h, w, c]`, grey (1 channel) or RGB (3).
      name: of its source.
      true: its class.
      predicted: the class that the maps speak for.
      probability: of the predicted class.
      maps: {heading: float `[h, w]`}, none below 0, the same headings for every face.
    """

    image: np.ndarray
    name: str
    true: str
    predicted: str
    probability: float
    maps: Mapping[str, np.ndarray]


def draw_maps(path: StrPath, faces: Sequence[Face], title: str) -> None:
    """Draws faces, one a row, and beside each the places that speak for the predicted class.

    A place is as clear as its share of the map's largest value, and pale where that is small; a
    line encloses what is above half. Both read the same in grey, on dark faces and on light ones.
    A map that is 0 everywhere says so.

    Args:
      path: the picture to write.
      faces: from top to bottom.
      title: above all of them.
    """
    headings = list(faces[0].maps)
    figure = new_figure(1.9 * (1 + len(headings)), 0.6 + 2.15 * len(faces), title)
    grid = figure.subplots(len(faces), 1 + len(headings), squeeze=False)
    for index, (row, face) in enumerate(zip(grid, faces, strict=True)):
        right = face.true == face.predicted
        verdict = "right" if right else f"wrong, is {face.true}"
        row[0].set_title(
            f"{face.predicted} {whole_percent(face.probability)}\n{verdict}",
            fontsize=9,
            color=BLUE if right else VERMILLION,
        )
        _show(row[0], face.image)
        row[0].set_xlabel(textwrap.fill(face.name, 22), fontsize=7)
        for axes, heading in zip(row[1:], headings, strict=True):
            if index == 0:
                axes.set_title(heading, fontsize=9)
            _draw_map(axes, face.image, face.maps[heading])
    save(figure, path)


def draw_attention(
    path: StrPath,
    rows: Mapping[str, np.ndarray],
    notes: Mapping[str, Sequence[str]],
    boundaries: Sequence[int | None],
    title: str,
) -> None:
    """Draws the attention matrix of each head.

    Args:
      path: the picture to write.
      rows: {what it is of: weights `[heads, d, d]`}, rows of a matrix sum to 1.
      notes: {what it is of: a text for each head, above its matrix}.
      boundaries: of each head, how many of its first channels are of the shallow scale; a line is
        drawn there. None where all are of one scale.
      title: above everything.
    """
    heads = len(boundaries)
    columns = min(heads, 4)
    lines = -(-heads // columns)  # of panels for each row
    figure = new_figure(1.2 + 2.4 * columns, 1 + 3.05 * lines * len(rows), title)
    grid = figure.subplots(lines * len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    # As multiples of the even weight 1/d, in one scale for all; few weights are far above the rest.
    relative = {name: weights * weights.shape[-1] for name, weights in rows.items()}
    limits = np.percentile(np.stack(list(relative.values())), (0.5, 99.5))
    shown: Any = None
    for place, (name, weights) in enumerate(relative.items()):
        for index, matrix in enumerate(weights):
            axes = grid[place * lines + index // columns, index % columns]
            axes.axis("on")
            # Of these colours the brighter is the larger, so they read the same in grey.
            shown = axes.imshow(matrix, "cividis", vmin=limits[0], vmax=limits[1])
            heading = f"{name}\n" if index == 0 else "\n" * (index < columns)
            axes.set_title(heading + notes[name][index], fontsize=8, loc="left")
            axes.set(xticks=[], yticks=[])
            if (boundary := boundaries[index]) is not None:
                for line in (axes.axhline, axes.axvline):
                    line(boundary - 0.5, color="white", linewidth=1.5)
            if index % columns == 0:
                axes.set_ylabel("channel that asks", fontsize=8)
            if index >= heads - columns:
                axes.set_xlabel("channel asked", fontsize=8)
    bar = figure.colorbar(shown, ax=grid, extend="both", aspect=40, fraction=0.03, pad=0.02)
    bar.set_label("weight, as a multiple of an even one", fontsize=9)
    save(figure, path)


_LEFT = 0.25
"""How much of the face is left where a map is 0, so that it can be seen what lies there."""


def _draw_map(axes: Axes, image: np.ndarray, heat: np.ndarray) -> None:
    most = heat.max()
    share = heat / most if most > 0 else np.zeros_like(heat)
    left = (_LEFT + (1 - _LEFT) * share)[..., None]
    _show(axes, (image * left + 255 * (1 - left)).round().astype(np.uint8))
    if most > 0 and share.min() < 0.5:
        axes.contour(share, levels=[0.5], colors=["white"], linewidths=2.2)
        axes.contour(share, levels=[0.5], colors=["black"], linewidths=0.9)
    if most == 0:
        axes.set_xlabel("nothing speaks for it", fontsize=7)


def _show(axes: Axes, image: np.ndarray) -> None:
    grey = image.shape[-1] == 1
    axes.imshow(image.squeeze(-1) if grey else image, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
