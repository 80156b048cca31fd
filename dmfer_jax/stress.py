"""How a network bears controlled harm: eleven kinds of corruption at five levels, and one mean.

Any split can be harmed, so this works where nobody has listed the occluded and turned faces of a
dataset. It stands beside such lists and does not replace them: a grey block is not a hand.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from rich import progress
from rich.console import Console

from dmfer_jax.data.corruptions import CORRUPTIONS, LEVELS, SMALLEST, CorruptedImages
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.console import percent

ACCURACIES = ("accuracy", "mean_class_accuracy")


def score_stress(
    score: Callable[[Split], Mapping[str, Any]], split: Split, console: Console | None = None
) -> dict[str, Any]:
    """Scores a split as it is, and under every kind of harm at every level.

    The splits given to `score` differ in their images' pixels alone: one compiled evaluation step
    serves them all.

    Args:
      score: returns a split's `accuracy` and `mean_class_accuracy`, 0 to 1.
      split: of face crops.
      console: where to say how far it is; standard output unless told.

    Returns:
      `examples`; `clean`, the two accuracies of the split as it is; `kinds`, {kind: {parameter,
      unit, values, accuracy, mean_class_accuracy}}, the last three lists of five, mildest first;
      `mean_accuracy` and `mean_class_accuracy`, means over all kinds and levels; `relative`, the
      mean accuracy as a share of the clean one (None where that is 0).

    Raises:
      UserError: the images are too small for the levels to be what they say.
    """
    side = min(split.images[:1].shape[1:3])
    if side < SMALLEST:
        raise UserError(
            f"images of {side} pixels cannot be scored under harm: its levels need {SMALLEST} "
            "pixels, height and width, at least"
        )
    console = console or Console(highlight=False)
    with _bar(console) as bar:
        task = bar.add_task(f"stress on {split.name}", total=1 + LEVELS * len(CORRUPTIONS))

        def scored(images: Any) -> dict[str, float]:
            summary = score(replace(split, images=images, groups={}))
            bar.advance(task)
            return {key: summary[key] for key in ACCURACIES}

        clean = scored(split.images)
        kinds = {}
        for kind, corruption in CORRUPTIONS.items():
            bar.update(task, description=f"stress on {split.name}: {kind}")
            found = [
                scored(CorruptedImages(split.images, split.rows, kind, level))
                for level in range(1, LEVELS + 1)
            ]
            kinds[kind] = {
                "parameter": corruption.parameter,
                "unit": corruption.unit,
                "values": list(corruption.values),
                **{key: [one[key] for one in found] for key in ACCURACIES},
            }
            if bar.disable:
                shown = " ".join(percent(one["accuracy"], 1) for one in found)
                console.print(f"stress on {split.name}: {kind} {shown}", markup=False)
    means = {key: float(np.mean([kind[key] for kind in kinds.values()])) for key in ACCURACIES}
    return {
        "examples": len(split),
        "clean": clean,
        "kinds": kinds,
        "mean_accuracy": means["accuracy"],
        "mean_class_accuracy": means["mean_class_accuracy"],
        "relative": means["accuracy"] / clean["accuracy"] if clean["accuracy"] else None,
    }


def _bar(console: Console) -> progress.Progress:
    """A bar with the time left on a terminal; elsewhere nothing, and a line is printed per kind."""
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
