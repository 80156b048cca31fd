"""The picture of an ablation: how each variant differs from the baseline, with its interval."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from dmfer_jax.reporting import drawing
from dmfer_jax.reporting.ablation_table import Findings
from dmfer_jax.reporting.bootstrap import CONFIDENCE
from dmfer_jax.reporting.cells import mean_cell
from dmfer_jax.reporting.differences import Difference
from dmfer_jax.reporting.rows import numbers


def draw_findings(folder: Path, findings: Findings) -> list[Path]:
    """Draws `ablation.png` and `ablation.pdf`: a panel for each split, a line for each variant.

    It is told by shape alone, so that it can be printed in grey: a dot is filled where its interval
    leaves out 0, and a square where there is one seed.

    Args:
      folder: where to.
      findings: of `ablation_table.find`.

    Returns:
      The paths; none where nothing can be compared yet.
    """
    differences = [one for one in findings.differences if one.against == findings.baseline]
    if not differences:
        return []
    names = list(dict.fromkeys(one.variant for one in differences))
    splits = findings.splits
    width = max(6.5, 2.6 + 2.6 * len(splits))
    figure = drawing.new_figure(width, 1.9 + 0.42 * len(names), f"{findings.experiment}: accuracy")
    panels = figure.subplots(1, len(splits), sharex=True, sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        found = [one for one in differences if one.split == split]
        _draw_split(axes, names, found)
        axes.set_title(f"{split}\n{_describe_baseline(findings, split)}", loc="left", fontsize=9)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    single = any(len(one.seeds) == 1 for one in differences)
    figure.supxlabel(
        f"minus {findings.baseline}, in points, with {100 * CONFIDENCE:g} % intervals over images "
        f"and seeds\nfilled: 0 is outside the interval{'; square: one seed' * single}",
        fontsize=9,
    )
    paths = [folder / f"ablation.{kind}" for kind in ("png", "pdf")]
    for path in paths:
        drawing.save(figure, path)
    return paths


def _draw_split(axes: Axes, names: Sequence[str], found: Sequence[Difference]) -> None:
    axes.axvline(0, color="black", linewidth=1)
    for one in found:
        value, low, high = (100 * end for end in one.intervals["accuracy"])
        at = names.index(one.variant)
        axes.plot([low, high], [at, at], color=drawing.GREY, linewidth=1.6, zorder=2)
        fill = "black" if one.intervals["accuracy"].excludes_zero else "white"
        style = {"markeredgecolor": "black", "markerfacecolor": fill, "markersize": 6.5}
        axes.plot([value], [at], marker="s" if len(one.seeds) == 1 else "o", zorder=3, **style)
    drawing.plain_axes(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=9)
    axes.margins(x=0.12)


def _describe_baseline(findings: Findings, split: str) -> str:
    """What the baseline scores, which the differences are added to."""
    rows = [
        row
        for row in findings.rows
        if (row["variant"], row["split"], row["epoch_rule"]) == (findings.baseline, split, "last")
    ]
    scores = [100 * value for value in numbers(rows, "accuracy")]
    return f"{findings.baseline} {mean_cell(scores, between=' ± ')} %"
