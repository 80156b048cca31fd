"""What a file with a network says of it: the manifest, and the digests that cover the whole file.

Every kind of file that this project writes of a network has one: a JSON object that says what goes
in and what comes out. `tensors` in it has the SHA-256 of each part of the file (of arrays their
bytes, little-endian, in C order). `sha256` is that of the manifest without this key, written as
`json.dumps(manifest, sort_keys=True, separators=(",", ":"))`, and so covers the parts as well.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.plain_json import to_plain
from dmfer_jax.weights import strict_json

VERSION = 1

_MOST_PIXELS = 4096  # along a side


@dataclass(frozen=True)
class Manifest:
    """What a network's weights mean.

    Attributes:
      labels: of the classes, in the order of the logits.
      image_size: height and width that the network takes, in pixels.
      channels: 3 (RGB) or 1 (grey).
      preprocessing: how a picture becomes the network's input (`data.preprocessing.describe`).
      model: the network's options, as `models.dmfer.Dmfer` takes them.
      training: dataset, protocol, splits, step, epoch and how it was chosen; and began_on, what the
        weights that it began with were trained on, as of `trained_on`, if anything is known.
      scores: on the validation split; None where it was not scored.
      code_version: of this package.
      licence: of the weights, for a model card; "" where nothing was said.
      notes: for a model card.
    """

    labels: tuple[str, ...]
    image_size: int
    channels: int
    preprocessing: Mapping[str, Any]
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    scores: Mapping[str, Any] | None
    code_version: str
    licence: str = ""
    notes: str = ""


def trained_on(training: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns {dataset: its splits} of what a manifest, perhaps a stranger's, says of training."""
    before = training.get("began_on")
    said = [*before.items()] if isinstance(before, Mapping) else []
    seen: dict[str, list[str]] = {}
    for dataset, splits in [*said, (training.get("dataset"), training.get("train_splits"))]:
        if isinstance(dataset, str) and isinstance(splits, list):
            names = [*seen.get(dataset, []), *map(str, splits)]
            seen[dataset] = list(dict.fromkeys(names))
    return seen


def seal(
    manifest: Manifest,
    kind: str,
    tensors: Mapping[str, np.ndarray],
    **more: Any,
) -> dict[str, Any]:
    """Returns a manifest as it is written into a file, with the digests that cover the file.

    Args:
      manifest: of the network.
      kind: of the file, such as `portable.FORMAT`.
      tensors: what the file holds beside it.
      **more: fields that this kind of file has, too.

    Raises:
      UserError: a field is not what it must be.
    """
    for name, text in (("licence", manifest.licence), ("notes", manifest.notes)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"the {name} {text!r:.60} is no text in UTF-8") from None
    described = to_plain(dataclasses.asdict(manifest))
    described = {"format": kind, "version": VERSION, **described, **more}
    described["tensors"] = {name: describe(array) for name, array in sorted(tensors.items())}
    described["sha256"] = _digest(described)
    _check_fields(described, more)
    return described


def unseal(described: Mapping[str, Any], kind: str, more: Iterable[str] = ()) -> Manifest:
    """Returns the manifest that `seal` made ready, once it is known to be whole.

    Args:
      described: what was read.
      kind: of the file.
      more: names of fields that this kind of file has, too.

    Raises:
      ValueError: it is of another format or version, or damaged. The message is the reason alone.
    """
    found, version = described.get("format"), described.get("version")
    if found != kind:
        raise ValueError(f"found the format {found!r:.60}")
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"found version {version!r:.20} of the format, where this release of dmfer-jax reads "
            f"version {VERSION}: install the release that wrote it"
        )
    if described.get("sha256") != _digest(described):
        raise ValueError("the manifest is damaged: its digest is another")
    _check_fields(described, more)
    fields = {field.name: described[field.name] for field in dataclasses.fields(Manifest)}
    return Manifest(**{**fields, "labels": tuple(fields["labels"])})


def check_digest(described: Mapping[str, Any], name: str, array: np.ndarray) -> None:
    """Checks that what a file holds is what its manifest says.

    Raises:
      ValueError: it is another, and so the file is damaged.
    """
    if described["tensors"].get(name) != describe(array):
        raise ValueError(f"{name[:80]!r} is damaged: its digest is another")


_TEXT = "text"
_FIELDS: dict[str, tuple[type, str]] = {
    "format": (str, _TEXT),
    "version": (int, "a whole number"),
    "labels": (list, "a list of texts"),
    "image_size": (int, "a whole number"),
    "channels": (int, "a whole number"),
    "preprocessing": (dict, "an object"),
    "model": (dict, "an object"),
    "training": (dict, "an object"),
    "scores": (dict, "an object, or null"),
    "code_version": (str, _TEXT),
    "licence": (str, _TEXT),
    "notes": (str, _TEXT),
    "tensors": (dict, "an object"),
    "sha256": (str, _TEXT),
}


def _check_fields(described: Mapping[str, Any], more: Iterable[str]) -> None:
    """Refuses a manifest whose fields are not those of its version."""
    expected_fields = {*_FIELDS, *more}
    missing, unknown = expected_fields - described.keys(), described.keys() - expected_fields
    if missing or unknown:
        raise UserError(
            f"the manifest lacks {some(missing)} and has the unknown fields {some(unknown)}"
        )
    for name, (kind, expected) in _FIELDS.items():
        value = described[name]
        if type(value) is not kind and not (name == "scores" and value is None):
            raise UserError(f"the manifest's {name} is {value!r:.60}; expected {expected}")
    labels = described["labels"]
    if not all(isinstance(label, str) and label.strip() for label in labels):
        raise UserError(f"the manifest's labels are {labels!r:.80}; expected texts")
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UserError(
            f"the manifest's labels are {labels!r:.80}; expected two or more, each once"
        )
    if not 1 <= described["image_size"] <= _MOST_PIXELS:
        raise UserError(
            f"the manifest's image_size is {described['image_size']!r:.40}; expected 1 to "
            f"{_MOST_PIXELS} pixels"
        )
    if described["channels"] not in (1, 3):
        raise UserError(f"the manifest's channels are {described['channels']!r:.40}; expected 1, 3")


def describe(array: np.ndarray) -> dict[str, Any]:
    """Returns what a manifest says of an array: `shape`, and `sha256` of its bytes."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {"shape": list(array.shape), "sha256": hashlib.sha256(little.tobytes()).hexdigest()}


def _digest(described: Mapping[str, Any]) -> str:
    """Returns the digest of a manifest, whether or not it has one already."""
    rest = {name: value for name, value in described.items() if name != "sha256"}
    return hashlib.sha256(strict_json.canonical(rest)).hexdigest()


def some(names: Any) -> str:
    """Returns the first of some names, and how many there are."""
    found = sorted(map(str, names))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (", ".join(repr(name[:80]) for name in found[:3]) or "none") + more
