"""Weights files are read by what is in them, and say what is wrong with them."""

import io
import json
import re
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from dmfer_jax.errors import UserError
from dmfer_jax.weights import reading
from dmfer_jax.weights.reading import read_weights
from tests.weights.torch_writing import (
    FORMATS,
    Call,
    Name,
    Tensor,
    legacy_bytes,
    write,
    zip_bytes,
    zip_of,
)

FORMAT = pytest.mark.parametrize("kind", FORMATS)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def read(tmp_path, data: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "weights.bin"  # the name says nothing
    path.write_bytes(data)
    return read_weights(path)


def refusal(tmp_path, data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, data)
    assert "weights.bin: " in str(caught.value)
    return str(caught.value)


@FORMAT
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_state_dict_is_found_bare_or_beside_other_things(tmp_path, kind, wrapper):
    state_dict = OrderedDict({"a.weight": Tensor(ROWS), "a.bias": Tensor(ROWS[0])})
    others = {"epoch": 3, "best": 0.5, "args": None, "names": ["x", ("y", True)], "big": 2**40}
    content = state_dict if wrapper is None else {**others, wrapper: state_dict}
    found = read(tmp_path, FORMATS[kind](content))
    assert list(found) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(found["a.weight"], ROWS)
    np.testing.assert_array_equal(found["a.bias"], ROWS[0])


@FORMAT
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "u1", "?"])
def test_types_stay_as_they_are(tmp_path, kind, dtype):
    numbers = np.array([0, 1, 3], dtype)
    found = read(tmp_path, FORMATS[kind]({"x": Tensor(numbers)}))["x"]
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers)


@FORMAT
def test_tensors_that_share_a_storage_are_views_of_it(tmp_path, kind):
    content = {
        "whole": Tensor(ROWS),
        "transposed": Tensor(ROWS, 0, (4, 3), (1, 4)),
        "corner": Tensor(ROWS, 5, (2, 2), (4, 1)),
        "every other": Tensor(ROWS, 1, (3,), (2,)),
        "number": Tensor(ROWS, 11, (), ()),
        "nothing": Tensor(ROWS, 12, (0, 5), (5, 1)),
    }
    data = FORMATS[kind](content)
    found = read(tmp_path, data)
    np.testing.assert_array_equal(found["transposed"], ROWS.T)
    np.testing.assert_array_equal(found["corner"], ROWS[1:, 1:3])
    np.testing.assert_array_equal(found["every other"], [1, 3, 5])
    assert found["number"] == 11
    assert found["nothing"].shape == (0, 5)
    assert np.shares_memory(found["whole"], found["corner"])
    assert data.count(ROWS.tobytes()) == 1


def test_parts_of_a_storage_of_the_old_format_are_read(tmp_path):
    # Before PyTorch 0.4 a slice could be a storage: (its key, its first number, how many).
    whole = legacy_bytes({"row": Tensor(ROWS, 0, (4,), (1,))})
    none_there = b"K\x0cNtq"  # the end of the reference: 12 numbers, no part
    changed = whole.replace(none_there, b"K\x0c(U\x011K\x04K\x04ttq")
    assert changed != whole
    np.testing.assert_array_equal(read(tmp_path, changed)["row"], ROWS[1])


def test_bytes_in_the_other_order_are_turned(tmp_path):
    found = read(tmp_path, zip_bytes({"x": Tensor(ROWS)}, order="big"))["x"]
    np.testing.assert_array_equal(found, ROWS)
    assert "middle" in refusal(tmp_path, zip_bytes({"x": Tensor(ROWS)}, order="middle"))


def test_safetensors_are_read(tmp_path):
    arrays = {"a.weight": ROWS, "n": np.array(7), "h": ROWS.astype(np.float16)}
    found = read(tmp_path, safetensors.numpy.save(arrays, {"made": "here"}))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_bfloat16_is_read(tmp_path):
    numbers = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    raw = json.dumps(header).encode()
    data = struct.pack("<Q", len(raw)) + raw + numbers.tobytes()
    np.testing.assert_array_equal(read(tmp_path, data)["x"], numbers)
    halves = zip_bytes({"x": Tensor(numbers.view(np.float16))})
    brains = zip_of(
        {
            name: zip_entry(halves, name).replace(b"HalfStorage", b"BFloat16Storage")
            for name in ("data.pkl", "data/0")
        }
    )
    np.testing.assert_array_equal(read(tmp_path, brains)["x"], numbers)


def zip_entry(data: bytes, name: str) -> bytes:
    return zipfile.ZipFile(io.BytesIO(data)).read(f"archive/{name}")


def test_harmless_names_beside_the_tensors_are_no_obstacle(tmp_path):
    number = Call(
        "numpy.core.multiarray.scalar", (Call("numpy.dtype", ("f8", False, True)), "xxxxxxxx")
    )
    content = {
        "best": number,
        "device": Call("torch.device", ("cuda", 0)),
        "type": Name("torch.float32"),
        "size": Call("torch.Size", ((3, 4),)),
        "milestones": Call("collections.Counter", ({30: 1},)),
        "state": Call("collections.defaultdict", (Name("__builtin__.dict"),)),
        "state_dict": {"x": Call("torch._utils._rebuild_parameter", (Tensor(ROWS), True, None))},
    }
    assert list(read(tmp_path, zip_bytes(content))) == ["x"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>Quota exceeded", "web page"),
        (b"\n  <html>", "web page"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x20\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"x.pth".ljust(257, b"\0") + b"ustar\x0000", "tar archive"),
        (b"\x80\x04}.", "a pickle that PyTorch did not write"),
        (b"\x08\x07\x12\x07pytorch", "known"),
        (b"words", "77 6f 72 64 73"),
        (zip_of({"constants.pkl": b"", "code/a.py": b"", "data.pkl": b""}), "TorchScript"),
        (zip_of({"a.npy": b""}, ""), "NumPy arrays"),
        (zip_of({"weights.pth": b""}, ""), "0 entries '<name>/data.pkl'.*unpack"),
    ],
    ids=range(15),
)
def test_other_kinds_of_files_are_named_with_what_to_do(tmp_path, data, expected):
    message = refusal(tmp_path, data)
    assert re.search(expected, message), message


def test_missing_file_and_folder_are_named(tmp_path):
    for path, expected in ((tmp_path / "no.pth", "No such file"), (tmp_path, "it is a folder")):
        with pytest.raises(UserError, match=expected) as caught:
            read_weights(path)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError):
        read_weights("a\0b")


@FORMAT
def test_file_without_tensors_says_what_it_has(tmp_path, kind):
    assert "'net', 'epoch'" in refusal(tmp_path, FORMATS[kind]({"net": {}, "epoch": 3}))
    assert "expected a dict" in refusal(tmp_path, FORMATS[kind]([1]))


@pytest.mark.parametrize("kind", [*FORMATS, "safetensors"])
def test_file_cut_anywhere_is_refused(tmp_path, kind):
    if kind == "safetensors":
        data = safetensors.numpy.save({"x": ROWS})
    else:
        data = FORMATS[kind]({"x": Tensor(ROWS)})
    for length in {*range(0, len(data), 7), len(data) - 1}:
        refusal(tmp_path, data[:length])


def test_every_flipped_bit_of_the_numbers_in_an_archive_is_noticed(tmp_path):
    data = zip_bytes({"x": Tensor(ROWS)})
    begin = data.index(ROWS.tobytes())
    for index in range(begin, begin + ROWS.nbytes, 5):
        damaged = bytearray(data)
        damaged[index] ^= 1 << index % 8
        assert "damaged" in refusal(tmp_path, bytes(damaged))


def test_limits_are_kept(tmp_path, monkeypatch):
    data = zip_bytes({"x": Tensor(ROWS), "y": Tensor(ROWS)})
    monkeypatch.setattr(reading, "MAX_TENSORS", 1)
    assert "2 tensors" in refusal(tmp_path, data)
    monkeypatch.setattr(reading, "MAX_TENSORS", 2)
    monkeypatch.setattr(reading, "MAX_BYTES", len(data))
    assert len(read(tmp_path, data)) == 2
    monkeypatch.setattr(reading, "MAX_BYTES", len(data) - 1)
    assert f"it has {len(data):,} bytes" in refusal(tmp_path, data)


def test_tensors_that_share_everything_cannot_claim_more_than_the_limit(tmp_path, monkeypatch):
    numbers = np.zeros(10_000, np.float32)
    data = zip_bytes({str(index): Tensor(numbers) for index in range(20)})
    monkeypatch.setattr(reading, "MAX_BYTES", 100_000)
    assert "its tensors have 800,000 bytes" in refusal(tmp_path, data)


def test_file_on_disk_is_read_by_its_name_too(tmp_path):
    path = write(tmp_path / "x.pth", {"x": ROWS})
    np.testing.assert_array_equal(read_weights(str(path))["x"], ROWS)


def layout(offset: Any, shape: Any, strides: Any) -> bytes:
    return zip_bytes({"x": Tensor(ROWS, offset, shape, strides)})


@pytest.mark.parametrize(
    "data",
    [
        layout(1, (3, 4), (4, 1)),  # the last number lies behind the storage
        layout(0, (3, 4), (5, 1)),
        layout(13, (), ()),
        layout(0, (1000, 1000), (0, 0)),  # one number a million times
        layout(0, (13,), (0,)),
        layout(0, (2**40, 2**40), (0, 0)),
        layout(0, (-1,), (1,)),
        layout(0, (3,), (-1,)),
        layout(-1, (3,), (1,)),
        layout(0, (2**70, 0), (1, 1)),
        layout(0, (3, 4), (1,)),
        layout(0, (True,), (1,)),
        layout(0, (1.0,), (1,)),
        layout(0, (1,) * 17, (1,) * 17),
    ],
    ids=range(14),
)
def test_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, data):
    assert "tensor" in refusal(tmp_path, data)
