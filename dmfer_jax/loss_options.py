"""What the choice of a loss means for the rest: whether it has centers, and parts of the network.

Imports no JAX, so that the config and the network in PyTorch can ask, too.
"""

from typing import Any

from ml_collections import ConfigDict

MARGIN_HEADS: tuple[str, ...] = ("cosface", "arcface")
"""Names of losses that stand in place of the cross-entropy, on the logits of a cosine head."""


def has_centers(loss: ConfigDict) -> bool:
    """Whether a loss (`config.loss`) is on class centers, beside the cross-entropy."""
    return loss.name not in ("none", *MARGIN_HEADS)


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
