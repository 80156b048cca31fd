"""The figures of scores: calibration, recall, confusion, and the curves of training."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from dmfer_jax import calibration, metrics, run_folder
from dmfer_jax.data.sources import Split
from dmfer_jax.explaining.subject import (
    Asked,
    find_main_split,
    find_scores,
    open_run,
    read_log,
    the_one_run,
)
from dmfer_jax.reporting import calibration_figures, figures


def draw_reliability(asked: Asked) -> dict[str, Any]:
    """Draws confidence against accuracy, as it is and with a temperature fitted on validation.

    Returns:
      The temperature, on what it was fitted, and calibration error and loss without and with it.
    """
    workdir = the_one_run(asked)
    data: Any = run_folder.load_config(workdir).data
    name = asked.split or find_main_split(workdir, asked)
    fits = data.valid_split not in data.train_splits
    wanted = dict.fromkeys([name, data.valid_split] if fits else [name])
    subject = open_run(workdir, asked, list(wanted))
    split, fitted_on = subject.splits[0], subject.splits[-1]
    logits = _log_probabilities(subject.predict(split).probabilities)
    summary = _summarize(logits, split, 1.0)
    panels = [calibration_figures.Panel("as it is", summary["reliability"], summary["ece"])]
    numbers = {"split": split.name, "ece": summary["ece"], "loss": summary["loss"]}
    if fits:
        held_out = logits
        if fitted_on is not split:
            held_out = _log_probabilities(subject.predict(fitted_on).probabilities)
        temperature = calibration.fit_temperature(held_out, fitted_on.labels)
        scaled = _summarize(logits, split, temperature)
        text = f"logits divided by {temperature:.3g}, fitted on {fitted_on.name}"
        text += " itself" * (fitted_on is split)
        panels.append(calibration_figures.Panel(text, scaled["reliability"], scaled["ece"]))
        numbers |= {"temperature": temperature, "fitted_on": fitted_on.name}
        numbers |= {"scaled_ece": scaled["ece"], "scaled_loss": scaled["loss"]}
    title = f"Calibration, {len(split):,} images of {split.name}\n{subject.title}"
    calibration_figures.draw_reliabilities(asked.out, panels, title)
    return numbers


def draw_recall(asked: Asked) -> dict[str, Any]:
    """Draws the recall of each class with its interval; of scores that were written down.

    Returns:
      For each class recall, interval and number of images.
    """
    title, summary = find_scores(the_one_run(asked), asked.checkpoint, asked.split)
    per_class = summary["per_class"]
    intervals = {
        name: metrics.wilson_interval(row[index], sum(row))
        for index, (name, row) in enumerate(zip(per_class, summary["confusion"], strict=True))
    }
    figures.draw_recall(asked.out, per_class, intervals, f"Recall of each class, {title}")
    return {
        name: {"examples": row["examples"], "recall": row["recall"], "interval": intervals[name]}
        for name, row in per_class.items()
    }


def draw_confusion(asked: Asked) -> dict[str, Any]:
    """Draws a confusion matrix; of scores that were written down.

    Returns:
      Labels and matrix.
    """
    title, summary = find_scores(the_one_run(asked), asked.checkpoint, asked.split)
    labels, confusion = summary["labels"], summary["confusion"]
    figures.draw_confusion(asked.out, confusion, labels, f"Confusion matrix, {title}")
    return {"labels": labels, "confusion": confusion}


def draw_curves(asked: Asked) -> dict[str, Any]:
    """Draws loss, accuracy and learning rate over the steps of a run.

    Returns:
      How many lines of its log are of training steps and of evaluations.
    """
    workdir = the_one_run(asked)
    rows = read_log(workdir)
    figures.draw_training_curves(asked.out, rows)
    kinds = [row.get("kind") for row in rows]
    return {kind: kinds.count(kind) for kind in ("train", "eval")}


def _log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logits, up to a constant; what float32 rounds to 0 becomes the least that it can hold."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny).astype(np.float64))


def _summarize(logits: np.ndarray, split: Split, temperature: float) -> dict[str, Any]:
    probabilities = calibration.scale_probabilities(logits, temperature)
    # Of the logits: the logarithm of a probability that rounds to 0 is none.
    scaled = logits / temperature
    losses = np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(split)), split.labels]
    counted = metrics.from_batch(
        jnp.asarray(probabilities, jnp.float32),
        jnp.asarray(split.labels),
        jnp.asarray(losses, jnp.float32),
        jnp.ones(len(split)),
    )
    return metrics.summarize(counted, split.class_names)
