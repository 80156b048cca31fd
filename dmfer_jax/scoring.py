"""Scores of a network: on splits, and on the groups of people that a split tells apart."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from dmfer_jax import metrics, sharding, steps
from dmfer_jax.feeding import Feed
from dmfer_jax.reporting.predictions import Predictions


class Trained(Protocol):
    """What is scored: a `state.TrainState`, or what stands for one of another library."""

    @property
    def step(self) -> Any:
        """Steps done, a whole number."""
        ...

    @property
    def params(self) -> Any:
        """A tree of arrays, the numbers that the network learns."""
        ...

    def eval_variables(self) -> dict[str, Any]:
        """What the evaluation step takes."""
        ...

    def class_centers(self) -> Any:
        """The class centers `[K, C]`; None without any."""
        ...


def score(
    eval_step: steps.EvalStep,
    variables: dict[str, Any],
    feed: Feed,
    batch_size: int,
    said: dict[str, Predictions] | None = None,
) -> dict[str, Any]:
    """Scores every example of a split once.

    Args:
      eval_step: of `steps.make_eval_step`.
      variables: of the network, as `TrainState.eval_variables` gives them.
      feed: of the split to score.
      batch_size: over all devices and hosts together.
      said: gets the predictions, under the name of the split; they are not kept if not given.

    Returns:
      `metrics.summarize`'s dict, with the key `deduplicated` where the split has images whose
      pixels stand in an earlier row of the source too, and `groups` (of `accuracy_by_group`) where
      it says of what group an image is.
    """
    split = feed.split
    names = split.class_names
    keeps = said is not None or bool(split.groups)
    kept: list[jax.Array] = []
    with jax.transfer_guard("allow"):  # of its constants, once
        totals: Any = jax.device_put(steps.empty_totals(len(names)), sharding.replicated(feed.mesh))
    for batch in feed.eval_batches(batch_size):
        totals, probabilities = eval_step(variables, batch, totals)
        if keeps:
            kept.append(probabilities)
    totals = jax.device_get(totals)
    summary = metrics.summarize(totals["all"], names)
    if split.repeated.any():
        summary["deduplicated"] = metrics.summarize(totals["first"], names)
    if keeps:
        # The last batch ends in padding.
        fetched = np.concatenate([sharding.fetch(one) for one in kept])[: len(split)]
        if groups := accuracy_by_group(fetched.argmax(-1), split.labels, split.groups):
            summary["groups"] = groups
        if said is not None:
            said[split.name] = Predictions(split.identifiers, split.labels, fetched)
    return summary


def accuracy_by_group(
    predicted: np.ndarray, labels: np.ndarray, groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Counts the correct predictions of each group of images.

    Args:
      predicted: int `[n]`, positions of classes.
      labels: int `[n]`, the true ones.
      groups: {attribute: str `[n]`}, such as {"gender": ["female", ...]}.

    Returns:
      {attribute: {value: {`examples`, `accuracy`, `mean_class_accuracy`}}}, the mean being over the
      classes that the group has. Ages come in the order of their numbers, "unknown" comes last. An
      attribute that is unknown of every image is left away.
    """
    report: dict[str, dict[str, dict[str, Any]]] = {}
    for attribute, values in groups.items():
        if np.all(values == "unknown"):
            continue
        report[attribute] = {}
        for value in sorted(set(values.tolist()), key=_by_number_and_name):
            true = labels[values == value]
            right = predicted[values == value] == true
            recalls = [right[true == label].mean() for label in np.unique(true)]
            report[attribute][value] = {
                "examples": len(true),
                "accuracy": float(right.mean()),
                "mean_class_accuracy": float(np.mean(recalls)),
            }
    return report


def score_checkpoint(
    eval_step: steps.EvalStep,
    train_state: Trained,
    feeds: Iterable[Feed],
    config: ConfigDict,
    epoch: float,
    said: dict[str, Predictions] | None = None,
) -> dict[str, Any]:
    """Scores a checkpoint on splits.

    Args:
      eval_step: of `steps.make_eval_step`.
      train_state: of the checkpoint.
      feeds: of the splits to score.
      config: of the run.
      epoch: epochs trained.
      said: gets the predictions of each split, as in `score`.

    Returns:
      A report's entry for the checkpoint: `epoch`, `step`, `chosen_on`, `parameters` (numbers that
      the network learns), `splits` (of `score`) and `centers` (of `metrics.center_report`; None
      where there are none).
    """
    variables, centers = train_state.eval_variables(), train_state.class_centers()
    return {
        "epoch": epoch,
        "step": int(train_state.step),
        "chosen_on": config.data.valid_split,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(train_state.params)),
        "splits": {
            feed.split.name: score(eval_step, variables, feed, config.train.eval_batch_size, said)
            for feed in feeds
        },
        "centers": None if centers is None else metrics.center_report(np.asarray(centers)),
    }


def _by_number_and_name(value: str) -> tuple[bool, int, str]:
    number = re.match(r"\d+", value)
    return value == "unknown", int(number[0]) if number else -1, value
