"""Files of weights that are damaged at random are read or refused, and nothing else."""

import contextlib
import io
import pickletools
import random
import time
import zipfile
from collections import OrderedDict

import numpy as np
import safetensors.numpy

from dmfer_jax.errors import UserError
from dmfer_jax.weights.reading import read_weights
from tests.weights.torch_writing import Call, Name, Tensor, legacy_bytes, zip_bytes, zip_of

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flips, cuts, repeats or splices bytes, or puts operations of pickles between them."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed)) if changed else 0
        other = min(len(changed), place + rng.randrange(1, 40))
        kind = rng.randrange(5)
        if kind == 0 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place:other]
        elif kind == 2:
            changed[place:place] = changed[place:other] * rng.randint(1, 4)
        elif kind == 3:
            changed[place:other] = rng.randbytes(rng.randrange(12))
        else:
            operation = rng.choice(pickletools.opcodes).code.encode("latin-1")
            changed[place:place] = operation + rng.randbytes(rng.randrange(4))
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.1 else changed)


def originals() -> list[bytes]:
    """Small files of every format, whose pickles have much in them."""
    content = {
        "epoch": 3,
        "names": [1.5, "a", None, (True, -7)],
        "device": Call("torch.device", ("cpu",)),
        "type": Name("torch.float32"),
        "state_dict": OrderedDict(
            {"a": Tensor(ROWS), "b": Tensor(ROWS, 1, (3,), (4,)), "n": Tensor(np.array(7))}
        ),
    }
    return [
        zip_bytes(content),
        legacy_bytes(content),
        safetensors.numpy.save({"a": ROWS, "n": np.array(7)}),
    ]


def pickled_again(data: bytes, rng: random.Random) -> bytes:
    """An archive whose pickle is mutated, with a checksum that is right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}
    return zip_of({**entries, "data.pkl": mutated(entries["data.pkl"], rng)})


def fuzz(path, count: int, seed: int) -> int:
    """Reads mutated files; returns how many could be read. Anything but a UserError is raised."""
    rng, files, sound = random.Random(seed), originals(), 0
    for index in range(count):
        kind = index % 4
        data = mutated(files[kind], rng) if kind < 3 else pickled_again(files[0], rng)
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            for array in read_weights(path).values():
                array.sum()  # touches all of it: no view may reach outside its storage
            sound += 1
    return sound


def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path):
    began = time.monotonic()
    sound = fuzz(tmp_path / "mutated.pth", 300, seed=0)
    assert 0 < sound < 300
    assert time.monotonic() - began < 60
