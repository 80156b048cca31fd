"""A trained network as one file that needs neither Orbax nor this project to be read.

The file is a safetensors file. Its tensors are the network's variables under PyTorch's names and in
its order of axes (`weights.pytorch`), so that `safetensors.torch.load_file` gives a state dict for
the twin in `dmfer_jax.pytorch`; kernels may be stored in float16. Its metadata have one key,
"dmfer": the manifest, a JSON object that says what goes in and what comes out. It lies inside,
since labels in a file of their own get lost or exchanged, and weights without their labels are
worse than none.

Everything is covered by digests. `tensors` in the manifest has the SHA-256 of each tensor's bytes
(little-endian, C order). `sha256` is that of the manifest without this key, written as
`json.dumps(manifest, sort_keys=True, separators=(",", ":"))`, and so covers the tensors as well.
"""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from dmfer_jax.errors import UserError
from dmfer_jax.files import write_atomically
from dmfer_jax.weights import strict_json
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict
from dmfer_jax.weights.sealing import Manifest, describe, seal, some, unseal

FORMAT = "dmfer-portable"
METADATA_KEY = "dmfer"

LARGEST_HEADER = 2**21
"""Bytes of tensor names, shapes and manifest; ResNet-50's take 109 thousand."""

_LONGEST_NAME = 200  # of a tensor; the network's have up to 40 characters
_STORED = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_BY_CLASS = {"head.weight", "head.bias", "centers"}  # tensors with a row for each class


def save_portable(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    manifest: Manifest,
    *,
    half: bool = False,
) -> None:
    """Writes a network as a portable file; it is whole or not there, an older one is replaced.

    Args:
      path: where to.
      variables: {"params", "batch_stats"}, float32, as `TrainState.eval_variables` gives them.
      manifest: of the network.
      half: stores kernels in float16, which halves the file; they are rounded to 11 bits.

    Raises:
      UserError: a weight is not finite, in float16 if so stored, or the labels do not fit the
        network.
    """
    tensors = to_state_dict(variables)
    check_finite(tensors)
    if half:
        with np.errstate(over="ignore"):  # refused below
            tensors = {
                name: array.astype(np.float16) if array.ndim > 1 else array
                for name, array in tensors.items()
            }
    described = seal(manifest, FORMAT, tensors)
    _check_rows(described["labels"], described["tensors"])
    check_finite({name: array.astype(np.float32) for name, array in tensors.items()})
    text = json.dumps(described, ensure_ascii=False, allow_nan=False)
    # Not save_file: it lets nobody but its owner read the file.
    content = safetensors.numpy.save(tensors, metadata={METADATA_KEY: text})
    write_atomically(path, lambda part: part.write_bytes(content))


def load_portable(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, Any]]:
    """Reads a portable file and checks every byte that means something.

    Args:
      path: of the file. Memory of about twice its size is used.

    Returns:
      Its manifest, and the variables {"params", "batch_stats"} of float32 arrays.

    Raises:
      UserError: it is no portable file, of another version, damaged, or contradicts itself.
    """
    path = Path(path)
    try:
        header = _read_header(path)
        manifest, described = _manifest_of(header)
        tensors = _read_tensors(path, header, described)
        check_finite(tensors)
        variables = from_state_dict(tensors)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path}: {error}. Expected a file that `python -m dmfer_jax.export` wrote; export it "
            "again, or fetch it again from where it came from"
        ) from None
    return manifest, variables


def find_manifest(path: str | os.PathLike[str]) -> Manifest | None:
    """Returns what a portable file says of itself; None of a file that is none, or cannot be read.

    Raises:
      UserError: its manifest is damaged, or of another version.
    """
    path = Path(path)
    try:
        header = _read_header(path)
    except ValueError:
        return None
    if METADATA_KEY not in (header.get("__metadata__") or {}):
        return None
    try:
        return _manifest_of(header)[0]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _read_header(path: Path) -> dict[str, Any]:
    """Returns what stands before the tensors' bytes: {name: dtype, shape, place}, and metadata."""
    if not path.is_file():
        raise ValueError("found no file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if len(start) < 8:
            raise ValueError(f"found {size} bytes, too few for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > min(LARGEST_HEADER, size - 8):
            raise ValueError(
                f"found a header of {length:,} bytes in a file of {size:,}, where at most "
                f"{LARGEST_HEADER:,} make sense"
            )
        text = file.read(length)
    try:
        return strict_json.parse_object(text)
    except ValueError as error:
        raise ValueError(f"the header cannot be read: {error}") from None


def _manifest_of(header: Mapping[str, Any]) -> tuple[Manifest, dict[str, Any]]:
    """Returns the manifest, once it is known to be whole, and as it was written."""
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or set(metadata) != {METADATA_KEY}:
        raise ValueError("found a safetensors file without a manifest of this project")
    text = metadata[METADATA_KEY]
    try:
        if not isinstance(text, str):
            raise ValueError(f"it is a {type(text).__name__} and no text")
        described = strict_json.parse_object(text.encode())
    except ValueError as error:  # text that is no UTF-8 is one, too
        raise ValueError(f"the manifest cannot be read: {error}") from None
    return unseal(described, FORMAT), described


def _read_tensors(
    path: Path, header: Mapping[str, Any], described: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns the tensors, once they are known to be those of the manifest."""
    expected, there = described["tensors"], header.keys() - {"__metadata__"}
    if missing := expected.keys() - there:
        raise ValueError(f"tensors are missing: {some(missing)}")
    if extra := there - expected.keys():
        raise ValueError(f"found tensors that the manifest does not have: {some(extra)}")
    for name, said in expected.items():
        found = header[name] if isinstance(header[name], dict) else {}
        if str(found.get("dtype")) not in _STORED:
            raise ValueError(
                f"tensor {name[:80]!r} is {found.get('dtype')!r:.20}; expected "
                f"{' or '.join(map(repr, _STORED))}"
            )
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"tensor {name[:80]!r}... has a name of {len(name):,} characters")
        if not _is_description(said):
            raise ValueError(f"the manifest has {said!r:.60} of {name[:80]!r}; expected a digest")
        if found.get("shape") != said["shape"]:
            raise ValueError(
                f"tensor {name[:80]!r} has the shape {found.get('shape')!r:.60}; the manifest has "
                f"{said['shape']!r:.60}"
            )
    _check_rows(described["labels"], expected)
    tensors = {}
    with safetensors.safe_open(path, "numpy") as file:  # refuses places that overlap or leave gaps
        for name, said in expected.items():
            array = file.get_tensor(name)
            if describe(array)["sha256"] != said["sha256"]:
                raise ValueError(f"tensor {name[:80]!r} is damaged: its digest is another")
            tensors[name] = array.astype(np.float32, copy=False)
    return tensors


def _check_rows(labels: Sequence[str], tensors: Mapping[str, Any]) -> None:
    """Refuses labels of another number than the network tells apart."""
    if "head.weight" not in tensors:  # a cosine head has no bias
        raise UserError("tensor 'head.weight' is missing, without which there are no logits")
    for name in tensors.keys() & _BY_CLASS:
        shape = tensors[name]["shape"]
        if not shape or shape[0] != len(labels):
            raise UserError(
                f"there are {len(labels)} labels, {', '.join(labels):.200}, and tensor {name!r} "
                f"has the shape {shape!r:.60}; expected a row for each"
            )


def check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Refuses tensors that are not float32, or hold what is no number.

    Raises:
      UserError: naming the first one.
    """
    for name, array in tensors.items():
        if array.dtype != np.float32:
            raise UserError(f"tensor {name[:80]!r} is {array.dtype}; expected float32")
        if not np.isfinite(array).all():
            raise UserError(
                f"tensor {name[:80]!r} has values that are not finite: the run that it is of "
                "diverged, and its predictions mean nothing"
            )


def _is_description(said: Any) -> bool:
    """Whether a value of the manifest says of a tensor what `sealing.describe` does."""
    if not isinstance(said, dict) or set(said) != {"shape", "sha256"}:
        return False
    shape = said["shape"]
    return isinstance(shape, list) and all(type(size) is int for size in shape)
