"""Folds every BatchNorm into the convolution before it, for predicting.

A trained BatchNorm multiplies each channel by a number and adds another. The convolution can do
both at no cost: one pass over the features less for each layer, and fewer weights to carry along.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.resnet import BatchNorm

_EPSILON: float = BatchNorm.keywords["epsilon"]


def fold_batch_norm(model: Dmfer, variables: Mapping[str, Any]) -> tuple[Dmfer, dict[str, Any]]:
    """Returns the same function as another network, one without BatchNorm.

    BatchNorm gives scale * (x - mean) / sqrt(var + epsilon) + bias, of running statistics. So with
    g = scale / sqrt(var + epsilon) the kernel becomes g * kernel and the convolution's bias
    bias - g * mean, computed in float64.

    Args:
      model: a network that is not folded yet.
      variables: its {"params", "batch_stats"}.

    Returns:
      The network with `folded=True`, and its variables {"params"}: NumPy arrays, of the types they
      had. It computes the same outputs to rounding, and cannot be trained.

    Raises:
      UserError: the network is folded already, or the variables are not those of such a network.
    """
    if model.folded:
        raise UserError("the network is folded already; give the one that was trained")
    if missing := {"params", "batch_stats"} - set(variables):
        raise UserError(
            f"the variables have {_listed(variables)} and lack {_listed(missing)}; expected "
            '"params" and "batch_stats", as training leaves them'
        )
    params = _fold(variables["params"], variables["batch_stats"], ())
    return model.clone(folded=True), {"params": params}


def _fold(params: Any, stats: Any, path: tuple[str, ...]) -> Any:
    """Folds what lies below a path; `stats` has a part of the tree of `params`."""
    if not isinstance(params, Mapping):
        return np.asarray(params)
    if "norm" in params:
        place = "/".join(path)
        for wanted, found in (("mean", stats), ("var", stats)):
            if wanted not in found.get("norm", {}):
                raise UserError(
                    f"batch_stats lack {place}/norm/{wanted}, which the params of {place}/norm need"
                )
        return {"conv": _fold_into(params["conv"]["kernel"], params["norm"], stats["norm"])}
    return {
        name: _fold(branch, stats.get(name, {}), (*path, name)) for name, branch in params.items()
    }


def _fold_into(
    kernel: Any, norm: Mapping[str, Any], stats: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns the convolution that does the norm's work, too."""
    kernel = np.asarray(kernel)
    scale, bias, mean, var = (
        np.asarray(leaf, np.float64)
        for leaf in (norm["scale"], norm["bias"], stats["mean"], stats["var"])
    )
    gain = scale / np.sqrt(var + _EPSILON)
    return {
        "kernel": (kernel * gain).astype(kernel.dtype),  # [k, k, c, o] * [o]
        "bias": (bias - gain * mean).astype(kernel.dtype),
    }


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names)) or "nothing"
