"""How every picture is drawn: its colours, its frame, and the file it becomes.

Drawn through matplotlib's objects and never through pyplot, so that nothing global changes and no
screen is needed. Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import os
import textwrap
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dmfer_jax import files

DPI = 150
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE = "#56B4E9", "#CC79A7"
GREY, PALE = "#555555", "#DDDDDD"

FORMATS = (".png", ".pdf", ".svg")
"""What a picture can be written as: pixels for a screen, or lines for a page in print."""

StrPath = str | os.PathLike[str]


def new_figure(width: float, height: float, title: str) -> Figure:
    """Returns a figure of a size in inches that holds its title only."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    # Not a title of axes: long names beside them would push it out of the picture.
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def save(figure: Figure, path: StrPath) -> None:
    """Writes a figure as what the path ends in says; the file is whole or not there.

    Args:
      figure: of `new_figure`.
      path: ends in one of `FORMATS`.
    """
    files.write_atomically(path, lambda part: figure.savefig(part, dpi=DPI))


def percent_ticks() -> PercentFormatter:
    """Returns what writes shares from 0 to 1 as percent beside an axis."""
    return PercentFormatter(xmax=1, decimals=0, symbol=" %")


def plain_axes(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Leaves away what carries no number: the box, and all but a pale grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)


def label_matrix(axes: Axes, names: Sequence[str], below: Sequence[str] = ()) -> None:
    """Writes the class names beside rows and columns, and something below those of the rows."""
    wrapped = [textwrap.fill(name, 24) for name in names]
    axes.set_xticks(range(len(names)), wrapped, rotation=40, ha="right", rotation_mode="anchor")
    rows = [name + more for name, more in zip(wrapped, below, strict=True)] if below else wrapped
    axes.set_yticks(range(len(names)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def write_cell(axes: Axes, row: int, column: int, text: str, *, dark: bool) -> None:
    """Writes a matrix's number into its cell, white where the cell is dark."""
    color = "white" if dark else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
