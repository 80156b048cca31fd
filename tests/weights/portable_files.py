"""A tiny network's portable file, and the ways to change one."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from dmfer_jax.data import preprocessing
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.weights.portable import Manifest
from tests.models.variables import draw_variables

SIZE = 16
LABELS = ("happy", "sad", "traurig, \u00e4u\u00dferst")
OPTIONS: dict[str, Any] = {
    "stem": "small",
    "stem_stride": 2,
    "width": 0.125,
    "embedding": 16,
    "heads": 2,
    "learned_centers": True,
}
MODEL = Dmfer(3, **OPTIONS)
MANIFEST = Manifest(
    labels=LABELS,
    image_size=SIZE,
    channels=1,
    preprocessing=preprocessing.describe(SIZE, 1),
    model=OPTIONS,
    training={"dataset": "folder/mine", "epoch": 1.5},
    scores=None,
    code_version="0.1.0",
    licence="CC-BY-4.0",
)


def draw() -> dict[str, Any]:
    """Returns random weights of the network."""
    return draw_variables(MODEL, jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32))


def split_file(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the bytes of its tensors."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_file(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def digest(manifest: dict[str, Any]) -> str:
    """What a manifest's `sha256` must be, as the format says."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(
        json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def rewrite(saved: Path, path: Path, changes: dict[str, Any], removed: str = "") -> Path:
    """A file with another manifest that is sound in itself: its digest is made anew."""
    header, data = split_file(saved)
    manifest = {**json.loads(header["__metadata__"]["dmfer"]), **changes}
    manifest.pop(removed, None)
    if "sha256" not in changes and removed != "sha256":
        manifest["sha256"] = digest(manifest)
    header["__metadata__"]["dmfer"] = json.dumps(manifest)
    return join_file(path, header, data)
