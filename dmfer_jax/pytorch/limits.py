"""What the side in PyTorch cannot do. Needs no torch, so that it is told before anything starts."""

from typing import Any

from ml_collections import ConfigDict

from dmfer_jax.errors import UserError


def check_type(config: ConfigDict) -> None:
    """Refuses another type than float32.

    Raises:
      UserError: naming the field and what to set.
    """
    given: Any = config
    if given.model.dtype != "float32":
        raise UserError(
            f"config.model.dtype is {given.model.dtype!r}; the network in PyTorch is float32 "
            "throughout: set config.model.dtype=float32"
        )


def check_training(config: ConfigDict) -> None:
    """Refuses what training in PyTorch has not.

    Raises:
      UserError: naming the field and what to set.
    """
    given: Any = config
    for field, plain in _PLAIN.items():
        section, name = field.split(".")
        if given[section][name] != plain:
            raise UserError(
                f"config.{field} is {given[section][name]}; training in PyTorch is without it: "
                f"set config.{field}={plain}"
            )


_PLAIN: dict[str, Any] = {
    "train.nonfinite": "stop",
}
"""Field -> the one value that it can have."""
