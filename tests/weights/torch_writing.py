"""Writes files as PyTorch's `torch.save` does, in both of its formats, without PyTorch."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

KINDS = {
    "<f4": "Float",
    "<f8": "Double",
    "<f2": "Half",
    "<i8": "Long",
    "|u1": "Byte",
    "|b1": "Bool",
}
MAGIC = 0x1950A86A20F9469CFC6C


class Name:
    """Stands for a class or function of another program: "torch._utils._rebuild_tensor_v2"."""

    def __init__(self, full: str):
        self.full = full

    def __call__(self, *_: Any) -> None:
        raise AssertionError("only its name is ever used")


class Call(NamedTuple):
    """What a pickle is to call, and with what."""

    name: str
    arguments: tuple[Any, ...] = ()


class Tensor:
    """A tensor of an array's numbers; or of a part of a base's, with any sizes and strides."""

    def __init__(
        self,
        array: Any,
        offset: int = 0,
        shape: tuple[int, ...] | None = None,
        strides: tuple[int, ...] | None = None,
    ):
        self.base = array
        flat = np.ascontiguousarray(array)
        usual = tuple(stride // flat.itemsize for stride in flat.strides)
        self.layout = (
            offset,
            flat.shape if shape is None else shape,
            usual if strides is None else strides,
        )


class _Storage:
    def __init__(self, array: np.ndarray):
        self.array = array


_PythonPickler: Any = pickle._Pickler  # pyright: ignore  (the one that can be taught names)


class _Pickler(_PythonPickler):
    dispatch: ClassVar[Any] = dict(_PythonPickler.dispatch)

    def __init__(self, file: Any, legacy: bool, protocol: int = 2):
        super().__init__(file, protocol)
        self.legacy = legacy
        self.storages: dict[int, tuple[str, np.ndarray]] = {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        array = np.ascontiguousarray(obj.array)
        key, _ = self.storages.setdefault(id(obj.array), (str(len(self.storages)), array))
        kind = Name(f"torch.{KINDS[array.dtype.str]}Storage")
        return ("storage", kind, key, "cpu", array.size, *([None] * self.legacy))

    def save_name(self, obj: Name) -> None:
        module, name = obj.full.rsplit(".", 1)
        self.write(b"c" + f"{module}\n{name}\n".encode())

    def save_call(self, obj: Call) -> None:
        self.save_reduce(Name(obj.name), obj.arguments)

    def save_tensor(self, obj: Tensor) -> None:
        arguments = (_Storage(obj.base), *obj.layout, False, OrderedDict())
        self.save_reduce(Name("torch._utils._rebuild_tensor_v2"), arguments)

    dispatch |= {Name: save_name, Call: save_call, Tensor: save_tensor}


def zip_bytes(
    content: Any, order: str = "little", more: Mapping[str, bytes] | None = None
) -> bytes:
    """A file since PyTorch 1.6, with some more entries."""
    pickled = io.BytesIO()
    pickler = _Pickler(pickled, legacy=False)
    pickler.dump(content)
    entries = {"data.pkl": pickled.getvalue(), "byteorder": order.encode()}
    for key, array in pickler.storages.values():
        swapped = array.byteswap() if order == "big" else array
        entries[f"data/{key}"] = swapped.tobytes()
    return zip_of({**entries, "version": b"3\n", **(more or {})})


def zip_of(entries: Mapping[str, bytes], folder: str = "archive/", compress: bool = False) -> bytes:
    """A zip archive of these entries."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(folder + name, data)
    return file.getvalue()


def legacy_bytes(content: Any) -> bytes:
    """A file before PyTorch 1.6."""
    file = io.BytesIO()
    for plain in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(plain, file, 2)
    pickler = _Pickler(file, legacy=True)
    pickler.dump(content)
    pickle.dump([key for key, _ in pickler.storages.values()], file, 2)
    for _, array in pickler.storages.values():
        file.write(array.size.to_bytes(8, "little") + array.tobytes())
    return file.getvalue()


FORMATS = {"zip": zip_bytes, "legacy": legacy_bytes}


def write(path: Path, arrays: Mapping[str, np.ndarray], kind: str = "zip") -> Path:
    """Writes a bare state dict."""
    content = OrderedDict((name, Tensor(array)) for name, array in arrays.items())
    path.write_bytes(FORMATS[kind](content))
    return path
