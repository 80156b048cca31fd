"""Writers of primitives that work on each number by itself, and of reductions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from onnx import helper

from dmfer_jax.onnx_graph.graph import (
    Graph,
    Operand,
    Unsupported,
    Value,
    attribute,
    unscaled,
)


def apply(graph: Graph, operation: str, operands: Sequence[Operand], shape: Any) -> Value:
    """Adds a node that works on each number, on operands that are laid out alike.

    Args:
      graph: to add to.
      operation: of ONNX.
      operands: at least one of which is no constant.
      shape: of the result.
    """
    values = [operand for operand in operands if isinstance(operand, Value)]
    widest = max(values, key=lambda value: len(value.real()))
    places, rank = widest.places, widest.rank
    used = {axis for operand in operands for axis in _real(operand)}
    if not used <= set(widest.real()) or len(places) != len(shape):
        places, rank = tuple(range(len(shape))), len(shape)
    tensors = [
        graph.fit(operand, places, rank)
        if isinstance(operand, Value)
        else graph.constant(lay_out_constant(operand, places, rank))
        for operand in operands
    ]
    found = tuple(place if axis in used else None for axis, place in enumerate(places))
    return Value(graph.add(operation, *tensors), tuple(shape), found, rank)


def lay_out_constant(array: np.ndarray, places: Sequence[int | None], rank: int) -> np.ndarray:
    """Returns an array with its axes at places of one of another rank; one number as it is."""
    if array.size == 1:
        return array.reshape(())
    real = [axis for axis, size in enumerate(array.shape) if size != 1]
    order = sorted(real, key=lambda axis: places[axis] or 0)
    order += [axis for axis in range(array.ndim) if axis not in real]
    sizes = [1] * rank
    for axis in real:
        place = places[axis]
        assert place is not None
        sizes[place] = array.shape[axis]
    return np.ascontiguousarray(array.transpose(order).reshape(sizes))


def _real(operand: Operand) -> list[int]:
    if isinstance(operand, Value):
        return operand.real()
    return [axis for axis, size in enumerate(operand.shape) if size != 1]


def _number(operand: Operand) -> float | None:
    """The one number that a constant is, or is filled with."""
    if isinstance(operand, Value) or operand.size != 1:
        return None
    return float(operand.reshape(()))


def _plain(operation: str, graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del params
    return apply(graph, operation, operands, shape)


def _maximum(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del params
    for value, other in (operands, operands[::-1]):
        if (
            isinstance(value, Value)
            and value.shape == shape
            and (limit := _number(other))
            in (
                0.0,
                -np.inf,
            )
        ):
            return apply(graph, "Relu", [value], shape) if limit == 0 else value
    return apply(graph, "Max", operands, shape)


def _scaled(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """A product; one with a number takes in the number that came before."""
    del params
    for value, other in (operands, operands[::-1]):
        if isinstance(value, Value) and value.shape == shape and (by := _number(other)) is not None:
            return scale(graph, value, by)
    return apply(graph, "Mul", operands, shape)


def scale(graph: Graph, value: Value, by: float) -> Value:
    """Returns an array times a number; one that was multiplied before is multiplied once."""
    tensor, before = unscaled(graph, value.tensor)
    if (by := before * by) != 1:
        tensor = graph.add("Mul", tensor, graph.constant(np.float32(by)))
    return Value(tensor, value.shape, value.places, value.rank)


def _difference(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """A difference; of a product with a number, the number is put last.

    The product that follows, or the convolution, can take it in then.
    """
    del params
    value, less = operands
    if isinstance(value, Value) and value.shape == shape and (number := _number(less)) is not None:
        tensor, by = unscaled(graph, value.tensor)
        bare = Value(tensor, shape, value.places, value.rank)
        by_less = np.array(number / by, np.float32)
        return scale(graph, apply(graph, "Sub", [bare, by_less], shape), by)
    return apply(graph, "Sub", operands, shape)


def _quotient(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del params
    value, by = operands
    if isinstance(value, Value) and (number := _number(by)) is not None:
        return scale(graph, value, 1 / number)
    if isinstance(value, Value) and isinstance(by, Value):
        softmax = _softmax(graph, value, by)
        if softmax:
            return softmax
    return apply(graph, "Div", operands, shape)


def _softmax(graph: Graph, weights: Value, total: Value) -> Value | None:
    """The quotient as one node, if it is exp(x - max x) / sum exp(x - max x)."""
    exponential, summed = graph.maker(weights.tensor, "Exp"), graph.maker(total.tensor, "ReduceSum")
    if exponential is None or summed is None or summed.input[0] != weights.tensor:
        return None
    less = graph.maker(exponential.input[0], "Sub")
    largest = less and graph.maker(less.input[1], "ReduceMax")
    axes = graph.known(summed.input[1])
    if not less or not largest or axes is None or largest.input[0] != less.input[0]:
        return None
    if len(axes) != 1 or attribute(largest, "axes") != axes.tolist():
        return None
    tensor = graph.add("Softmax", less.input[0], axis=int(axes[0]))
    return Value(tensor, weights.shape, weights.places, weights.rank)


def _sum(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """A sum; a convolution takes in the number that each of its channels gets."""
    del params
    for value, other in (operands, operands[::-1]):
        if not isinstance(value, Value) or isinstance(other, Value) or value.shape != shape:
            continue
        node = graph.maker(value.tensor, "Conv")
        if node is None or len(node.input) != 2 or value.rank != 4 or _real(other) not in ([3], []):
            continue
        kernel = graph.known(node.input[1])
        assert kernel is not None
        bias = np.broadcast_to(other.reshape(-1), kernel.shape[:1]).astype(np.float32)
        attributes = {found.name: helper.get_attribute_value(found) for found in node.attribute}
        tensor = graph.add("Conv", *node.input, graph.constant(bias), **attributes)
        return Value(tensor, value.shape, value.places, value.rank)
    return apply(graph, "Add", operands, shape)


def _inverse_root(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del params
    root = apply(graph, "Sqrt", operands, shape)
    return apply(graph, "Reciprocal", [root], shape)


def _power(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    if params.get("y", 2) != 2:
        raise Unsupported(f"the power {params['y']}")
    return apply(graph, "Mul", [*operands, *operands], shape)


def _cast(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    (value,) = operands
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(params["new_dtype"]))
    return Value(graph.add("Cast", value.tensor, to=kind), shape, value.places, value.rank)


def _as_it_is(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del graph, params, shape
    return operands[0]


def _select(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del params
    if len(operands) != 3:
        raise Unsupported(f"a choice among {len(operands) - 1}")
    where, no, yes = operands
    return apply(graph, "Where", [where, yes, no], shape)


def _reduce(operation: str, graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """A sum or maximum; the tensor keeps the axis, with size 1."""
    (value,) = operands
    real = set(value.real())
    if any(value.shape[axis] != 1 and axis not in real for axis in params["axes"]):
        raise Unsupported("a reduction of what is repeated")
    axes = sorted(value.places[axis] for axis in params["axes"] if axis in real)
    tensor = value.tensor
    if axes and operation == "ReduceSum":
        constant = graph.constant(np.array(axes, np.int64))
        tensor = graph.add(operation, tensor, constant, keepdims=1)
    elif axes:
        tensor = graph.add(operation, tensor, axes=axes, keepdims=1)
    places = tuple(p for axis, p in enumerate(value.places) if axis not in params["axes"])
    return Value(tensor, shape, places, value.rank)


def _largest_index(graph: Graph, operands: Any, params: Any, shape: Any) -> Operand:
    """Where the largest number is; of equal ones the first."""
    (value,) = operands
    (axis,) = params["axes"]
    if axis not in value.real():  # all are equal
        return np.zeros([1] * len(shape), params["index_dtype"])
    tensor = graph.add("ArgMax", value.tensor, axis=value.places[axis], keepdims=1)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(params["index_dtype"]))
    places = tuple(p for other, p in enumerate(value.places) if other != axis)
    return Value(graph.add("Cast", tensor, to=kind), shape, places, value.rank)


WRITERS = {
    "add": _sum,
    "sub": _difference,
    "mul": _scaled,
    "div": _quotient,
    "max": _maximum,
    "eq": partial(_plain, "Equal"),
    "exp": partial(_plain, "Exp"),
    "tanh": partial(_plain, "Tanh"),
    "logistic": partial(_plain, "Sigmoid"),
    "rsqrt": _inverse_root,
    "square": _power,
    "integer_pow": _power,
    "convert_element_type": _cast,
    "stop_gradient": _as_it_is,
    "copy": _as_it_is,
    "select_n": _select,
    "reduce_sum": partial(_reduce, "ReduceSum"),
    "reduce_max": partial(_reduce, "ReduceMax"),
    "argmax": _largest_index,
}
"""Name of primitive -> what writes it: takes graph, operands, parameters and the result's shape."""
