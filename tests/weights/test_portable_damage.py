"""Portable files that are damaged, hostile or of another version are refused by name."""

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from dmfer_jax.errors import UserError
from dmfer_jax.weights import portable, sealing
from dmfer_jax.weights.portable import load_portable, save_portable
from tests.weights.portable_files import MANIFEST, digest, draw, join_file, rewrite, split_file


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portable") / "model.safetensors"
    save_portable(path, draw(), MANIFEST)
    return path


def test_no_flipped_bit_goes_unseen(saved, tmp_path):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    rng = np.random.default_rng(0)
    places = [*range(8 * 8), *rng.integers(64, 8 * (8 + length), 250)]
    places += list(rng.integers(8 * (8 + length), 8 * len(content), 50))
    path = tmp_path / "flipped.safetensors"
    for place in map(int, places):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"flipped\.safetensors"):
            load_portable(path)


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.9999])
def test_file_that_was_cut_is_refused(saved, tmp_path, share):
    content = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut\.safetensors: .*export it again"):
        load_portable(path)


def test_file_that_is_not_there_or_no_file_is_refused(tmp_path):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(UserError, match=f"{path}: found no file"):
            load_portable(path)


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (DEEP, "header cannot be read: it is nested too deeply"),
        (b'{"a":' + b"[" * 30 + b"]" * 30 + b"}", "nested too deeply"),
        (b'{"a":{},"a":{}}', "the key 'a' twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":1e999}', "1e999"),
        (b'{"a":' + b"9" * 5000 + b"}", "header cannot be read"),
        (b"[]", "it is a list and no object"),
        (b"\xff{}", "header cannot be read"),
        (b"{}", "without a manifest"),
        (b'{"__metadata__":{"dmfer":"{}","more":"1"}}', "without a manifest"),
        (b'{"__metadata__":{"dmfer":[]}}', "it is a list and no text"),
        (b'{"__metadata__":{"dmfer":"\\ud800"}}', "manifest cannot be read"),
        (b'{"__metadata__":{"dmfer":"{\\"format\\":NaN}"}}', "manifest cannot be read: it has NaN"),
        (b'{"__metadata__":{"dmfer":"{\\"a\\":1,\\"a\\":2}"}}', "manifest .* the key 'a' twice"),
        (b'{"__metadata__":{"dmfer":"{}"}}', "found the format None"),
    ],
)
def test_hostile_header_is_refused(tmp_path, header, message):
    path = join_file(tmp_path / "bad.safetensors", header, b"")
    with pytest.raises(UserError, match=rf"bad\.safetensors: .*{message}"):
        load_portable(path)


def test_header_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.safetensors"
    for length in (2**63, 2**40, portable.LARGEST_HEADER + 1, 100):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(UserError, match=f"found a header of {length:,} bytes in a file of 10,"):
            load_portable(path)
    with path.open("wb") as file:
        file.truncate(2**32)  # a file with a hole, which takes no room
        file.write(struct.pack("<Q", 2**31))
    with pytest.raises(UserError, match="found a header of 2,147,483,648 bytes"):
        load_portable(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "found the format 'other'"),
        ({"version": 2}, "found version 2 of the format, .* reads version 1: install"),
        ({"version": True}, "found version True"),
        ({"sha256": "0" * 64}, "the manifest is damaged"),
        ({"labels": ["a", "b"]}, "2 labels, a, b, and tensor '(head|centers).*expected a row for"),
        ({"labels": ["a", "b", "a"]}, "expected two or more, each once"),
        ({"labels": ["a", "b", " "]}, "expected texts"),
        ({"labels": "abc"}, "labels is 'abc'; expected a list of texts"),
        ({"image_size": 0}, "image_size is 0; expected 1 to 4096 pixels"),
        ({"image_size": 10**18}, "image_size is 10+"),
        ({"image_size": 112.0}, "image_size is 112.0; expected a whole number"),
        ({"channels": 4}, "channels are 4"),
        ({"scores": []}, r"scores is \[\]; expected an object, or null"),
        ({"licence": None}, "licence is None; expected text"),
        ({"author": "me"}, "unknown fields 'author'"),
    ],
)
def test_manifest_that_makes_no_sense_is_refused(saved, tmp_path, changes, message):
    path = rewrite(saved, tmp_path / "bad.safetensors", changes)
    with pytest.raises(UserError, match=rf"bad\.safetensors: .*{message}"):
        load_portable(path)


@pytest.mark.parametrize("name", ["labels", "preprocessing", "tensors", "code_version"])
def test_manifest_without_a_field_is_refused(saved, tmp_path, name):
    path = rewrite(saved, tmp_path / "bad.safetensors", {}, removed=name)
    with pytest.raises(UserError, match=f"the manifest lacks '{name}'"):
        load_portable(path)


def changed_tensors(saved: Path, path: Path, change: Any) -> Path:
    """A file whose tensors were changed, and whose manifest was not."""
    header, _ = split_file(saved)
    tensors = safetensors.numpy.load_file(saved)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, metadata=header["__metadata__"])
    return path


def test_tensors_that_are_not_those_of_the_manifest_are_refused(saved, tmp_path):
    changes: list[tuple[Any, str]] = [
        (lambda t: t.pop("head.bias"), "tensors are missing: 'head.bias'"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "does not have: 'extra'"),
        (lambda t: t.update({"head.bias": np.zeros(4, np.float32)}), r"the shape \[4\]; the man"),
        (
            lambda t: t.update({"head.bias": np.zeros(3, np.float64)}),
            "'F64'; expected 'F32' or 'F16'",
        ),
        (lambda t: t.update({"head.bias": t["head.bias"][::-1].copy()}), "'head.bias' is damaged"),
    ]
    for change, message in changes:
        path = changed_tensors(saved, tmp_path / "bad.safetensors", change)
        with pytest.raises(UserError, match=rf"bad\.safetensors: .*{message}"):
            load_portable(path)


def test_sound_manifest_of_tensors_that_are_no_network_is_refused(tmp_path):
    """As someone might write on purpose: every digest fits."""
    tensors = {"head.weight": np.zeros((3, 2), np.float32), "head.bias": np.zeros(3, np.float32)}
    base = {
        "format": portable.FORMAT,
        "version": sealing.VERSION,
        **json.loads(json.dumps(dataclasses.asdict(MANIFEST))),
    }

    def write(extra: dict[str, np.ndarray]) -> Path:
        whole = {**tensors, **extra}
        described = {name: sealing.describe(array) for name, array in whole.items()}
        manifest = {**base, "tensors": described}
        manifest["sha256"] = digest(manifest)
        path = tmp_path / "bad.safetensors"
        text = json.dumps(manifest)
        safetensors.numpy.save_file(whole, path, metadata={"dmfer": text})
        return path

    load_portable(write({}))
    hostile = {
        "deep." * 50_000 + "bias": "has a name of",
        "x.y": "'x.y' of shape",
    }
    for name, message in hostile.items():
        with pytest.raises(UserError, match=message):
            load_portable(write({name: np.zeros(1, np.float32)}))
    with pytest.raises(UserError, match="values that are not finite"):
        load_portable(write({"a.bias": np.array([np.nan], np.float32)}))
