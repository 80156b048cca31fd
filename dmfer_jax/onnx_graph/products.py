"""Writers of the primitives that take the time: convolutions, products of matrices, pooling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmfer_jax.onnx_graph.elementwise import scale
from dmfer_jax.onnx_graph.graph import (
    CHANNELS_SECOND,
    Graph,
    Operand,
    Unsupported,
    Value,
    convolve,
)


def _convolution(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    images, kernel = operands
    numbers = params["dimension_numbers"]
    layout = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    if layout != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) or not isinstance(kernel, np.ndarray):
        raise Unsupported("a convolution of other images than [n, h, w, c], or by no constant")
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
        raise Unsupported("a transposed or grouped convolution")
    return convolve(
        graph,
        images,
        np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)),
        shape,
        strides=list(params["window_strides"]),
        pads=_margins(params["padding"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )


def _largest_of_windows(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    return _pool(graph, "MaxPool", operands[0], params, shape)


def _sum_of_windows(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """A mean times the window's size, which the division that follows takes back."""
    value = _pool(graph, "AveragePool", operands[0], params, shape, count_include_pad=1)
    return scale(graph, value, float(np.prod(params["window_dimensions"])))


def _pool(
    graph: Graph, operation: str, images: Value, params: Any, shape: Any, **attributes: int
) -> Value:
    along = (params["window_dimensions"], params["window_strides"], params["padding"])
    (window, strides, padding), rest = (one[1:3] for one in along), [one[::3] for one in along]
    dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
    if len(shape) != 4 or rest != [(1, 1), (1, 1), ((0, 0), (0, 0))] or dilated:
        raise Unsupported("a window over other axes than h and w of [n, h, w, c]")
    tensor = graph.add(
        operation,
        graph.lay_out(images, CHANNELS_SECOND),
        kernel_shape=list(window),
        strides=list(strides),
        pads=_margins(padding),
        **attributes,
    )
    return Value(tensor, shape, CHANNELS_SECOND, 4)


def _margins(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the margins of rows and columns in ONNX's order: all starts, then all ends."""
    return [start for start, _ in padding] + [end for _, end in padding]


def _product(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """A product of matrices, of as many as the axes before them say; or over an array's axis."""
    (of_left, of_right), (batch_left, batch_right) = params["dimension_numbers"]
    left, right = operands
    ranks = len(left.shape), len(right.shape)
    free_left = [a for a in range(ranks[0]) if a not in (*of_left, *batch_left)]
    free_right = [a for a in range(ranks[1]) if a not in (*of_right, *batch_right)]
    # Before the two axes of a matrix MatMul takes as many as there are, if the other has none.
    as_matrices = len(free_left) == 1 or (free_left and not batch_left)
    if len(of_left) != 1 or not as_matrices or len(free_right) != 1:
        raise Unsupported(f"a product of arrays {list(left.shape)} and {list(right.shape)}")
    tensor = graph.add(
        "MatMul",
        _in_order(graph, left, [*batch_left, *free_left, *of_left]),
        _in_order(graph, right, [*batch_right, *of_right, *free_right]),
    )
    return Value(tensor, shape, tuple(range(len(shape))), len(shape))


def _in_order(graph: Graph, operand: Operand, axes: Sequence[int]) -> str:
    """Returns a tensor with the axes of an array in an order."""
    if isinstance(operand, np.ndarray):
        return graph.constant(np.ascontiguousarray(operand.transpose(axes)))
    places = [axes.index(axis) for axis in range(len(axes))]
    return graph.lay_out(operand, places)


WRITERS = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "reduce_window_max": _largest_of_windows,
    "reduce_window_sum": _sum_of_windows,
}
"""Name of primitive -> what writes it, as in `elementwise.WRITERS`."""
