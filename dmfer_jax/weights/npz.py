"""A network's weights as a file of arrays that NumPy reads by itself.

Each array has a name such as "params/backbone/stem/conv/kernel", its place in the network in Flax,
and Flax's order of axes (kernels are `[k, k, c, o]`). "manifest" is the manifest (see `sealing`),
the bytes of a JSON text. Nothing is pickled: `numpy.load(path, allow_pickle=False)` reads it all.
"""

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.files import write_atomically
from dmfer_jax.weights import strict_json
from dmfer_jax.weights.sealing import Manifest, check_digest, seal, some, unseal

FORMAT = "dmfer-npz"

_MANIFEST = "manifest"
_MOST_PARTS = 12  # of a name; the network's have up to 6
_LARGEST_MANIFEST = 2**21  # bytes


def save_npz(path: str | os.PathLike[str], manifest: Manifest, variables: Any) -> None:
    """Writes a network as a file of arrays; it is whole or not there, an older one is replaced.

    Args:
      path: where to.
      manifest: of the network.
      variables: its {"params", "batch_stats"}, float32.
    """
    arrays = _flatten(variables)
    described = seal(manifest, FORMAT, arrays)
    text = json.dumps(described, ensure_ascii=False, allow_nan=False).encode()
    everything: dict[str, Any] = {_MANIFEST: np.frombuffer(text, np.uint8), **arrays}
    write_atomically(path, lambda part: np.savez(part, **everything))


def load_npz(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, Any]]:
    """Reads a file of arrays.

    Returns:
      Its manifest, and the variables {"params", "batch_stats"} of float32 arrays.

    Raises:
      UserError: it is no such file, of another version, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_arrays(archive, os.path.getsize(path))
        if _MANIFEST not in arrays:
            raise ValueError("found arrays without a manifest")
        text = arrays.pop(_MANIFEST)
        if text.dtype != np.uint8 or text.size > _LARGEST_MANIFEST:
            raise ValueError(f"the manifest is {text.dtype} {list(text.shape)}; expected bytes")
        described = strict_json.parse_object(text.tobytes())
        manifest = unseal(described, FORMAT)
        if different := described["tensors"].keys() ^ arrays.keys():
            raise ValueError(f"arrays are missing, or are not in the manifest: {some(different)}")
        for name, array in arrays.items():
            check_digest(described, name, array)
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"array {name[:80]!r} is not of finite float32 numbers")
        return manifest, _nest(arrays)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise UserError(
            f"{path}: {error}. Expected a file that `python -m dmfer_jax.export --to=npz` wrote; "
            "export it again, or fetch it again from where it came from"
        ) from None


def _read_arrays(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    """Returns the arrays of an archive; it is no larger in memory than on disk."""
    entries = archive.infolist()
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if len(set(names)) != len(names):
        raise ValueError("it holds an array twice")
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise ValueError("its arrays are compressed, which this format's are not")
    return {
        name: _read_array(name, archive.read(entry))
        for name, entry in zip(names, entries, strict=True)
    }


def _read_array(name: str, content: bytes) -> np.ndarray:
    # Not numpy.load: it makes room for as much as the header claims.
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"array {name[:80]!r} is of a version of NumPy's format not used here")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception:  # a damaged header makes Python's parser raise nearly anything
        raise ValueError(f"array {name[:80]!r} has a damaged header") from None
    data = content[file.tell() :]
    if dtype not in (np.dtype("<f4"), np.dtype("u1")) or fortran:
        raise ValueError(f"array {name[:80]!r} is {dtype}, or lies in Fortran's order")
    if math.prod(shape) * dtype.itemsize != len(data) or len(shape) > 8:
        raise ValueError(f"array {name[:80]!r} has not as many bytes as its header says")
    return np.frombuffer(data, dtype).reshape(shape)


def _flatten(tree: Any, path: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    if not isinstance(tree, Mapping):
        return {"/".join(path): np.ascontiguousarray(tree, "<f4")}
    branches = [_flatten(part, (*path, name)) for name, part in tree.items()]
    return {name: leaf for branch in branches for name, leaf in branch.items()}


def _nest(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parts, last = name.split("/")
        if len(parts) > _MOST_PARTS:
            raise ValueError(f"array {name[:80]!r}... has a name of {len(parts):,} parts")
        branch: Any = tree
        for part in parts:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ValueError(f"array {name[:80]!r} has a name that begins with another's")
        if last in branch:
            raise ValueError(f"array {name[:80]!r} has a name that another's begins with")
        branch[last] = array
    return tree
