"""A weights file runs nothing, fills no memory and no disk, and does not take forever."""

import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.weights import pickle_machine, torch_files
from dmfer_jax.weights.reading import read_weights
from tests.weights.torch_writing import (
    FORMATS,
    Call,
    Tensor,
    legacy_bytes,
    zip_bytes,
    zip_of,
)

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
FORMAT = pytest.mark.parametrize("kind", FORMATS)


def refusal(tmp_path, data: bytes) -> str:
    path = tmp_path / "hostile.pth"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
    return str(caught.value)


class Runs:
    """Pickled as a call of `os.system`."""

    def __init__(self, target: str):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@FORMAT
def test_program_is_not_run_and_is_named(tmp_path, kind):
    target = tmp_path / "ran"
    data = FORMATS[kind]({"x": Tensor(ROWS), "more": Runs(str(target))})
    assert f"asks for {os.system.__module__}.system" in refusal(tmp_path, data)
    bare = pickle.dumps(Runs(str(target)))
    for entry in (bare, pickle.dumps(Runs(str(target)), 0)):
        refusal(tmp_path, zip_of({"data.pkl": entry}))
        refusal(tmp_path, torch_files.LEGACY_START + entry)
        refusal(tmp_path, entry)
    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "builtins.getattr",
        "__builtin__.exec",
        "torch.hub.load",
        "torch.load",
        "torch._utils._rebuild_qtensor",
        "collections.OrderedDict.fromkeys",
        "numpy.core.multiarray.scalar.__class__",
        "functools.partial",
        "operator.attrgetter",
    ],
)
def test_names_that_weights_do_not_need_are_refused_in_full(tmp_path, name):
    data = zip_bytes({"x": Tensor(ROWS), "more": Call(name, ("1",))})
    assert f"asks for {name}: " in refusal(tmp_path, data)


def test_name_made_on_the_stack_is_checked_as_well(tmp_path):
    # STACK_GLOBAL of texts that are put together from the memo.
    attack = b"\x80\x04\x8c\x08builtins\x94\x8c\x04eval\x94h\x00h\x01\x93\x8c\x011\x85R."
    assert "builtins.eval" in refusal(tmp_path, zip_of({"data.pkl": attack}))
    dotted = b"\x80\x04\x8c\x05torch\x8c\x10Size.__class__.a\x93."
    assert "torch.Size.__class__.a" in refusal(tmp_path, zip_of({"data.pkl": dotted}))


@pytest.mark.parametrize(
    "body",
    [
        b"ctorch\nSize\n}b.",  # BUILD on a name would set its attributes
        b"ctorch\nSize\n)R}b.",  # and on a tuple
        b"]}b.",
        b"(ctorch\nSize\no.",  # OBJ
        b"(itorch\nSize\n.",  # INST
        b"ctorch\nSize\n)}\x92.",  # NEWOBJ_EX
        b"\x82\x01.",  # EXT1, a name by number
        b"ctorch\nFloatStorage\n)R.",  # a type that may be named, not called
        b"K\x01)R.",
        b"]q\x00h\x00)R.",
        b"ctorch\nSize\n]R.",
        b"ctorch\nSize\nK\x05\x85R.",
        b"ctorch\nSize\n(K\x01K\x02K\x03tR.",
        b"}]K\x01s.",  # a list as a key
        b"})K\x01s.",
        b"K\x01Q.",
        b"(U\x07storageK\x01U\x010U\x03cpuK\x01tQ.",
        b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ\xff\xff\xff\xfftQ.",
        b"(U\x07storagectorch\nFloatStorage\n(U\x07storagetU\x03cpuK\x01tQ.",
        b"ctorch._utils\n_rebuild_parameter\n]\x85R.",
        b"ctorch._utils\n_rebuild_tensor\n(K\x01K\x00))tR.",
        b"Ptext\n.",  # PERSID
        b"h\x07.",
        b".",
        b"0.",
        b"t.",
        b"u.",
        b"\x86.",
        b"K",
        b"\xff.",
        b"ctorch\n" + b"S" * 300,
        b"c\xe9\n\xe9\n.",
        b"ctorch\nSize\nctorch\nSize\n\x93.",
    ],
)
def test_operations_reach_nothing_but_the_allowed_constructors(tmp_path, body):
    for protocol in (b"\x80\x02", b"\x80\x04"):
        refusal(tmp_path, zip_of({"data.pkl": protocol + body}))
        refusal(tmp_path, legacy_bytes({})[:40] + protocol + body)


LONG = 2**62


@pytest.mark.parametrize(
    "body",
    [
        b"\x8e" + struct.pack("<Q", LONG),  # BINBYTES8 of 4 EiB
        b"\x8d" + struct.pack("<Q", LONG),
        b"B" + struct.pack("<I", 2**32 - 1),
        b"T" + struct.pack("<I", 2**31),
        b"\x96" + struct.pack("<Q", LONG),
        b"\x8b" + struct.pack("<I", 2**31 - 1),  # LONG4
        b"\x95" + struct.pack("<Q", LONG) + b".",  # a frame of 4 EiB
        b"Nr" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of 4 billion places
        b"]" + b"2a" * 200_000 + b".",  # lists in themselves
        b")" + b"2\x86" * 60_000 + b"}2K\x01s.",  # 2^60000 tuples, for who looks at them all
        b"}(" + b")" + b"2\x86" * 64 + b"K\x01u.",  # and as a key, which would be hashed
        b"(" * 300_000 + b".",
        b"]" * 900_000 + b".",
        b"N0" * 900_000 + b"N.",
        b"]q\x00(" + b"h\x00" * 100_000 + b"e.",
    ],
    ids=range(15),
)
def test_no_memory_is_given_on_a_files_word_and_no_time_wasted(tmp_path, body):
    data = zip_of({"data.pkl": b"\x80\x04" + body})
    began = time.monotonic()
    tracemalloc.start()
    try:
        refusal(tmp_path, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 256 * 2**20
    assert time.monotonic() - began < 30


NUMBERS = [struct.pack("<H", number) for number in range(20_000)]


def test_pickle_of_too_many_operations_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_OPERATIONS", 100)
    body = b"\x80\x02" + b"N0" * 100 + b"}."
    assert "more than 100 operations" in refusal(tmp_path, zip_of({"data.pkl": body}))


@pytest.mark.parametrize(
    ("name", "large"),
    [
        (b"collections\nOrderedDict\n", b"}(" + b"".join(b"M%bN" % n for n in NUMBERS) + b"u"),
        (b"collections\nOrderedDict\n", b"](" + b"".join(b"M%bN\x86" % n for n in NUMBERS) + b"e"),
        (b"torch\nSize\n", b"(" + b"N" * len(NUMBERS) + b"t"),
        (b"torch\nSize\n", b"X" + struct.pack("<I", len(NUMBERS)) + b"x" * len(NUMBERS)),
    ],
    ids=["dict", "pairs", "sizes", "text"],
)
def test_copies_of_one_large_container_do_not_multiply_a_file(tmp_path, name, large):
    copy = b"h\x01h\x02\x85Ra"
    body = b"\x80\x02c" + name + b"q\x010" + large + b"q\x020]" + copy * 400 + b"."
    tracemalloc.start()
    try:
        refusal(tmp_path, zip_of({"data.pkl": body}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


def test_nested_containers_of_a_billion_are_linked_not_copied(tmp_path):
    layers = b"]q\x00(" + b"K\x00" * 10 + b"e"
    for index in range(60):
        get, put = bytes([index]), bytes([index + 1])
        layers += b"0]q" + put + b"(" + (b"h" + get) * 10 + b"e"
    body = b"\x80\x02}q\xc8U\x01x" + layers + b"0Ns."
    assert "no tensors" in refusal(tmp_path, zip_of({"data.pkl": body}))


def test_archive_is_never_unpacked(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    data = zip_bytes({"x": Tensor(ROWS)}, more={"../../../slip": b"x", "/slip": b"x"})
    (folder / "x.pth").write_bytes(data)
    before = set(tmp_path.rglob("*"))
    assert list(read_weights(folder / "x.pth")) == ["x"]
    assert set(tmp_path.rglob("*")) == before
    with zipfile.ZipFile(folder / "x.pth") as archive:
        assert "archive/../../../slip" in archive.namelist()


def test_storage_key_finds_nothing_outside_the_archive(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(ROWS.tobytes())
    data = zip_bytes({"x": Tensor(ROWS)})
    entry = zipfile.ZipFile(io.BytesIO(data)).read("archive/data.pkl")
    escaped = entry.replace(b"X\x01\x00\x00\x000", b"X\x09\x00\x00\x00../secret")
    assert "no entry 'archive/data/../secret'" in refusal(tmp_path, zip_of({"data.pkl": escaped}))


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = zip_of({"data.pkl": b"\x80\x02" + b"N0" * 10**6 + b"}."}, compress=True)
    assert "compressed" in refusal(tmp_path, bomb)
    small = bytearray(zip_bytes({"x": Tensor(ROWS)}))
    directory = small.rindex(b"PK\x01\x02", 0, small.rindex(b"archive/data.pkl"))
    struct.pack_into("<II", small, directory + 20, 2**31, 2**31)  # sizes of the pickle
    assert "at most" in refusal(tmp_path, bytes(small))
    end = small.rindex(b"PK\x05\x06")
    struct.pack_into("<I", small, end + 12, 2**31)  # of the directory
    refusal(tmp_path, bytes(small))


def test_entries_that_lie_in_each_other_cannot_multiply_a_file(tmp_path, monkeypatch):
    content = {str(index): Tensor(np.zeros(4096 + index, np.float32)) for index in range(8)}
    data = zip_bytes(content)
    assert 8 * 16384 < len(data) < 9 * 16384
    honest = torch_files._entry

    def quoted(archive, name, most):
        """As if the eighth entry held the other seven, as in Fifield's zip bomb."""
        length = 8 * 16384 if name.endswith("data/7") else 0
        return honest(archive, name, most - length)

    monkeypatch.setattr(torch_files, "_entry", quoted)
    assert "at most" in refusal(tmp_path, data)


def test_archive_of_very_many_entries_is_refused(tmp_path):
    entries = {str(index): b"" for index in range(60_000)}
    assert "directory" in refusal(tmp_path, zip_of(entries, "archive/" + "x" * 60))


def test_legacy_storages_that_the_pickle_does_not_know_are_refused(tmp_path):
    data = legacy_bytes({"x": Tensor(ROWS)})
    keys = pickle.dumps(["0"], 2)
    for others in (["0", "1"], ["0", "0"], [0], [["0"]], {"0": 1}):
        changed = data.replace(keys, pickle.dumps(others, 2))
        assert changed != data
        assert "list of storages" in refusal(tmp_path, changed)
    assert "not in it" in refusal(tmp_path, data.replace(keys, pickle.dumps([], 2)))
    count = struct.pack("<q", 12)
    for claimed in (2**62, 13, 11, -1):
        refusal(tmp_path, data.replace(count + ROWS.tobytes()[:8], struct.pack("<q", claimed) * 2))


@pytest.mark.parametrize(
    "header",
    [
        b"{" * 100_000,
        b'{"x":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,400000]}}',
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"x":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}}',
        b'{"x":1}',
        b"{}",
    ],
    ids=range(8),
)
def test_damaged_header_of_safetensors_is_refused(tmp_path, header):
    refusal(tmp_path, struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
