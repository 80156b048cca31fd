"""From a function in JAX to an ONNX graph: traced once, then written primitive by primitive."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax import export
from jax.extend import core
from onnx import helper

from dmfer_jax.models.formulation import plain
from dmfer_jax.onnx_graph import elementwise, products, shapes
from dmfer_jax.onnx_graph.graph import CHANNELS_SECOND, Graph, Operand, Unsupported, Value

_WRITERS: dict[str, Callable[[Graph, Sequence[Any], Mapping[str, Any], Any], Operand]] = {
    **elementwise.WRITERS,
    **shapes.WRITERS,
    **products.WRITERS,
}

_CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"}
"""Primitives that stand for a program of their own."""


def convert(
    function: Callable[[jax.Array], Sequence[jax.Array]],
    image_shape: Sequence[int],
    outputs: Sequence[str],
) -> onnx.GraphProto:
    """Returns a function of any number of images as a graph.

    Args:
      function: takes uint8 `[n, h, w, c]`, and gives float32 arrays, each with a row for an image.
      image_shape: (h, w, c).
      outputs: a name for each array that it gives.

    Returns:
      A graph of the input "images" and these outputs, the number of images called "n".

    Raises:
      ValueError: the function has a primitive that there is no writer for.
    """
    (n,) = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, *image_shape), np.uint8)
    with plain():
        traced = jax.make_jaxpr(function)(images)
    graph = Graph()
    given = Value("images", images.shape, (0, 1, 2, 3), 4)
    # At once, while a pixel is a byte.
    first = Value(graph.lay_out(given, CHANNELS_SECOND), images.shape, CHANNELS_SECOND, 4)
    found = _write(graph, traced.jaxpr, [np.asarray(one) for one in traced.consts], [first])
    made = {}
    for name, value in zip(outputs, found, strict=True):
        assert isinstance(value, Value), f"{name} does not depend on the images"
        made[name] = (graph.lay_out(value), ["n", *value.shape[1:]])
    described = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["n", *image_shape])
    return graph.finish("dmfer", [described], made)


def _write(
    graph: Graph, jaxpr: Any, constants: Sequence[Operand], arguments: Sequence[Operand]
) -> list[Operand]:
    """Writes a program, and returns what it gives."""
    known: dict[Any, Operand] = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Operand:
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _write_equation(graph, equation, operands)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _write_equation(graph: Graph, equation: Any, operands: list[Operand]) -> list[Operand]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        consts = [np.asarray(one) for one in inner.consts]
        return _write(graph, inner.jaxpr, consts, operands)
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
    if not any(isinstance(operand, Value) for operand in operands):
        if name == "broadcast_in_dim" and not all(isinstance(size, int) for size in shapes[0]):
            return [_as_often_as_there_are_images(operands[0], params, shapes[0])]
        found = equation.primitive.bind(*operands, **params)
        many = equation.primitive.multiple_results
        return [np.asarray(one) for one in (found if many else [found])]
    if name not in _WRITERS:
        raise Unsupported(f"there is no writer for the primitive {name!r}")
    try:
        return [_WRITERS[name](graph, operands, params, shapes[0])]
    except Unsupported as error:
        raise Unsupported(f"the primitive {name!r} cannot be written: {error}") from None


def _as_often_as_there_are_images(array: Any, params: Mapping[str, Any], shape: Any) -> np.ndarray:
    """A constant for each image; what uses it repeats it, so new axes have size 1."""
    sizes = [1] * len(shape)
    for axis, place in enumerate(params["broadcast_dimensions"]):
        sizes[place] = array.shape[axis]
    return np.reshape(array, sizes)
