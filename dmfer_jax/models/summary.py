"""What a network is made of: parts, shapes, parameters and floating point operations."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmfer_jax.models.dmfer import Dmfer


class Part(NamedTuple):
    """One part of the network.

    Attributes:
      name: such as "backbone".
      output: shape of its last output for one image, such as "4 x 4 x 512".
      parameters: how many numbers it learns.
    """

    name: str
    output: str
    parameters: int


class Summary(NamedTuple):
    """Parts in the order of the forward pass, and totals.

    Attributes:
      parts: of the network.
      parameters: of all parts.
      flops: floating point operations of the forward pass of one image (a multiplication and an
        addition are two), as XLA counts them before it optimises.
    """

    parts: list[Part]
    parameters: int
    flops: float


def summarize(model: Dmfer, image_size: int, channels: int) -> Summary:
    """Describes a network without computing anything.

    Args:
      model: the network.
      image_size: height and width in pixels.
      channels: 1 or 3.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)

    def apply(variables: Any, image: jax.Array) -> Any:
        return model.apply(variables, image, capture_intermediates=True, mutable=True)

    # Each is traced once: of a deep network that takes a second of the time before the first step.
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    lowered = jax.jit(apply).lower(variables, image)
    params, intermediates = variables["params"], lowered.out_info[1]["intermediates"]
    parts = []
    for name in sorted(params, key=_FORWARD_ORDER.index):
        outputs = jax.tree.leaves(intermediates.get(name, {}).get("__call__", ()))
        shape = " x ".join(str(d) for d in outputs[-1].shape[1:]) if outputs else ""
        parts.append(Part(name, shape, _count(params[name])))

    cost = lowered.cost_analysis()
    return Summary(parts, _count(params), float((cost or {}).get("flops", math.nan)))


_FORWARD_ORDER = ("backbone", "two_scale", "attention", "compress", "head", "centers")


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
