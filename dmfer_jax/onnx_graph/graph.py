"""An ONNX graph that grows node by node, and arrays of a traced program as tensors of it.

JAX's networks have their channels last, and ONNX's have them second. So that no array is transposed
without need, an array of the program (`Value`) says on which axes of its tensor its own axes lie.
To transpose an array, or to give it axes of size 1, changes what is said and adds no node.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 17, 8
"""Of 2022, so that older runtimes read the files, too; nothing newer is needed."""


class Unsupported(ValueError):
    """The program has something that there is no writer for."""


@dataclass(frozen=True)
class Value:
    """An array of the program, and where it lies.

    Attributes:
      tensor: its name in the graph.
      shape: of the array; the number of images, and what depends on it, is symbolic.
      places: for each axis of the array, the axis of the tensor; None for one that the tensor does
        not have, of size 1 or repeated. Other axes of the tensor have size 1.
      rank: of the tensor.
    """

    tensor: str
    shape: tuple[Any, ...]
    places: tuple[int | None, ...]
    rank: int

    def real(self) -> list[int]:
        """The axes that are not of size 1, nor repeated."""
        sizes = zip(self.shape, self.places, strict=True)
        return [axis for axis, (size, place) in enumerate(sizes) if size != 1 and place is not None]


Operand = Value | np.ndarray
"""What a writer gets: an array that depends on the images, or one that is known already."""


class Graph:
    """The nodes and constants so far."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self._made_by: dict[str, onnx.NodeProto] = {}

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output, and returns the output's name."""
        return self._append(operation, inputs, f"t{len(self._made_by)}", attributes)

    def constant(self, array: Any) -> str:
        """Adds a tensor of known values, and returns its name."""
        name = f"c{len(self._constants)}"
        self._constants[name] = np.asarray(array)
        return name

    def maker(self, tensor: str, *operations: str) -> onnx.NodeProto | None:
        """Returns the node that makes a tensor, if it is one of some operations."""
        node = self._made_by.get(tensor)
        return node if node is not None and node.op_type in operations else None

    def known(self, tensor: str) -> np.ndarray | None:
        """Returns the values of a constant, and None for other tensors."""
        return self._constants.get(tensor)

    def lay_out(self, value: Value, places: Sequence[int | None] | None = None) -> str:
        """Returns a tensor that has an array's axes at some places.

        Args:
          value: the array.
          places: for each axis of the array, where it is to lie in a tensor of as many axes as the
            array has; in the array's own order unless told. None puts an axis of size 1 nowhere.
        """
        rank = len(value.shape)
        wanted = list(range(rank) if places is None else places)
        if len(value.real()) < sum(size != 1 for size in value.shape):
            raise Unsupported(f"an array {list(value.shape)} that repeats a smaller one")
        return self.fit(value, wanted, rank)

    def fit(self, value: Value, places: Sequence[int | None], rank: int) -> str:
        """Returns a tensor of a rank that has the real axes of an array at some places."""
        real = value.real()
        if value.rank == rank and all(value.places[axis] == places[axis] for axis in real):
            return value.tensor
        before = sorted(real, key=lambda axis: value.places[axis] or 0)
        after = sorted(real, key=lambda axis: places[axis] or 0)
        tensor = value.tensor
        if before != after:
            axes = [value.places[axis] for axis in after]
            axes += [axis for axis in range(value.rank) if axis not in axes]
            tensor = self.add("Transpose", tensor, perm=axes)
            if value.rank == rank and [places[axis] for axis in after] == list(range(len(after))):
                return tensor
        sizes: list[Any] = [1] * rank
        for axis in after:
            place = places[axis]
            assert place is not None
            sizes[place] = value.shape[axis]
        return self.reshape(tensor, sizes)

    def reshape(self, tensor: str, sizes: Sequence[Any]) -> str:
        """Adds a node that gives a tensor other sizes, of which one may be symbolic."""
        known = [size if isinstance(size, int) else -1 for size in sizes]
        if known.count(-1) > 1:
            raise Unsupported(f"a reshaping to {list(sizes)}")
        return self.add("Reshape", tensor, self.constant(np.array(known, np.int64)))

    def finish(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: dict[str, tuple[str, Any]]
    ) -> onnx.GraphProto:
        """Returns the graph, without the nodes and constants that no output needs.

        Args:
          name: of the graph.
          inputs: of the graph.
          outputs: name -> tensor, and its shape.
        """
        for output, (tensor, _) in outputs.items():
            self._append("Identity", [tensor], output, {})
        needed, kept = set(outputs), []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        constants = [
            numpy_helper.from_array(array, constant)
            for constant, array in self._constants.items()
            if constant in needed
        ]
        described = [
            helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)
            for output, (_, shape) in outputs.items()
        ]
        return helper.make_graph(kept[::-1], name, list(inputs), described, constants)

    def _append(
        self, operation: str, inputs: Iterable[str], output: str, attributes: dict[str, Any]
    ) -> str:
        name = f"{operation}_{len(self._nodes)}"
        node = helper.make_node(operation, list(inputs), [output], name=name, **attributes)
        self._nodes.append(node)
        self._made_by[output] = node
        return output


CHANNELS_SECOND = (0, 2, 3, 1)
"""Where the axes n, h, w, c of images lie in ONNX."""


def convolve(graph: Graph, images: Value, kernel: np.ndarray, shape: Any, **options: Any) -> Value:
    """Returns a convolution.

    Args:
      graph: to add to.
      images: `[n, h, w, c]`.
      kernel: `[o, c, k, k]`, ONNX's order.
      shape: of the result, `[n, h', w', o]`.
      **options: attributes of ONNX's `Conv`.
    """
    tensor, by = unscaled(graph, graph.lay_out(images, CHANNELS_SECOND))
    kernel = kernel * np.float32(by)
    size = list(kernel.shape[2:])
    tensor = graph.add("Conv", tensor, graph.constant(kernel), kernel_shape=size, **options)
    return Value(tensor, shape, CHANNELS_SECOND, 4)


def unscaled(graph: Graph, tensor: str) -> tuple[str, float]:
    """Returns what a tensor is a multiple of, and the number that it is multiplied by."""
    node = graph.maker(tensor, "Mul")
    by = None if node is None else graph.known(node.input[1])
    if node is None or by is None or by.shape:
        return tensor, 1.0
    return node.input[0], float(by)


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """Returns an attribute of a node; None if it has none of that name."""
    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return None
