"""What a checkpoint says of itself: `checkpoint.json`, with a digest of every array and every file.

A byte that changed on a disk or on the way loads like any other. So each checkpoint holds what its
files and arrays were when it was written, and nothing of it is used before that has been compared.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.weights import strict_json

FORMAT = 2
"""Goes up when what is written can no longer be read by the programs before."""

NAME = "checkpoint.json"
"""Of the file, in the folder of a checkpoint."""

_SHOWN = 5  # differences that a message lists


class Record(NamedTuple):
    """What is known of a checkpoint without reading its arrays.

    Attributes:
      note: JSON values that were saved with it.
      valid_accuracy: what the best checkpoint is chosen by; None within an epoch.
      arrays: {name: {"dtype", "shape", "sha256"}}.
    """

    note: dict[str, Any]
    valid_accuracy: float | None
    arrays: dict[str, dict[str, Any]]


def write_record(
    folder: Path,
    step: int,
    note: Mapping[str, Any],
    valid_accuracy: float | None,
    arrays: dict[str, dict[str, Any]],
) -> None:
    """Writes `checkpoint.json` into a folder that is otherwise complete.

    Args:
      folder: of the checkpoint.
      step: of the state.
      note: JSON values to keep.
      valid_accuracy: what the best checkpoint is chosen by; None within an epoch.
      arrays: of `describe_arrays`.
    """
    files = {
        path.relative_to(folder).as_posix(): _describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {
        "format": FORMAT,
        "step": step,
        "note": dict(note),
        "valid_accuracy": valid_accuracy,
        "arrays": arrays,
        "files": files,
    }
    (folder / NAME).write_text(seal(content), encoding="utf-8")


def read_record(folder: Path) -> Record:
    """Reads what a checkpoint says of itself.

    Args:
      folder: whose name is the step.

    Raises:
      UserError: the file is missing, damaged, of another step or of a newer format.
    """
    content = _read_sealed(folder)
    if isinstance(content, str):
        raise UserError(content)
    names = ("note", "valid_accuracy", "arrays")
    return Record(*(content[name] for name in names))


def find_damage(folder: Path) -> str | None:
    """Returns what is wrong with which file of a checkpoint; None if every file is as written.

    Args:
      folder: whose name is the step.

    Raises:
      UserError: it is of a newer format.
    """
    content = _read_sealed(folder)
    if isinstance(content, str):
        return content
    for name, written in content["files"].items():
        path = folder / name
        try:
            if not path.is_file():
                return f"{path} is missing"
            found = _describe_file(path)
        except OSError as error:
            return f"{path} cannot be read: {error.strerror or error}"
        if found["bytes"] != written["bytes"]:
            return f"{path} has {found['bytes']:,} bytes; {written['bytes']:,} were written"
        if found != written:
            return f"{path} does not hold the bytes that were written (their digests differ)"
    return None


def describe_arrays(state: Any) -> dict[str, dict[str, Any]]:
    """Returns {name: {"dtype", "shape", "sha256"}} of the arrays of a tree.

    Args:
      state: of arrays that each device holds whole; a name is a path such as "params/head/kernel".
        The digest is that of the values in C order.
    """
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        whole = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
        values = np.asarray(jax.device_get(whole), order="C")
        # Any: numpy's annotations know buffers from Python 3.12 on.
        contents: Any = values.reshape(-1).view(np.uint8)
        described[_join(path)] = {
            "dtype": str(values.dtype),
            "shape": list(values.shape),
            "sha256": hashlib.sha256(contents).hexdigest(),
        }
    return described


def compare_shapes(written: Mapping[str, Mapping[str, Any]], like: Any) -> list[str]:
    """Returns what differs between the arrays of a checkpoint and those of a state, one by one.

    Args:
      written: `arrays` of a record.
      like: a state, abstract or not.
    """
    expected = {
        _join(path): f"{leaf.dtype} {list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(like)
    }
    there = {name: f"{array['dtype']} {array['shape']}" for name, array in written.items()}
    differences = [
        f"{name} is {there.get(name, 'missing')} in it and {expected.get(name, 'missing')} by the "
        "config"
        for name in sorted(there.keys() | expected.keys())
        if there.get(name) != expected.get(name)
    ]
    more = len(differences) - _SHOWN
    return differences[:_SHOWN] + ([f"and {more} more differ"] if more > 0 else [])


def _join(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def seal(content: Mapping[str, Any]) -> str:
    """Returns a record as it is written: JSON, then a line with the SHA-256 of all before."""
    text = json.dumps(content, indent=1, allow_nan=False)
    return f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n"


def _read_sealed(folder: Path) -> dict[str, Any] | str:
    """The content of `checkpoint.json`, or what is wrong with that file."""
    path = folder / NAME
    if not path.is_file():
        return f"{path} is missing"
    written = path.read_bytes()
    text, _, digest = written.rstrip(b"\n").rpartition(b"\n")
    try:
        content = strict_json.parse_object(text)
        whole = seal(content).encode() == written
    except ValueError:  # also text that is not UTF-8
        content, whole = {}, False
    if not whole:
        sealed = re.fullmatch(rb"[0-9a-f]{64}", digest)
        return f"{path} is damaged: {'its digest does not fit' if sealed else 'it ends too early'}"
    version = content.get("format")
    if type(version) is int and version > FORMAT:
        raise UserError(
            f"{path} is of format {version}, and this version of dmfer_jax reads formats up to "
            f"{FORMAT}; use the version that wrote it"
        )
    for field, check in _FIELDS.items():
        if field not in content or not check(content[field]):
            return f"{path} is not what this program writes: its {field!r} is missing or wrong"
    if str(content["step"]) != folder.name:
        return f"{path} is of step {content['step']}; its folder is {folder.name}"
    return content


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


def _is_array(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"dtype", "shape", "sha256"}
        and isinstance(value["dtype"], str)
        and isinstance(value["shape"], list)
        and all(type(size) is int for size in value["shape"])
        and _is_digest(value["sha256"])
    )


def _is_file(name: str, value: Any) -> bool:
    """Whether it is a file of the checkpoint's own folder."""
    path = PurePosixPath(name)
    inside = path.name != "" and not path.is_absolute() and ".." not in path.parts
    return (
        inside
        and "\0" not in name
        and isinstance(value, dict)
        and value.keys() == {"bytes", "sha256"}
        and type(value["bytes"]) is int
        and _is_digest(value["sha256"])
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is int and value == FORMAT,
    "step": lambda value: type(value) is int and value >= 0,
    "note": lambda value: isinstance(value, dict),
    "valid_accuracy": lambda value: value is None or type(value) in (int, float),
    "arrays": lambda value: isinstance(value, dict) and all(map(_is_array, value.values())),
    "files": lambda value: (
        isinstance(value, dict) and all(_is_file(name, file) for name, file in value.items())
    ),
}
"""What a record consists of, and what each part looks like."""
