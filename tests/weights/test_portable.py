"""Portable files hold the network and what it means, and anyone reads them."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from dmfer_jax.data import preprocessing
from dmfer_jax.data.augment import normalize
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.weights import portable
from dmfer_jax.weights.portable import load_portable, save_portable
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict
from tests.weights.portable_files import LABELS, MANIFEST, MODEL, OPTIONS, SIZE, draw


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    return draw()


@pytest.fixture(scope="module")
def saved(variables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portable") / "model.safetensors"
    save_portable(path, variables, MANIFEST)
    return path


def test_there_and_back_is_the_same(saved, variables):
    manifest, found = load_portable(saved)
    assert manifest == MANIFEST
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_tensors_are_the_state_dict_and_the_same_network_gives_the_same_bytes(
    saved, variables, tmp_path
):
    found = safetensors.numpy.load_file(saved)
    expected = to_state_dict(variables)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    save_portable(tmp_path / "again.safetensors", variables, MANIFEST)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_others_may_read_it_as_any_file(saved, tmp_path):
    (tmp_path / "any").write_bytes(b"")
    assert saved.stat().st_mode == (tmp_path / "any").stat().st_mode


READER = """
import sys
blocked = ("jax", "jaxlib", "flax", "orbax", "optax", "torch", "dmfer_jax", "ml_collections")
sys.modules.update(dict.fromkeys(blocked))  # None: cannot be imported
import hashlib, json
import numpy as np
from safetensors import safe_open

with safe_open(sys.argv[1], "numpy") as file:
    manifest = json.loads(file.metadata()["dmfer"])
    tensors = {name: file.get_tensor(name) for name in file.keys()}
digest = manifest.pop("sha256")
text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
assert hashlib.sha256(text.encode()).hexdigest() == digest
assert tensors.keys() == manifest["tensors"].keys()
for name, said in manifest["tensors"].items():
    assert list(tensors[name].shape) == said["shape"]
    assert hashlib.sha256(tensors[name].tobytes()).hexdigest() == said["sha256"]
pixels = np.load(sys.argv[2]).astype(np.float32)
steps = manifest["preprocessing"]
images = (pixels / steps["divide_by"] - steps["mean"]) / steps["std"]
np.savez(sys.argv[3], images=images.astype(np.float32), **{"t:" + k: v for k, v in tensors.items()})
print(json.dumps(manifest["labels"]))
"""


@pytest.fixture(scope="module")
def read_elsewhere(saved, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Pixels, and what a program with NumPy and safetensors alone makes of them and the file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)
    np.save(folder / "pixels.npy", pixels)
    places = [str(saved), str(folder / "pixels.npy"), str(folder / "read.npz")]
    done = subprocess.run(
        [sys.executable, "-c", READER, *places], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert tuple(json.loads(done.stdout)) == LABELS
    read = np.load(folder / "read.npz")
    tensors = {name[2:]: read[name] for name in read.files if name.startswith("t:")}
    return pixels, read["images"], tensors


def test_numpy_and_safetensors_alone_read_it_and_the_logits_are_the_same(read_elsewhere, variables):
    pixels, images, tensors = read_elsewhere
    apply = jax.jit(MODEL.apply)
    expected: Any = apply(variables, normalize(jnp.asarray(pixels)))
    found: Any = apply(from_state_dict(tensors), images)
    # The documented order of operations may round once more.
    np.testing.assert_allclose(images, normalize(jnp.asarray(pixels)), atol=1e-6)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)


def test_pytorch_loads_it_into_the_twin_and_the_logits_are_the_same(
    saved, read_elsewhere, variables
):
    torch = pytest.importorskip("torch", reason="PyTorch's side needs the torch extra")
    from safetensors.torch import load_file

    twin: Any = pytest.importorskip("dmfer_jax.pytorch.model")
    model = twin.Dmfer(3, channels=1, **OPTIONS).eval()
    state_dict = load_file(str(saved))
    missing, unexpected = model.load_state_dict(state_dict, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    pixels, images, _ = read_elsewhere
    with torch.no_grad():
        found = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    expected: Any = jax.jit(MODEL.apply)(variables, normalize(jnp.asarray(pixels)))
    np.testing.assert_allclose(found.logits.numpy(), expected.logits, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_documented_numbers_are_those_of_the_network(channels):
    said = preprocessing.describe(112, channels)
    pixels = np.arange(256, dtype=np.uint8)[None, :, None, None].repeat(channels, axis=-1)
    found = (pixels / said["divide_by"] - said["mean"]) / said["std"]
    np.testing.assert_allclose(found, normalize(jnp.asarray(pixels)), atol=1e-6)
    assert said["colour"] == {1: "grey", 3: "RGB"}[channels]


def test_largest_network_leaves_room_in_the_header(tmp_path):
    model = Dmfer(8, backbone="resnet50", depthwise=True, learned_centers=True)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    # The tensors' number and names are what the header grows with, so each has one value.
    small = jax.tree.map(lambda leaf: np.zeros((1,) * leaf.ndim, np.float32), shapes)
    for name in ("kernel", "bias"):
        head = small["params"]["head"][name]
        small["params"]["head"][name] = np.repeat(head, 8, axis=-1)
    small["params"]["centers"] = np.zeros((8, 1), np.float32)
    manifest = dataclasses.replace(MANIFEST, labels=tuple("abcdefgh"))
    save_portable(tmp_path / "large.safetensors", small, manifest)
    size = (tmp_path / "large.safetensors").stat().st_size
    assert size < portable.LARGEST_HEADER / 10


def test_network_that_diverged_or_has_other_classes_is_not_written(variables, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("the older one")
    broken = jax.tree.map(np.copy, variables)
    broken["params"]["head"]["bias"][1] = np.inf
    with pytest.raises(UserError, match=r"'head.bias' has values that are not finite"):
        save_portable(path, broken, MANIFEST)
    with pytest.raises(UserError, match="2 labels"):
        save_portable(path, variables, dataclasses.replace(MANIFEST, labels=("a", "b")))
    assert path.read_text() == "the older one"
    assert list(tmp_path.iterdir()) == [path]
