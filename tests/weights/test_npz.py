"""Files of arrays: NumPy reads them by itself, and whatever is wrong with one is found."""

import json
import zipfile

import jax
import numpy as np
import pytest

from dmfer_jax import loading
from dmfer_jax.errors import UserError
from dmfer_jax.weights.npz import load_npz, save_npz
from tests.weights.portable_files import MANIFEST, draw


@pytest.fixture(scope="module")
def variables():
    return draw()


@pytest.fixture(scope="module")
def saved(variables, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "model.npz"
    save_npz(path, MANIFEST, variables)
    return path


def test_what_is_read_is_what_was_written(saved, variables):
    manifest, found = load_npz(saved)
    assert manifest == MANIFEST
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_numpy_reads_names_arrays_and_manifest_by_itself(saved, variables):
    with np.load(saved, allow_pickle=False) as file:
        manifest = json.loads(file["manifest"].tobytes())
        np.testing.assert_array_equal(
            file["params/backbone/stem/conv/kernel"],
            variables["params"]["backbone"]["stem"]["conv"]["kernel"],
        )
        assert set(file) == {"manifest", *manifest["tensors"]}
    assert manifest["labels"] == list(MANIFEST.labels)


def test_predictor_is_made_of_it(saved):
    manifest, variables = loading.load_weights(saved)
    assert loading.make_network(manifest).num_classes == 3
    assert set(variables) == {"params", "batch_stats"}


def rewrite(saved, path, **arrays):
    """A file with other arrays; of None without."""
    with np.load(saved) as file:
        given = {**file, **arrays}
    np.savez(path, **{name: array for name, array in given.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"manifest": None}, "arrays without a manifest"),
        ({"manifest": np.zeros(3, np.float32)}, "the manifest is float32"),
        ({"manifest": np.frombuffer(b"{}", np.uint8)}, "found the format None"),
        ({"params/head/bias": None}, "missing.*'params/head/bias'"),
        ({"params/more": np.zeros(3, np.float32)}, "not in the manifest: 'params/more'"),
        ({"params/head/bias": np.zeros(3, np.float32)}, "'params/head/bias' is damaged"),
        ({"params/head/bias": np.zeros(3)}, "is float64"),
        ({"params/head/bias": np.array([{}] * 3)}, "is object"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(saved, tmp_path, arrays, message):
    path = rewrite(saved, tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=rf"bad\.npz: .*{message}.*export it again"):
        load_npz(path)


@pytest.mark.parametrize("place", [0.01, 0.5, 0.8])
def test_changed_byte_is_found(saved, tmp_path, place):
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 1
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.npz: "):
        load_npz(path)


def test_header_that_claims_more_than_there_is_is_refused(saved, tmp_path):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(saved) as file, zipfile.ZipFile(path, "w") as bad:
        for entry in file.infolist():
            content = file.read(entry)
            if entry.filename == "params/head/bias.npy":
                content = content.replace(
                    b"'shape': (3,), }" + b" " * 8, b"'shape': (999999999,), }"
                )
            bad.writestr(entry.filename, content)
    with pytest.raises(UserError, match="not as many bytes"):
        load_npz(path)


def test_packed_and_other_files_are_refused(saved, tmp_path):
    with np.load(saved) as file:
        np.savez_compressed(tmp_path / "packed.npz", **file)
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "short.npz").write_bytes(saved.read_bytes()[:-100])
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=rf"{path.name}: .*export it again"):
            load_npz(path)
    with pytest.raises(UserError, match="No such file"):
        load_npz(tmp_path / "nothing.npz")
