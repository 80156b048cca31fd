"""Writers of primitives that move numbers and compute none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmfer_jax.onnx_graph.graph import Graph, Operand, Unsupported, Value, convolve


def _transpose(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    del graph
    (value,) = operands
    places = tuple(value.places[axis] for axis in params["permutation"])
    return Value(value.tensor, shape, places, value.rank)


def _broadcast(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """New axes, which the tensor does not get."""
    del graph
    (value,) = operands
    places: list[int | None] = [None] * len(shape)
    real = set(value.real())
    for axis, place in enumerate(params["broadcast_dimensions"]):
        places[place] = value.places[axis] if axis in real else None
    return Value(value.tensor, shape, tuple(places), value.rank)


def _reshape(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """Axes that are cut or joined, in the tensor's own order where this can be done in it."""
    (value,) = operands
    if params.get("dimensions") is not None:
        raise Unsupported("a reshaping in another order")
    old = [axis for axis, size in enumerate(value.shape) if size != 1]
    new = [axis for axis, size in enumerate(shape) if size != 1]
    groups = _matching([value.shape[axis] for axis in old], [shape[axis] for axis in new])
    by_axis = [([old[i] for i in a], [new[j] for j in b]) for a, b in groups]
    if len(old) != len(value.real()):
        raise Unsupported(f"a reshaping of {list(value.shape)}, which repeats a smaller array")
    places: list[int | None] = [None] * len(shape)
    if all(len(a) == len(b) == 1 for a, b in by_axis):
        for (before,), (after,) in by_axis:
            places[after] = value.places[before]
        return Value(value.tensor, shape, tuple(places), value.rank)
    lying = sorted(old, key=lambda axis: value.places[axis] or 0)
    by_place = sorted(by_axis, key=lambda pair: lying.index(pair[0][0]) if pair[0] else -1)
    tensor = value.tensor
    if [axis for a, _ in by_place for axis in a] != lying:
        tensor, by_place = graph.lay_out(value), by_axis
    order = [axis for _, b in by_place for axis in b]
    for place, axis in enumerate(order):
        places[axis] = place
    tensor = graph.reshape(tensor, [shape[axis] for axis in order])
    return Value(tensor, shape, tuple(places), len(order))


def _matching(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
    """Returns which axes of two shapes, none of size 1, hold the same numbers.

    >>> _matching([12, 10], [3, 4, 2, 5])
    [([0], [0, 1]), ([1], [2, 3])]
    """
    groups: list[tuple[list[int], list[int]]] = []
    i, j = len(old), len(new)
    while i and j:
        i, j = i - 1, j - 1
        a, b, left, right = old[i], new[j], [i], [j]
        while a != b:
            if not isinstance(a, int) or not isinstance(b, int):
                left, right, i, j = list(range(left[-1] + 1)), list(range(right[-1] + 1)), 0, 0
                break
            if a < b:
                i -= 1
                a, left = a * old[i], [i, *left]
            else:
                j -= 1
                b, right = b * new[j], [j, *right]
        groups.insert(0, (left, right))
    return groups


def _concatenate(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    """Arrays behind each other, laid out as the first one that is no constant."""
    axis = params["dimension"]
    first = next(operand for operand in operands if isinstance(operand, Value))
    places = _as_it_lies(first)
    tensors = [
        graph.lay_out(operand, places)
        if isinstance(operand, Value)
        else graph.constant(np.moveaxis(operand, range(len(shape)), places))
        for operand in operands
    ]
    tensor = graph.add("Concat", *tensors, axis=places[axis])
    return Value(tensor, shape, tuple(places), len(shape))


def _stack(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    axis = params["axis"]
    one = (*shape[:axis], 1, *shape[axis + 1 :])

    def widen(operand: Operand) -> Operand:
        if not isinstance(operand, Value):
            return np.expand_dims(operand, axis)
        lying = _as_it_lies(operand)
        # Behind the axis before it, with which it may be joined.
        new = lying[axis - 1] + 1 if axis else 0
        moved = [place + (place >= new) for place in lying]
        places = (*moved[:axis], new, *moved[axis:])
        tensor = graph.lay_out(operand, lying)
        sizes = [one[places.index(place)] for place in range(len(one))]
        return Value(graph.reshape(tensor, sizes), one, places, len(one))

    return _concatenate(graph, [widen(one) for one in operands], {"dimension": axis}, shape)


def _pad(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    value, filling = operands
    config = params["padding_config"]
    if any(low < 0 or high < 0 or between for low, high, between in config):
        raise Unsupported(f"the padding {config}")
    padded = [axis for axis, (low, high, _) in enumerate(config) if low or high]
    if not padded:
        return value
    if len(shape) == 4 and filling == 0 and padded == [3]:
        return _pad_channels(graph, value, config[3][:2], shape)
    if len(shape) == 4 and filling == 0 and set(padded) <= {1, 2}:
        return _pad_sides(graph, value, config[1:3], shape)
    places = _as_it_lies(value)
    tensor = graph.lay_out(value, places)
    starts, ends = [0] * len(shape), [0] * len(shape)
    for place, (low, high, _) in zip(places, config, strict=True):
        starts[place], ends[place] = low, high
    amounts = graph.constant(np.array(starts + ends, np.int64))
    tensor = graph.add("Pad", tensor, amounts, graph.constant(np.float32(filling)))
    return Value(tensor, shape, tuple(places), len(shape))


def _pad_channels(graph: Graph, value: Value, ends: tuple[int, int], shape: Any) -> Value:
    """Channels of zeros, as a convolution.

    onnxruntime keeps images in blocks of channels from one convolution to the next, and adds a
    shortcut in the same pass. A `Pad` would end this, for all the rest of a ResNet: what it pads is
    added, and added to. The products take a hundredth of the time.
    """
    kernel = np.eye(value.shape[3], dtype=np.float32)
    kernel = np.pad(kernel, (ends, (0, 0)))[:, :, None, None]  # [o, c, 1, 1]
    return convolve(graph, value, kernel, shape)


def _pad_sides(graph: Graph, value: Value, config: Any, shape: Any) -> Value:
    """Rows and columns of zeros, as a convolution of each channel; see `_pad_channels`."""
    channels = value.shape[3]
    kernel = np.ones((channels, 1, 1, 1), np.float32)
    margins = [low for low, *_ in config] + [high for _, high, _ in config]
    return convolve(graph, value, kernel, shape, pads=margins, group=channels)


def _slice(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    (value,) = operands
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(shape)
    cut = [axis for axis in range(len(shape)) if value.shape[axis] != shape[axis]]
    if not cut:
        return value
    return _cut(
        graph, value, shape, {axis: (starts[axis], ends[axis], steps[axis]) for axis in cut}
    )


def _reverse(graph: Graph, operands: Any, params: Any, shape: Any) -> Value:
    (value,) = operands
    before_first = np.iinfo(np.int64).min
    turned = dict.fromkeys(params["dimensions"], (-1, before_first, -1))
    return _cut(graph, value, shape, turned)


def _cut(graph: Graph, value: Value, shape: Any, cuts: Mapping[int, tuple[int, int, int]]) -> Value:
    """Takes, of each axis given, the numbers from a start to an end by a step."""
    places = _as_it_lies(value)
    columns = [*zip(*cuts.values(), strict=True), [places[axis] for axis in cuts]]
    starts, ends, steps, axes = (graph.constant(np.array(one, np.int64)) for one in columns)
    tensor = graph.add("Slice", graph.lay_out(value, places), starts, ends, axes, steps)
    return Value(tensor, shape, tuple(places), len(shape))


def _as_it_lies(value: Value) -> list[int]:
    """Returns places for all axes of an array, those that it has, if it has them all."""
    rank = len(value.shape)
    places = [place for place in value.places if place is not None]
    whole = value.rank == rank and len(places) == rank
    return places if whole else list(range(rank))


WRITERS = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    # Its "dimensions" are axes of size 1.
    "squeeze": lambda graph, operands, params, shape: _reshape(graph, operands, {}, shape),
    "expand_dims": _reshape,
    "concatenate": _concatenate,
    "stack": _stack,
    "pad": _pad,
    "slice": _slice,
    "rev": _reverse,
}
"""Name of primitive -> what writes it, as in `elementwise.WRITERS`."""
