"""Draws a network's variables in NumPy, so that a test compiles nothing but what it tests."""

import functools
from typing import Any

import jax
import numpy as np
from flax import linen as nn


def draw_variables(
    module: nn.Module, *inputs: Any, seed: int = 1, **options: Any
) -> dict[str, Any]:
    """Returns variables of a module, all of them random: none is 0 or 1, as after some training.

    Args:
      module: whose `init` takes a key and `inputs`.
      *inputs: arrays or their shapes.
      seed: of the numbers.
      **options: of `init` that are no arrays, such as `train`.
    """
    init = functools.partial(module.init, **options)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":  # keeps the size of what passes through, as He et al. do
            fan_in = max(1, int(np.prod(leaf.shape[:-1])))
            return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
