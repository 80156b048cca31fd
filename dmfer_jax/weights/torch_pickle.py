"""What the pickle of a PyTorch file may hold: tensors over storages, and plain containers.

A tensor is a view of a storage: an offset, sizes and strides. Several may share one.
"""

import math
import sys
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.weights.pickle_machine import Global, Rules, Unused, checked_key, shown

MAX_DIMENSIONS = 16
"""Of a tensor; NumPy stops at 64."""

_TYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_STORAGES = {
    f"{module}.{name}": np.dtype(dtype)
    for module in ("torch", "torch.cuda")
    for name, dtype in _TYPES.items()
}
_DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("uint8", "int8", "int16", "int32", "int64", "bool"),
)


class Storage(NamedTuple):
    """Numbers in a row, kept outside the pickle.

    Attributes:
      key: its name in the file.
      dtype: of its numbers.
      elements: how many the file should have under this key.
      start, length: the part of them that this is; all, but for parts in the old format.
    """

    key: str
    dtype: np.dtype[Any]
    elements: int
    start: int
    length: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count its numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers, were they laid out in a row."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


def rules() -> Rules:
    """Returns what the pickle of a PyTorch file may construct."""
    unused = dict.fromkeys(
        (
            "torch.device",
            "torch.serialization._get_layout",
            "_codecs.encode",  # how bytes are written in protocol 2
            "builtins.set",
            "__builtin__.set",
            "numpy.dtype",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
        ),
        lambda *_: Unused(),
    )
    constructors = {
        "torch._utils._rebuild_tensor": _make_tensor,
        "torch._utils._rebuild_tensor_v2": _make_tensor,
        "torch._utils._rebuild_parameter": _unwrap_parameter,
        "torch._utils._rebuild_parameter_with_state": _unwrap_parameter,
        "torch.Size": _make_size,
        "collections.OrderedDict": _make_dict,
        "collections.Counter": _make_dict,
        "collections.defaultdict": lambda _=None, items=(): _make_dict(items),
        **unused,
    }
    plain = ("list", "dict", "int", "float", "set")
    names = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in plain}
    names |= _STORAGES.keys() | {f"torch.{name}" for name in _DTYPES}
    return Rules(constructors, frozenset(names), _find_storage)


def view(tensor: Tensor, raw: bytes, byteorder: str) -> np.ndarray:
    """Returns a tensor as a read-only view of its storage's bytes; nothing is copied.

    Args:
      tensor: that `rules` made.
      raw: of the storage, all of its `elements`.
      byteorder: "little" or "big".
    """
    storage = tensor.storage
    numbers = np.frombuffer(raw, f"u{storage.dtype.itemsize}")
    if byteorder != sys.byteorder:
        numbers = numbers.byteswap()
    numbers = numbers.view(storage.dtype)[storage.start + tensor.offset :]
    strides = tuple(stride * storage.dtype.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)


def _find_storage(reference: Any) -> Storage:
    """Of ("storage", type, key, device, elements[, None or (key, start, length)])."""
    if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] != "storage":
        raise UserError("its pickle refers to something outside of it that is no storage")
    _, kind, key, _, elements, *part = reference
    if type(kind) is not Global or kind.name not in _STORAGES:
        named = kind.name if type(kind) is Global else shown(kind)
        raise UserError(f"its pickle has a storage of {named}, a type of numbers not read here")
    start, length = 0, elements
    if part and part[0] is not None:
        _, start, length = part[0]
    if not isinstance(key, str) or not _are_sizes((elements, start, length)):
        raise UserError("its pickle has a storage without a name or a size")
    if start + length > elements:
        raise UserError(f"its pickle has a part of storage {shown(key)} that ends behind it")
    return Storage(key, _STORAGES[kind.name], elements, start, length)


def _make_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *others: Any) -> Tensor:
    """The others: whether it has a gradient, hooks, and since PyTorch 2.0 flags."""
    if type(storage) is not Storage:
        raise UserError(f"its pickle makes a tensor of {shown(storage)}")
    if len(others) > 2 and others[2]:
        raise UserError("its pickle has a tensor whose numbers are to be conjugated or negated")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise UserError("its pickle has a tensor without sizes")
    if not _are_sizes((offset, *shape, *strides)) or len(shape) != len(strides):
        raise UserError("its pickle has a tensor whose sizes and strides make no sense")
    if len(shape) > MAX_DIMENSIONS:
        raise UserError(f"its pickle has a tensor of {len(shape)} dimensions")
    count = math.prod(shape)
    steps = ((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    last = offset + sum(steps) if count else offset - 1
    if last >= storage.length or count > storage.length:
        sizes = " x ".join(str(size) for size in shape)
        raise UserError(
            f"its pickle has a tensor of {sizes or 1} numbers in a storage of {storage.length:,}, "
            "where it does not fit"
        )
    return Tensor(storage, offset, shape, strides)


def _unwrap_parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise UserError(f"its pickle makes a parameter of {shown(tensor)}")
    return tensor


def _make_size(sizes: Any = ()) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise UserError(f"its pickle makes a size of {shown(sizes)}")
    return sizes


def _make_dict(items: Any = ()) -> dict[Any, Any]:
    """Of a dict, or of pairs as Python 2 writes an OrderedDict."""
    if type(items) is dict:
        return items  # not copied: a small file may ask for that very often
    return {checked_key(key): value for key, value in items}


def _are_sizes(values: tuple[Any, ...]) -> bool:
    # Bounded, so that no product of them is a number of a million digits.
    return all(type(value) is int and 0 <= value < 2**48 for value in values)
