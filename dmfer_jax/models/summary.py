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
      flops: floating point operations of the forward pass of one image, counted as papers do: a
        multiplication and an addition are two, padding counts as pixels do, and norms and
        activations are left away. So is what is of training alone, DACL's attention network.
        With `flip_average` an image passes through all but the head twice.
    """

    parts: list[Part]
    parameters: int
    flops: int


def summarize(model: Dmfer, image_size: int, channels: int) -> Summary:
    """Describes a network without computing anything.

    Args:
      model: the network.
      image_size: height and width in pixels.
      channels: 1 or 3.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)

    def run(image: jax.Array) -> Any:
        _, variables = model.init_with_output(jax.random.key(0), image, capture_intermediates=True)
        return variables

    # Traced once: of a deep network that is half a second of the time before the first step.
    variables = jax.eval_shape(run, image)
    params, outputs = variables["params"], variables["intermediates"]
    parts = []
    for name in sorted(params, key=_FORWARD_ORDER.index):
        of_part = jax.tree.leaves(outputs.get(name, {}).get("__call__", ()))
        shape = " x ".join(str(d) for d in of_part[-1].shape[1:]) if of_part else ""
        parts.append(Part(name, shape, _count(params[name])))

    predicting = {name: part for name, part in params.items() if name != "attentive"}
    flops = 2 * _layer_products(predicting, outputs)
    if model.attention == "channel":
        n, h, w, c = outputs["attention"]["__call__"][0].shape
        flops += 2 * 2 * n * h * w * c * (c // model.heads)  # queries and keys, and with values
    return Summary(parts, _count(params), flops)


def _layer_products(params: Any, outputs: Any) -> int:
    """Multiplications of every convolution and linear layer: a kernel, once per output pixel."""
    total = 0
    for name, value in params.items():
        if name == "kernel":
            pixels = math.prod(outputs["__call__"][0].shape[:-1])
            total += pixels * math.prod(value.shape)
        elif isinstance(value, dict):
            total += _layer_products(value, outputs[name])
    return total


_FORWARD_ORDER = (
    "backbone",
    "two_scale",
    "attention",
    "compress",
    "attentive",
    "head",
    "centers",
)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
