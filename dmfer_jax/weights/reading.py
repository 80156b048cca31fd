"""Reads the tensors of a weights file, of PyTorch, safetensors or TensorFlow.js, as NumPy arrays.

PyTorch is not needed, and nothing of the file is run: see `pickle_machine`. The kind of a file is
told by its first bytes, whatever its name.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from dmfer_jax.errors import UserError
from dmfer_jax.weights import torch_files
from dmfer_jax.weights.manifest import MAX_MANIFEST_BYTES, is_manifest, read_manifest
from dmfer_jax.weights.pickle_machine import shown
from dmfer_jax.weights.torch_pickle import Tensor, view

MAX_BYTES = 4 * 2**30
"""Of a file, and of its tensors in all."""

MAX_TENSORS = 20_000

_MAX_HEADER_BYTES = 16 * 2**20  # of a safetensors file
_WRAPPERS = ("state_dict", "model_state_dict", "model")

_SAFETENSORS_TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

_OTHER_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "is a pointer of Git LFS, not the file itself: git lfs pull"),
    (0, b"\x93NUMPY", "is a NumPy array, not a file of PyTorch"),
    (0, b"\x89HDF", "is an HDF5 file, as Keras writes them; this project reads none"),
    (0, b"\x1f\x8b", "is compressed by gzip: unpack it first"),
    (0, b"BZh", "is compressed by bzip2: unpack it first"),
    (0, b"\xfd7zXZ", "is compressed by xz: unpack it first"),
    (0, b"7z\xbc\xaf", "is a 7-Zip archive: unpack it first"),
    (0, b"Rar!", "is a RAR archive: unpack it first"),
    (4, b"TFL3", "is a model of TensorFlow Lite; this project reads none"),
    (0, b"\x08\x03\x12", "seems to be a model in ONNX; give the file of PyTorch it was made of"),
    (0, b"\x08\x0a", "seems to be a model of TensorFlow or in ONNX; this project reads none"),
    (
        257,
        b"ustar",
        "is a tar archive. If a weights file was packed into it, unpack it; if PyTorch before "
        "0.1.10 wrote it, load it in a newer PyTorch and save it again",
    ),
)
"""(where, bytes that lie there, what such a file is)."""


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a weights file.

    Read are files of PyTorch's `torch.save`, as a zip archive (since 1.6) and as before it, and
    safetensors. A file of PyTorch may hold a state dict, or a dict that has it under "state_dict",
    "model_state_dict" or "model"; what else stands beside the tensors is left out. Of TensorFlow.js
    the path is that of the manifest, which names files beside it.

    Read is at most: a file of 4 GiB, tensors of 4 GiB and 20,000 of them, a pickle of 16 MiB and a
    million operations. Memory stays below two times the file's bytes and 256 MiB.

    Args:
      path: of the file.

    Returns:
      Name -> array, of float16, bfloat16 (of ml_dtypes), float32, float64, integers or bools.
      Arrays of a file of PyTorch are read-only views, and those that shared memory do so.

    Raises:
      UserError: the file cannot be read: missing, of another kind, damaged, too large, or it asks
        for something that weights have no need of. The message names it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size, path.parent)
    except UserError as error:
        raise UserError(f"weights file {path}: {error}") from error
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else error.strerror
        raise UserError(
            f"weights file {path}: {reason}; expected a file of PyTorch (.pth, .pth.tar) or "
            "safetensors"
        ) from error
    except ValueError as error:  # a name with a null character
        raise UserError(f"weights file {path}: {error}") from error


def _read(file: BinaryIO, size: int, folder: Path) -> dict[str, np.ndarray]:
    if size > MAX_BYTES:
        raise UserError(f"it has {size:,} bytes; at most {MAX_BYTES:,} are read")
    start = file.read(512)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _torch_tensors(torch_files.read_zip(file, size))
    if start.startswith(torch_files.LEGACY_START):
        return _torch_tensors(torch_files.read_legacy(file, size))
    if start[8:9] == b"{":
        return _read_safetensors(file, size)
    if is_manifest(start) and size <= MAX_MANIFEST_BYTES:
        return read_manifest(file.read(), folder, MAX_BYTES)
    raise UserError(_describe(start))


def _torch_tensors(contents: torch_files.Contents) -> dict[str, np.ndarray]:
    tree, read, byteorder = contents
    tensors = _find_state_dict(tree)
    _check_sizes({name: tensor.nbytes for name, tensor in tensors.items()})
    storages = read(tensors.values())
    return {
        name: view(tensor, storages[tensor.storage.key], byteorder)
        for name, tensor in tensors.items()
    }


def _find_state_dict(tree: Any) -> dict[str, Tensor]:
    """The state dict, which may be in a dict: tensors by their names."""
    if type(tree) is not dict:
        raise UserError(f"it holds {shown(tree)}; expected a dict of tensors")
    for wrapper in _WRAPPERS:
        if type(tree.get(wrapper)) is dict:
            tree = tree[wrapper]
            break
    tensors = {
        name: value
        for name, value in tree.items()
        if type(value) is Tensor and isinstance(name, str)
    }
    if not tensors:
        names = ", ".join(shown(name) for name in list(tree)[:5] if isinstance(name, str))
        raise UserError(
            f"it holds no tensors where they are looked for: its dict has {names or 'no names'}. "
            f"Expected names of tensors, or a dict of them under {', '.join(_WRAPPERS)}"
        )
    return tensors


def _check_sizes(sizes: Mapping[str, int]) -> None:
    if len(sizes) > MAX_TENSORS:
        raise UserError(f"it has {len(sizes):,} tensors; at most {MAX_TENSORS:,} are read")
    if (total := sum(sizes.values())) > MAX_BYTES:
        raise UserError(f"its tensors have {total:,} bytes; at most {MAX_BYTES:,} are read")


def _read_safetensors(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(_MAX_HEADER_BYTES, size - 8):
        raise UserError(
            f"it begins as a safetensors file whose header has {length:,} bytes; the file has "
            f"{size:,}, and a header at most {_MAX_HEADER_BYTES:,}. It is cut short or damaged: "
            "get it again"
        )
    file.seek(0)
    try:
        entries = safetensors.deserialize(file.read())
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        raise UserError(
            f"it is a safetensors file that is cut short or damaged ({error}); get it again"
        ) from error
    _check_sizes({name: len(entry["data"]) for name, entry in entries})
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise UserError(f"its tensor {shown(name)} is of {entry['dtype']}, not read here")
        dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        arrays[name] = np.frombuffer(entry["data"], dtype.newbyteorder("<")).reshape(entry["shape"])
    return arrays


def _describe(start: bytes) -> str:
    """Says what a file is that is not read, and what to do."""
    expected = "Expected a file of PyTorch (.pth, .pth.tar) or safetensors"
    if not start:
        return f"it is empty. {expected}"
    for place, mark, meaning in _OTHER_KINDS:
        if start[place:].startswith(mark):
            return f"it {meaning}. {expected}"
    if start.lstrip()[:1] == b"<":
        return f"it is a web page, such as a download's error message: get it again. {expected}"
    if start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5":
        return (
            "it is a pickle that PyTorch did not write, and could hold a program: it is not read. "
            f"{expected}"
        )
    return f"it is of no kind known here; it begins with the bytes {start[:8].hex(' ')}. {expected}"
