"""What a file says of its weights holds, and what is wrong is written nowhere."""

import dataclasses
import json

import numpy as np
import pytest

from dmfer_jax import export
from dmfer_jax.errors import UserError
from dmfer_jax.weights import sealing
from dmfer_jax.weights.packaged import packaged_models
from dmfer_jax.weights.portable import load_portable


def test_file_says_what_the_first_weights_had_seen(finished, tmp_path):
    workdir, _ = finished
    record = {"file": "x", "sha256": "y", "trained_on": {"ferplus": ["train"]}}
    (workdir / "initial_weights.json").write_text(json.dumps(record))
    try:
        manifest, _ = export.take_from_run(workdir, "last")
    finally:
        (workdir / "initial_weights.json").unlink()
    assert sealing.trained_on(manifest.training) == {
        "ferplus": ["train"],
        "synthetic_faces/tiny": ["train"],
    }


@pytest.mark.parametrize("training", [{"train_splits": 5}, {"dataset": ["a"], "began_on": [1]}])
def test_a_strangers_file_may_say_anything_of_its_training(training):
    assert sealing.trained_on(training) == {}


@pytest.mark.parametrize("to", ["npz", "stablehlo", "onnx", "safetensors"])
def test_weights_that_are_no_numbers_are_written_in_no_format(tmp_path, to):
    manifest, variables = load_portable(packaged_models()["ferplus-small"])
    variables["params"]["head"]["bias"] = np.full(8, np.nan, np.float32)
    with pytest.raises(UserError, match="not finite"):
        export.write(to, tmp_path / "x", manifest, variables)
    assert list(tmp_path.iterdir()) == []


def test_notes_that_are_no_text_are_refused(tmp_path):
    manifest, variables = load_portable(packaged_models()["ferplus-small"])
    manifest = dataclasses.replace(manifest, notes="caf\udce9")
    with pytest.raises(UserError, match=r"the notes 'caf.*' is no text in UTF-8"):
        export.write("safetensors", tmp_path / "x", manifest, variables)
