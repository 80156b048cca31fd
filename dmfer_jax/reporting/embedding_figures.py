"""Pictures of the embedding: a map of its examples, and how its centers part in training."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from dmfer_jax.reporting.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    StrPath,
    new_figure,
    plain_axes,
    save,
)

_COLORS = (BLUE, ORANGE, GREEN, VERMILLION, "#000000", PURPLE, SKY, "#8C6D00")
_MARKERS = "osD^vP*X"
_LINES = ("-", "--", "-.", ":")


class EmbeddingMap(NamedTuple):
    """The map of one run.

    Attributes:
      title: of the run, with its numbers.
      places: float `[n, 2]`, of the examples.
      labels: int `[n]`.
      centers: float `[K, 2]`, NaN where a class has none.
      trained: whether they are the loss's, rather than means of the examples.
    """

    title: str
    places: np.ndarray
    labels: np.ndarray
    centers: np.ndarray
    trained: bool


def draw_embeddings(
    path: StrPath, maps: Sequence[EmbeddingMap], names: Sequence[str], title: str
) -> None:
    """Draws maps side by side, each class in a colour and a shape of its own, its name beside it.

    Args:
      path: the picture to write.
      maps: from left to right.
      names: K class names.
      title: above all of them.
    """
    figure = new_figure(5.6 * len(maps), 6.6, title)
    for axes, one in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        axes.set_title(one.title, loc="left", fontsize=10)
        for index in range(len(names)):
            _draw_class(axes, one, index, names[index])
        axes.set(xticks=[], yticks=[], xlabel="t-SNE: who is near whom; axes carry no unit")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.06)
        axes.spines[:].set_color("#AAAAAA")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for trained, label in ((True, "center of the loss"), (False, "mean of a class (no centers)")):
        if any(one.trained == trained for one in maps):
            style = _center_style(trained, GREY, "s")
            handles += figure.axes[0].plot([], [], **style)
            labels.append(label)
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    # Before the names are placed, the axes must have the limits that they will be drawn with.
    figure.draw_without_rendering()
    for axes, one in zip(figure.axes, maps, strict=True):
        _name_centers(axes, one.centers, names)
    save(figure, path)


def draw_center_curves(
    path: StrPath,
    runs: Mapping[str, Mapping[str, Any]],
    ideal: float,
) -> None:
    """Draws how far the centers are apart over the steps of runs.

    Args:
      path: the picture to write.
      runs: {name: {"steps": [...], "mean_cosine": [...], "largest": (step, cosine)}}; the
        last is of the checkpoint, whose centers are known: of the two nearest ones.
      ideal: the least mean cosine that K centers can have, -1/(K-1).
    """
    figure = new_figure(7, 4.6, "Cosine between class centers")
    axes = figure.add_subplot()
    for index, (name, run) in enumerate(runs.items()):
        color, line = _COLORS[index % len(_COLORS)], _LINES[index % len(_LINES)]
        axes.plot(
            run["steps"],
            run["mean_cosine"],
            color=color,
            linestyle=line,
            label=f"{name}: mean of all pairs",
        )
        axes.plot(
            *map(np.atleast_1d, run["largest"]),
            color=color,
            linestyle="none",
            marker=_MARKERS[index % len(_MARKERS)],
            label=f"{name}: the two nearest, at the checkpoint",
        )
    axes.axhline(ideal, color=GREY, linewidth=1.2, linestyle=(0, (1, 1.5)))
    axes.annotate(
        f"ideal {ideal:.3f}: no mean is below",
        (0.99, ideal),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color=GREY,
    )
    axes.set(xlabel="step", ylabel="cosine of two centers", ylim=(ideal - 0.12, None))
    plain_axes(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def _center_style(trained: bool, color: str, marker: str) -> dict[str, Any]:
    """Filled and framed in black where the loss has centers; hollow where they are but means."""
    face, edge = (color, "black") if trained else ("white", color)
    style = {"markerfacecolor": face, "markeredgecolor": edge, "marker": marker}
    return {**style, "markersize": 9, "markeredgewidth": 1.6, "linestyle": "none", "zorder": 3}


def _draw_class(axes: Axes, one: EmbeddingMap, index: int, name: str) -> None:
    """Draws the examples of a class, its center, and its name beside the center."""
    places = one.places[one.labels == index]
    color = _COLORS[index % len(_COLORS)]
    # With more classes than colours, the colours come again with other shapes.
    marker = _MARKERS[(index + index // len(_COLORS)) % len(_MARKERS)]
    axes.plot(
        *places.T,
        color=color,
        marker=marker,
        markersize=5,
        markeredgewidth=0.4,
        markeredgecolor="white",
        linestyle="none",
        alpha=0.85,
        label=name,
    )
    axes.plot(*one.centers[index], **_center_style(one.trained, color, marker))


_ROW = 0.042
"""Height of a name, as a share of the axes."""


def _name_centers(axes: Axes, centers: np.ndarray, names: Sequence[str]) -> None:
    """Writes names above their centers, moved up where another one is written already."""
    to_axes = axes.transData + axes.transAxes.inverted()
    written: list[tuple[float, float]] = []
    for index in np.argsort(centers[:, 1]):
        if not np.isfinite(centers[index]).all():
            continue
        x, y = to_axes.transform(centers[index])
        at = y + 0.025
        # From the lowest one up, so that what is moved up never meets what was written before.
        for other_x, other_y in sorted(written, key=lambda place: place[1]):
            if abs(other_x - x) < 0.2 and abs(other_y - at) < _ROW:
                at = other_y + _ROW
        written.append((x, at))
        axes.annotate(
            textwrap.shorten(str(names[index]), 24, placeholder="..."),
            (centers[index, 0], centers[index, 1]),
            xytext=(x, at),
            textcoords="axes fraction",
            ha="center",
            fontsize=9,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
            arrowprops={"arrowstyle": "-", "linewidth": 0.6} if at > y + 0.03 else None,
        )
