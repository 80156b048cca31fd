"""The pictures of a report, as PNG files."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dmfer_jax.reporting.calibration_figures import draw_reliability
from dmfer_jax.reporting.console import whole_percent
from dmfer_jax.reporting.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    SKY,
    VERMILLION,
    StrPath,
    label_matrix,
    new_figure,
    percent_ticks,
    plain_axes,
    save,
    write_cell,
)
from dmfer_jax.reporting.report import titled_checkpoints


def draw_confusion(
    path: StrPath, confusion: Any, names: Sequence[str], title: str = "Confusion matrix"
) -> None:
    """Draws a confusion matrix; colour and percentage are the share of the true class.

    Args:
      path: the PNG to write.
      confusion: int [K, K], rows are true classes.
      names: K class names.
      title: above the matrix.
    """
    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = max(6.0, 2.2 + 0.68 * len(names))
    figure = new_figure(side, side, title)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            share = float(shares[row, column])
            text = f"{whole_percent(share)}\n{counts[row, column]:,}"
            write_cell(axes, row, column, text, dark=share > 0.55)
    label_matrix(axes, names, [f"\n{total:,}" for total in totals[:, 0]])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class and its images")
    save(figure, path)


def draw_center_cosines(
    path: StrPath,
    cosines: Any,
    names: Sequence[str],
    ideal: float | None = None,
    title: str = "Cosine between class centers",
) -> None:
    """Draws the pairwise cosines of the class centers.

    Args:
      path: the PNG to write.
      cosines: [K, K] numbers from -1 to 1; None where undefined.
      names: K class names.
      ideal: the least mean cosine that K centers can have, -1/(K-1).
      title: above the matrix.
    """
    values = np.array(cosines, dtype=float)  # None becomes NaN
    np.fill_diagonal(values, np.nan)  # a center with itself: 1, and the darkest of all
    pairs = values[~np.eye(len(values), dtype=bool)]
    side = max(6.0, 2.2 + 0.6 * len(names))
    figure = new_figure(side, side, title)
    axes = figure.add_subplot()
    axes.set_facecolor(PALE)
    axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    for row, column in np.ndindex(*values.shape):
        if np.isfinite(values[row, column]):
            dark = abs(float(values[row, column])) > 0.6
            write_cell(axes, row, column, f"{values[row, column]:.2f}", dark=dark)
    label_matrix(axes, names)
    note = f"mean of the pairs {pairs.mean():.3f}" if pairs.size else ""
    if ideal is not None:
        note += f"\nideal {ideal:.3f}"
    axes.set_xlabel(note)
    save(figure, path)


def draw_recall(
    path: StrPath,
    per_class: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, tuple[float, float] | None],
    title: str = "Recall of each class",
) -> None:
    """Draws the recall of each class with its interval, and their mean.

    Args:
      path: the picture to write.
      per_class: {name: {examples, recall}}, as in `metrics.summarize`.
      intervals: {name: (low, high)}, of `metrics.wilson_interval`.
      title: above it.
    """
    figure = new_figure(7, 1.6 + 0.42 * len(per_class), title)
    axes = figure.add_subplot()
    known = [row["recall"] for row in per_class.values() if row["recall"] is not None]
    for place, (name, row) in enumerate(per_class.items()):
        interval, recall = intervals[name], row["recall"]
        if interval is None or recall is None:
            axes.text(0.01, place, "no image", va="center", fontsize=9)
            continue
        axes.barh(place, recall, 0.68, color=SKY)
        middle, reach = sum(interval) / 2, (interval[1] - interval[0]) / 2
        style = {"ecolor": "black", "elinewidth": 1.4, "capsize": 4}
        axes.errorbar(middle, place, xerr=reach, fmt="none", **style)
        text = f"{100 * recall:.1f} %  of {row['examples']:,}"
        axes.text(1.02, place, text, va="center", fontsize=9)
    if known:
        mean = sum(known) / len(known)
        label = f"mean-class accuracy {100 * mean:.1f} %"
        axes.axvline(mean, color=VERMILLION, linestyle="--", label=label)
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    axes.set_yticks(range(len(per_class)), [textwrap.fill(name, 24) for name in per_class])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.27), xlabel="recall and its 95 % interval (Wilson)")
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(percent_ticks())
    plain_axes(axes, grid="x")
    axes.spines["bottom"].set_bounds(0, 1)
    axes.tick_params(axis="y", length=0)
    save(figure, path)


def draw_training_curves(path: StrPath, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws loss, accuracy and learning rate over the steps of a run.

    Args:
      path: the PNG to write.
      rows: of metrics.jsonl, as `writers.read_jsonl` returns them: `kind` "train" (cross_entropy,
        accuracy, learning_rate) and "eval" (split, loss, accuracy).
    """
    train = [row for row in rows if row.get("kind") == "train"]
    evaluations: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        # A test split is looked at once, at the end: a point, not a curve.
        if row.get("kind") == "eval" and not row["split"].startswith("test"):
            evaluations.setdefault(row["split"], []).append(row)
    figure = new_figure(7, 8, "Training")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.4])
    # The training loss also holds the center loss; only the cross-entropies can be compared.
    for axes, trained, key in ((loss, "cross_entropy", "loss"), (accuracy, "accuracy", "accuracy")):
        _draw_train_curve(axes, train, trained)
        for (split, found), color in zip(evaluations.items(), (BLUE, GREEN, ORANGE), strict=False):
            axes.plot(*_points(found, key), color=color, marker="o", markersize=3.5, label=split)
    loss.set_ylabel("cross-entropy")
    accuracy.set_ylabel("accuracy")
    accuracy.yaxis.set_major_formatter(percent_ticks())
    if loss.get_legend_handles_labels()[0]:
        loss.legend(frameon=False)
    rate.plot(*_points(train, "learning_rate"), color=GREY)
    rate.set(ylabel="learning rate", xlabel="step", ylim=(0, None))
    for axes in (loss, accuracy, rate):
        plain_axes(axes)
    figure.align_ylabels()
    save(figure, path)


def draw_split_accuracy(
    path: StrPath, splits: Mapping[str, Mapping[str, Any]], title: str = "Accuracy by split"
) -> None:
    """Draws accuracy and mean-class accuracy of each split as bars.

    Args:
      path: the PNG to write.
      splits: {split: summary}, as in a report.
      title: above the bars.
    """
    figure = new_figure(7, 1.2 + 0.75 * len(splits), title)
    axes = figure.add_subplot()
    kinds = (("accuracy", "accuracy", BLUE), ("mean_class_accuracy", "mean-class accuracy", ORANGE))
    for offset, (key, label, color) in zip((-0.19, 0.19), kinds, strict=True):
        values = [summary[key] for summary in splits.values()]
        positions = np.arange(len(splits)) + offset
        bars = axes.barh(
            positions, [value or 0 for value in values], 0.36, color=color, label=label
        )
        texts = ["-" if value is None else f"{100 * value:.1f} %" for value in values]
        axes.bar_label(bars, texts, padding=4, fontsize=9)
    labels = [f"{name}\n{summary['examples']:,} images" for name, summary in splits.items()]
    axes.set_yticks(range(len(splits)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.09)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(percent_ticks())
    plain_axes(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def draw_report_figures(
    folder: StrPath, report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()
) -> list[Path]:
    """Draws every picture that a report has the numbers for; no picture shows an image.

    Args:
      folder: where to; made when missing.
      report: as described in `reporting.report`.
      rows: the run's log, for the training curves; empty for an evaluation.

    Returns:
      The paths: per checkpoint `NAME_split_accuracy.png`, `NAME_center_cosines.png`, and per split
      `NAME_SPLIT_confusion.png` and `NAME_SPLIT_reliability.png`; `training.png` with rows.
    """
    folder = Path(folder)
    paths: list[Path] = []

    def at(name: str) -> Path:
        paths.append(folder / f"{name}.png")
        return paths[-1]

    for name, (title, checkpoint) in titled_checkpoints(report).items():
        splits = checkpoint["splits"]
        if not splits:
            continue
        labels = next(iter(splits.values()))["labels"]
        draw_split_accuracy(at(f"{name}_split_accuracy"), splits, title)
        for split, found in splits.items():
            heading = f"{split}\n{title}"
            draw_confusion(at(f"{name}_{split}_confusion"), found["confusion"], labels, heading)
            draw_reliability(
                at(f"{name}_{split}_reliability"),
                found["reliability"],
                ece=found["ece"],
                title=heading,
            )
        if centers := checkpoint.get("centers"):
            draw_center_cosines(
                at(f"{name}_center_cosines"),
                centers["cosines"],
                labels,
                centers["ideal_cosine"],
                f"Cosine between class centers\n{title}",
            )
    if rows:
        draw_training_curves(at("training"), rows)
    return paths


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    found = [row for row in rows if row.get(key) is not None]
    return [row["step"] for row in found], [row[key] for row in found]


def _draw_train_curve(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Draws single batches pale and their running mean strong: batches scatter widely."""
    steps, values = _points(rows, key)
    axes.plot(steps, values, color=GREY, alpha=0.3, linewidth=0.8)
    width = max(1, len(values) // 30)
    if values:
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color=GREY, label="train (mean of batches)")
