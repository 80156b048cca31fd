"""What a stress test found, as a table and as curves; `dmfer_jax.stress` says what its numbers are.

A report holds it as `stress` beside a checkpoint's `splits`: {split: result of `score_stress`}.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Console

from dmfer_jax.reporting import drawing
from dmfer_jax.reporting.console import percent, print_table
from dmfer_jax.reporting.report import titled_checkpoints


def print_stress(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the accuracy of every kind and level, in tables that fit 80 columns.

    Args:
      report: of an evaluation; nothing is printed where no split was put to stress.
      console: where to; standard output unless told.
    """
    console = console or Console(highlight=False)
    for title, split, found in _results(report):
        rows = [
            [kind, *map(_tenths, [*row["accuracy"], np.mean(row["accuracy"])]), _levels(row)]
            for kind, row in found["kinds"].items()
        ]
        means = [*_mean_of_kinds(found, "accuracy"), found["mean_accuracy"]]
        header = ["kind", *"12345", "mean", "levels 1 to 5"]
        print_table(
            console,
            f"Stress on {split}: {title}",
            header,
            [*rows, ["mean", *map(_tenths, means), ""]],
        )
        console.print(_sentence(found), markup=False)
        console.print("accuracy in percent; the image is taken to be the face", markup=False)


def draw_stress_figures(folder: drawing.StrPath, report: Mapping[str, Any]) -> list[Path]:
    """Draws `NAME_SPLIT_stress.png` for each checkpoint and each of its splits put to stress.

    Args:
      folder: where to; made when missing.
      report: of an evaluation.

    Returns:
      The paths.
    """
    paths = []
    for name, (title, checkpoint) in titled_checkpoints(report).items():
        for split, found in checkpoint.get("stress", {}).items():
            paths.append(Path(folder) / f"{name}_{split}_stress.png")
            draw_stress_curves(paths[-1], found, f"Stress on {split}\n{title}")
    return paths


def draw_stress_curves(path: drawing.StrPath, found: Mapping[str, Any], title: str) -> None:
    """Draws accuracy over the level, one small picture per kind and one of their mean.

    Args:
      path: the PNG to write.
      found: what `stress.score_stress` returned.
      title: above the pictures.
    """
    columns = 4
    rows = -(-(len(found["kinds"]) + 1) // columns)
    figure = drawing.new_figure(10, 0.9 + 2.1 * rows, f"{title}\n{_sentence(found)}")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    everything = list(grid.flat)
    for axes, (kind, row) in zip(everything, found["kinds"].items(), strict=False):
        axes.set_title(kind.replace("_", " "), loc="left", fontsize=10)
        axes.set_xlabel(f"{row['parameter']}, {row['unit']}", fontsize=8)
        _draw_curves(axes, found, row, [f"{value:g}" for value in row["values"]])
    for axes in everything[len(found["kinds"]) :]:
        axes.axis("off")
    mean = everything[len(found["kinds"])]
    mean.axis("on")
    mean.set_title("mean of all kinds", loc="left", fontsize=10, fontweight="bold")
    mean.set_xlabel("level", fontsize=8)
    _draw_curves(mean, found, {key: _mean_of_kinds(found, key) for key in _LINES}, list("12345"))
    figure.legend(
        *mean.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    drawing.save(figure, path)


# Accuracy lies thin upon thick: with classes of equal size the two are equal, and both are seen.
_LINES = {
    "mean_class_accuracy": ("mean-class accuracy", drawing.ORANGE, "s", 2.2),
    "accuracy": ("accuracy", drawing.BLUE, "o", 0.9),
}


def _draw_curves(
    axes: Axes, found: Mapping[str, Any], row: Mapping[str, Any], ticks: Sequence[str]
) -> None:
    """Draws both accuracies over the five levels, from left (mild) to right (severe)."""
    levels = range(len(ticks))
    clean = found["clean"]["accuracy"]
    axes.axhline(clean, color=drawing.GREY, linestyle="--", linewidth=1, label="accuracy unharmed")
    for key, (label, color, marker, width) in _LINES.items():
        style = {"color": color, "linewidth": width, "marker": marker, "markersize": 3.0 + width}
        axes.plot(levels, row[key], label=label, **style)
    axes.set_xticks(levels, ticks)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(drawing.percent_ticks())
    axes.tick_params(labelsize=8)
    drawing.plain_axes(axes)


def _results(report: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [
        (title, split, found)
        for title, checkpoint in titled_checkpoints(report).values()
        for split, found in checkpoint.get("stress", {}).items()
    ]


def _mean_of_kinds(found: Mapping[str, Any], key: str) -> list[float]:
    """The mean at each level."""
    return np.mean([row[key] for row in found["kinds"].values()], axis=0).tolist()


def _sentence(found: Mapping[str, Any]) -> str:
    relative = "" if found["relative"] is None else f" ({percent(found['relative'], 1)} of it)"
    return (
        f"accuracy unharmed {percent(found['clean']['accuracy'])}, "
        f"mean over kinds and levels {percent(found['mean_accuracy'])}{relative}"
    )


def _levels(row: Mapping[str, Any]) -> str:
    return f"{row['values'][0]:g} to {row['values'][-1]:g} {row['unit']}"


def _tenths(value: float) -> str:
    return f"{100 * value:.1f}"
