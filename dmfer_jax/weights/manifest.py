"""Reads the weights of a TensorFlow.js model: a manifest in JSON beside files of bytes.

The manifest lists groups of files and the tensors that lie in them, end to end. A tensor is
float32, or it is quantized: whole numbers q that stand for q * scale + min.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.weights import strict_json
from dmfer_jax.weights.pickle_machine import shown

MAX_MANIFEST_BYTES = 4 * 2**20

_QUANTIZED: dict[str, Any] = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}


def is_manifest(start: bytes) -> bool:
    """Whether a file that begins so is one; a brace behind eight bytes is safetensors' header."""
    return start[8:9] != b"{" and start.lstrip()[:1] == b"["


def read_manifest(text: bytes, folder: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """Returns the tensors that a manifest lists.

    Args:
      text: of the manifest, of at most `MAX_MANIFEST_BYTES`.
      folder: where its files lie.
      max_bytes: of all tensors together, in float32.

    Returns:
      Name -> float32 array.

    Raises:
      UserError: the manifest is damaged, a file is missing or of another size than the manifest's
        tensors need, or a tensor is of a type that is not read. The message does not name the
        manifest.
    """
    try:
        groups: list[Any] = strict_json.parse(text)  # the text begins with a bracket
    except ValueError as error:
        raise UserError(f"it begins as a manifest of weights, but {error}; get it again") from error
    tensors: dict[str, np.ndarray] = {}
    for group in groups:
        entries, paths = _field(group, "weights", list), _field(group, "paths", list)
        sizes = [_measure(entry) for entry in entries]
        left = max_bytes - sum(tensor.nbytes for tensor in tensors.values())
        if 4 * sum(math.prod(_field(entry, "shape", list)) for entry in entries) > left:
            raise UserError(f"its tensors have more than {max_bytes:,} bytes")
        data = _read_files(paths, folder, sum(sizes))
        offset = 0
        for entry, size in zip(entries, sizes, strict=True):
            name = _field(entry, "name", str)
            if name in tensors:
                raise UserError(f"it lists the tensor {shown(name)} twice")
            tensors[name] = _decode(entry, data[offset : offset + size])
            offset += size
    return tensors


def list_files(path: Path) -> list[Path]:
    """Returns the manifest and the files that it names, which together are the weights.

    Args:
      path: of a manifest that `read_manifest` has read.
    """
    groups = strict_json.parse(path.read_bytes())
    return [path, *(path.with_name(name) for group in groups for name in group["paths"])]


def _field(entry: Any, name: str, kind: type) -> Any:
    """A field of the manifest that must be there and of a type."""
    if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
        raise UserError(
            f"it begins as a manifest of weights, but {shown(entry):.80} has no {name!r} that is a "
            f"{kind.__name__}; get it again"
        )
    return entry[name]


def _stored_type(entry: dict[str, Any]) -> np.dtype:
    """The type in which a tensor lies in the file."""
    name, dtype = _field(entry, "name", str), _field(entry, "dtype", str)
    if "quantization" not in entry and dtype == "float32":
        return np.dtype("<f4")
    stored = _field(_field(entry, "quantization", dict), "dtype", str) if dtype == "float32" else ""
    if stored not in _QUANTIZED:
        raise UserError(
            f"its tensor {shown(name)} is of {(stored or dtype)[:40]!r}; read are float32, and "
            f"float32 quantized to {' or '.join(_QUANTIZED)}"
        )
    return _QUANTIZED[stored]


def _measure(entry: Any) -> int:
    """Bytes of a tensor in the file."""
    shape = _field(entry, "shape", list)
    if len(shape) > 8 or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise UserError(f"its tensor {shown(entry.get('name'))} has the shape {shape!r:.80}")
    return math.prod(shape) * _stored_type(entry).itemsize


def _read_files(names: list[Any], folder: Path, size: int) -> bytes:
    """The group's files, end to end; no more of them than the manifest asks for."""
    data = b""
    for name in names:
        # A bare name: a manifest from elsewhere must not read what lies anywhere else.
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or "\0" in name:
            raise UserError(
                f"it asks for a file {shown(name):.80}; expected a bare name, of a file beside it"
            )
        try:
            with (folder / name).open("rb") as file:
                data += file.read(size + 1 - len(data))
        except OSError as error:
            raise UserError(
                f"its weights lie in {name}, which cannot be read beside it: {error.strerror}; get "
                "both files"
            ) from error
    if len(data) != size:
        found = f"{len(data):,}" if len(data) < size else "more"
        raise UserError(
            f"its tensors need {size:,} bytes, and {', '.join(names):.80} has {found}: it is "
            "damaged or of another model; get both files again"
        )
    return data


def _decode(entry: dict[str, Any], data: bytes) -> np.ndarray:
    numbers = np.frombuffer(data, _stored_type(entry)).reshape(entry["shape"])
    if "quantization" not in entry:
        return numbers
    scale, least = (_number(entry["quantization"], name) for name in ("scale", "min"))
    with np.errstate(over="ignore"):  # what uses the numbers refuses infinity
        return numbers.astype(np.float32) * np.float32(scale) + np.float32(least)


def _number(quantization: dict[str, Any], name: str) -> float:
    value = quantization.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UserError(f"it quantizes by {name} = {value!r:.40}; expected a number")
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"it quantizes by a {name} that is too large") from None
