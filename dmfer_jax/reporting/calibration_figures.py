"""Pictures of confidence: how often predictions of each confidence are right."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from dmfer_jax.reporting.drawing import (
    BLUE,
    GREY,
    StrPath,
    new_figure,
    percent_ticks,
    plain_axes,
    save,
)


class Panel(NamedTuple):
    """One diagram of several.

    Attributes:
      title: above it.
      reliability: bins of equal width, as in `metrics.summarize`.
      ece: the calibration error, written into the picture, if known.
    """

    title: str
    reliability: Sequence[Mapping[str, Any]]
    ece: float | None


def draw_reliability(
    path: StrPath,
    reliability: Sequence[Mapping[str, Any]],
    *,
    ece: float | None = None,
    title: str = "Calibration",
) -> None:
    """Draws how often predictions of each confidence are right, above how many there are.

    Args:
      path: the picture to write.
      reliability: as in `Panel`.
      ece: as in `Panel`.
      title: above it.
    """
    draw_reliabilities(path, [Panel("", reliability, ece)], title)


def draw_reliabilities(path: StrPath, panels: Sequence[Panel], title: str = "Calibration") -> None:
    """Draws reliability diagrams side by side.

    Args:
      path: the picture to write.
      panels: from left to right.
      title: above all of them.
    """
    figure = new_figure(1 + 5 * len(panels), 6, title)
    grid = figure.subplots(
        2, len(panels), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False
    )
    for place, (panel, upper, lower) in enumerate(zip(panels, *grid, strict=True)):
        _draw_panel(upper, lower, panel)
        if place == 0:
            upper.set_ylabel("share that is right")
            upper.legend(loc="upper left", frameon=False)
            lower.set_ylabel("share of images")
    save(figure, path)


def _draw_panel(upper: Axes, lower: Axes, panel: Panel) -> None:
    bins = len(panel.reliability)
    middles = (np.arange(bins) + 0.5) / bins
    counts = np.array([row["count"] for row in panel.reliability])
    filled = [(m, row) for m, row in zip(middles, panel.reliability, strict=True) if row["count"]]
    upper.set_title(panel.title, loc="left", fontsize=10)
    upper.bar(
        [middle for middle, _ in filled],
        [row["accuracy"] for _, row in filled],
        width=0.9 / bins,
        color=BLUE,
        label="predictions of this confidence",
    )
    # Black on white, so that it is seen on bars and between them, in grey too.
    upper.plot([0, 1], [0, 1], color="white", linewidth=4)
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", label="confidence as it should be")
    upper.set(xlim=(0, 1), ylim=(0, 1))
    if panel.ece is not None:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9}
        note = f"calibration error {100 * panel.ece:.1f} %"
        upper.text(0.97, 0.05, note, ha="right", transform=upper.transAxes, bbox=box)
    lower.bar(middles, counts / max(counts.sum(), 1), width=0.9 / bins, color=GREY)
    lower.set(xlabel="confidence")
    for axes in (upper, lower):
        plain_axes(axes)
        axes.yaxis.set_major_formatter(percent_ticks())
    lower.xaxis.set_major_formatter(percent_ticks())
