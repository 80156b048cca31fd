"""Fuzzes the reader of PyTorch's and safetensors' weights: whole files, and pickles inside them."""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from hypothesis import strategies as st

from benchmarks.fuzz_inputs import WORDS, edited
from dmfer_jax.weights.reading import read_weights
from tests.weights import torch_writing as writing

_NAMES = (
    b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n", b"collections\nOrderedDict\n",
    b"os\nsystem\n", b"builtins\neval\n", b"numpy\nload\n", b"torch\nload\n",
    b"__builtin__\ngetattr\n",
)  # fmt: skip
_CODES = tuple(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)


def inputs() -> dict[str, st.SearchStrategy[bytes]]:
    """Returns the inputs of both targets."""
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = {
        "state_dict": {
            "module.conv.weight": writing.Tensor(rows),
            "fc.bias": writing.Tensor(rows, 1, (2,), (3,)),
            "bn.num_batches_tracked": writing.Tensor(np.array(7)),
        },
        "epoch": 3,
        "arch": "resnet18",
    }
    zipped, legacy = writing.zip_bytes(content), writing.legacy_bytes(content)
    whole = [zipped, zipped, legacy, legacy, safetensors.numpy.save({"fc.bias": rows})]
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickled = entries["archive/data.pkl"]
    programs = st.lists(st.sampled_from(_pieces()), max_size=30).map(_program)
    mutated = st.builds(_insert, st.just(pickled), st.lists(_inserted(), max_size=3))
    return {
        "weights file": edited(whole),
        "weights pickle": st.builds(
            _packed(entries, legacy),
            st.one_of(st.just(pickled), *[edited([pickled])] * 3, mutated, programs),
            st.booleans(),
        ),
    }


def open_weights(folder: Path) -> Callable[[bytes], None]:
    """Feeds bytes as a whole file."""
    path = folder / "weights.pth"

    def feed(content: bytes) -> None:
        path.write_bytes(content)
        read_weights(path)

    return feed


def _packed(entries: dict[str, bytes], legacy: bytes) -> Callable[[bytes, bool], bytes]:
    """Returns what puts a pickle where a file of PyTorch has it, the rest being sound."""
    # Three small pickles stand before it: a magic number, a version, and what the machine is.
    stream = io.BytesIO(legacy)
    for _ in range(3):
        pickle.load(stream)  # written above, by ourselves
    start = legacy[: stream.tell()]

    def pack(pickled: bytes, as_zip: bool) -> bytes:
        if not as_zip:
            return start + pickled
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in {**entries, "archive/data.pkl": pickled}.items():
                archive.writestr(name, data)
        return file.getvalue()

    return pack


def _pieces() -> tuple[bytes, ...]:
    """Instructions of pickles, most with what they need behind them."""
    numbers = (
        b"\0",
        b"\1",
        b"\xff\xff\xff\x7f",
        b"\xff" * 8,
        b"3\n",
        b"-1\n",
        b"9" * 5_000 + b"\n",
    )
    return (
        *_CODES,
        *(b"c" + name for name in _NAMES),
        *(code + number for code in _CODES for number in numbers[:-1]),
        *(b"I" + number for number in numbers),
        *(b"X" + len(word).to_bytes(4, "little") + word for word in WORDS if len(word) < 1_000),
        b"(" * 2_000,
        b"]" + b"(]" * 500,
        b"}q\0h\0h\0s",  # a dict that holds itself
    )


def _program(pieces: list[bytes]) -> bytes:
    return b"\x80\x02" + b"".join(pieces) + b"."


def _inserted() -> st.SearchStrategy[tuple[int, bytes]]:
    return st.tuples(st.integers(0, 2**20), st.sampled_from(_pieces()))


def _insert(content: bytes, pieces: list[tuple[int, bytes]]) -> bytes:
    for where, piece in pieces:
        at = where % (len(content) + 1)
        content = content[:at] + piece + content[at:]
    return content
