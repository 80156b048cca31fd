"""Weights of TensorFlow.js: what is read of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.weights.face import FACE_WEIGHTS, translate
from dmfer_jax.weights.manifest import list_files
from dmfer_jax.weights.reading import read_weights

PLAIN = {"name": "b", "shape": [2], "dtype": "float32"}
BYTES = {
    "name": "a",
    "shape": [2, 2],
    "dtype": "float32",
    "quantization": {"dtype": "uint8", "scale": 0.5, "min": -3},
}
WORDS = {**BYTES, "name": "c", "quantization": {"dtype": "uint16", "scale": 0.25, "min": 1.0}}
DATA = bytes([0, 1, 2, 255]) + np.array([1.5, -2], "<f4").tobytes()


def write(folder: Path, manifest: Any, **files: bytes) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = folder / "weights_manifest.json"
    path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return path


def test_tensors_lie_end_to_end_in_the_files_of_their_group(tmp_path):
    words = np.array([[0, 4], [65535, 1]], "<u2").tobytes()
    groups = [
        {"paths": ["one", "two"], "weights": [BYTES, PLAIN]},
        {"paths": ["three"], "weights": [WORDS]},
    ]
    tensors = read_weights(write(tmp_path, groups, one=DATA[:5], two=DATA[5:], three=words))
    assert {name: tensor.dtype for name, tensor in tensors.items()} == dict.fromkeys(
        "abc", np.float32
    )
    np.testing.assert_array_equal(tensors["a"], [[-3, -2.5], [-2, 124.5]])
    np.testing.assert_array_equal(tensors["b"], [1.5, -2])
    np.testing.assert_array_equal(tensors["c"], [[1, 2], [16384.75, 1.25]])


@pytest.mark.parametrize("part", ["conv/filters", "conv/bias", "scale/weights"])
def test_face_network_of_other_shapes_is_refused(part):
    tensors = dict(read_weights(FACE_WEIGHTS))
    tensors[f"conv32_down/{part}"] = np.zeros(5, np.float32)
    with pytest.raises(UserError, match=r"conv32_down is no convolution with a scale: .*\(5,\)"):
        translate(tensors)


def test_whole_number_that_no_machine_has_is_refused(tmp_path):
    path = write(tmp_path, json.dumps([{"paths": [], "weights": [], "x": 10**30}]))
    with pytest.raises(UserError, match="which is too large"):
        read_weights(path)


def test_the_face_weights_in_this_package_are_all_there():
    tensors = read_weights(FACE_WEIGHTS)
    assert sum(tensor.size for tensor in tensors.values()) == 5_614_592
    assert sum(path.stat().st_size for path in list_files(FACE_WEIGHTS)) < 6.5e6


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        ("[{", "it begins as a manifest of weights, but Expecting"),
        ("[7]", "a int has no 'weights' that is a list"),
        ([{"weights": [PLAIN]}], "has no 'paths' that is a list"),
        ([{"paths": [], "weights": [{"shape": [1]}]}], "has no 'name' that is a str"),
        ([{"paths": ["../one"], "weights": [PLAIN]}], "asks for a file '../one'"),
        ([{"paths": ["/etc/passwd"], "weights": [PLAIN]}], "expected a bare name"),
        ([{"paths": [""], "weights": [PLAIN]}], "cannot be read beside it"),
        (
            [{"paths": ["none"], "weights": [PLAIN]}],
            "none, which cannot be read beside it: No such",
        ),
        ([{"paths": ["one"], "weights": [BYTES]}], "need 4 bytes, and one has more"),
        ([{"paths": ["one"], "weights": [BYTES, PLAIN, WORDS]}], "need 20 bytes, and one has 12"),
        ([{"paths": ["one"], "weights": [PLAIN, PLAIN]}], "need 16 bytes"),
        ([{"paths": ["one"], "weights": [{**PLAIN, "shape": [-1]}]}], "has the shape [-1]"),
        ([{"paths": ["one"], "weights": [{**PLAIN, "shape": [True]}]}], "has the shape [True]"),
        ([{"paths": ["one"], "weights": [{**PLAIN, "shape": [2**40]}]}], "has the shape"),
        (
            [{"paths": ["one"], "weights": [{**PLAIN, "shape": [2**30, 2**30]}]}],
            "tensors have more than",
        ),
        ([{"paths": ["one"], "weights": [{**PLAIN, "dtype": "string"}]}], "is of 'string'"),
        (
            [{"paths": ["one"], "weights": [{**BYTES, "quantization": {"dtype": "float16"}}]}],
            "is of 'float16'; read are float32",
        ),
        (
            [{"paths": ["four"], "weights": [{**BYTES, "quantization": {"dtype": "uint8"}}]}],
            "quantizes by scale = None",
        ),
        (
            [{"paths": ["four", "four"], "weights": [BYTES, BYTES]}],
            "lists the tensor 'a' twice",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_by_its_fault(manifest, found, tmp_path):
    path = write(tmp_path, manifest, one=DATA, four=DATA[:4])
    with pytest.raises(UserError, match=r"weights file .*weights_manifest\.json: ") as error:
        read_weights(path)
    assert found in str(error.value)
