"""What the choice of a loss means: what it takes, whether it has centers, parts of the network.

Imports no JAX, so that the config and the network in PyTorch can ask, too.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

_ON_CENTERS = ("embedding", "centers")
_OF_HEAD = ("scale", "margin", "label_smoothing")

_TAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "center_cosine": (_ON_CENTERS, ("scale", "margin")),
    "center_cosine_island": (_ON_CENTERS, ("margin", "beta")),
    "center_cosine_triplet": (_ON_CENTERS, ("margin",)),
    "center": (_ON_CENTERS, ()),
    "island": (_ON_CENTERS, ("beta",)),
    "affinity": (_ON_CENTERS, ()),
    "attentive_center": ((*_ON_CENTERS, "attention"), ()),
    "cosface": (("logits",), _OF_HEAD),
    "arcface": (("logits",), _OF_HEAD),
}

NAMES: tuple[str, ...] = ("none", *_TAKES)
"""All that `config.loss.name` can be."""

MARGIN_HEADS: tuple[str, ...] = ("cosface", "arcface")
"""Names of losses that stand in place of the cross-entropy, on the logits of a cosine head."""

EUCLIDEAN_LOSSES: tuple[str, ...] = ("center", "island", "affinity", "attentive_center")
"""Losses that measure distance, so their centers keep a length."""


class Loss(NamedTuple):
    """A loss by its name.

    Attributes:
      function: takes `inputs`, then the targets, then `fields` by name.
      inputs: fields of the network's `Outputs`; "centers" may be those of the training state.
      fields: of `config.loss`.
    """

    function: Callable[..., Any]
    inputs: tuple[str, ...]
    fields: tuple[str, ...]


def losses_of(module: Mapping[str, Any]) -> dict[str, Loss]:
    """Returns the losses of a module by what `config.loss.name` calls them.

    Args:
      module: its `globals()`; each function has the name of its loss.
    """
    return {name: Loss(module[name], *takes) for name, takes in _TAKES.items()}


def has_centers(loss: ConfigDict) -> bool:
    """Whether a loss (`config.loss`) is on class centers, beside the cross-entropy."""
    return loss.name not in ("none", *MARGIN_HEADS)


def has_unit_centers(loss: ConfigDict) -> bool:
    """Whether a loss (`config.loss`) that has centers minds their directions alone."""
    return has_centers(loss) and loss.name not in EUCLIDEAN_LOSSES


def idle_fields(loss: ConfigDict) -> set[str]:
    """Returns the fields of a loss (`config.loss`) that make no difference with its name."""
    _, taken = _TAKES.get(loss.name, ((), ()))
    idle = {"scale", "margin", "beta"} - {*taken}
    if not has_centers(loss):
        idle.update(("weight", "center_labels"))
    if not has_centers(loss) or loss.centers == "learned":
        idle.add("center_rate")
    return idle


def network_options(config: ConfigDict) -> dict[str, Any]:
    """Returns all options of the network: those of `config.model`, and what its loss needs of it.

    Returns:
      Attributes of `models.dmfer.Dmfer`; of `dtype` the name.
    """
    loss: Any = config.loss
    return {
        **config.model.to_dict(),
        "learned_centers": loss.centers == "learned",
        "attentive": loss.name == "attentive_center",
        "cosine_scale": loss.scale if loss.name in MARGIN_HEADS else None,
    }
