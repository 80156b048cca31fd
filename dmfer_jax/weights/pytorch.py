"""The network's variables as a PyTorch state dict of NumPy arrays, and back.

A name is Flax's path joined by dots, and only its last part and the order of the axes change. So
nothing here knows which network it is, and PyTorch is not needed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dmfer_jax.errors import UserError

# (collection, leaf, rank) in Flax -> (leaf in PyTorch, its axes taken from Flax's).
_LEAVES: dict[tuple[str, str, int], tuple[str, tuple[int, ...]]] = {
    ("params", "kernel", 4): ("weight", (3, 2, 0, 1)),  # HWIO -> OIHW; of a depthwise one as well
    ("params", "kernel", 2): ("weight", (1, 0)),  # inputs, outputs -> outputs, inputs
    ("params", "scale", 1): ("weight", (0,)),
    ("params", "bias", 1): ("bias", (0,)),
    ("params", "temperature", 3): ("temperature", (0, 1, 2)),
    ("params", "centers", 2): ("centers", (0, 1)),
    ("batch_stats", "mean", 1): ("running_mean", (0,)),
    ("batch_stats", "var", 1): ("running_var", (0,)),
}
_BACK = {
    (name, len(axes)): (collection, leaf, axes)
    for (collection, leaf, _), (name, axes) in _LEAVES.items()
}
_IGNORED = "num_batches_tracked"  # PyTorch counts its batches; Flax does not, and nothing needs it


def to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the network's variables under PyTorch's names and in its order of axes.

    Args:
      variables: {"params", "batch_stats"} of `models.dmfer.Dmfer`.

    Returns:
      Name -> array, copied; such as "backbone.stem.conv.weight" `[out, in, h, w]`.

    Raises:
      UserError: a collection, or a leaf of this name and rank, is not one that the network has.
    """
    state_dict = {}
    for collection, tree in variables.items():
        for path, leaf in _leaves_of(tree, ()):
            array = np.asarray(leaf)
            key = (collection, path[-1] if path else "", array.ndim)
            if key not in _LEAVES:
                raise UserError(
                    f"variables have {'/'.join((collection, *path))} of shape {array.shape}; "
                    f"expected {_expected(_LEAVES)}"
                )
            name, axes = _LEAVES[key]
            state_dict[".".join((*path[:-1], name))] = np.array(array.transpose(axes), order="C")
    return state_dict


def from_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables that `to_state_dict` made a state dict of.

    Args:
      state_dict: name -> NumPy array, or tensor on the CPU. "num_batches_tracked" is passed over.

    Returns:
      {"params", "batch_stats"} of nested dicts of arrays, copied.

    Raises:
      UserError: a tensor of this name and rank is not one that the network has.
    """
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, tensor in state_dict.items():
        *parents, last = name.split(".")
        if last == _IGNORED:
            continue
        array = np.asarray(tensor)
        if (last, array.ndim) not in _BACK:
            raise UserError(
                f"the state dict has '{name}' of shape {array.shape}; "
                f"expected names that end in {_expected(_BACK)}, or in {_IGNORED}"
            )
        collection, leaf, axes = _BACK[last, array.ndim]
        tree = variables[collection]
        for parent in parents:
            tree = tree.setdefault(parent, {})
            if not isinstance(tree, dict):
                raise UserError(f"the state dict has '{name}' and a tensor named as its parent")
        if leaf in tree:
            raise UserError(f"the state dict has '{name}' and another tensor of the same meaning")
        tree[leaf] = np.array(array.transpose(np.argsort(axes)), order="C")
    return variables


def _leaves_of(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves_of(branch, (*path, name))
    else:
        yield path, tree


def _expected(keys: Mapping[tuple[Any, ...], Any]) -> str:
    return ", ".join(f"{'/'.join(names)} of rank {rank}" for *names, rank in keys)
