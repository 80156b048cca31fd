"""Readers of strangers' files and flags take an input or refuse it, and do nothing else."""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.fuzz_targets import Target, make_targets
from dmfer_jax.errors import UserError

INPUTS = 120

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory reads /proc"),
    # ml_collections loads a config in an old way.
    pytest.mark.filterwarnings("ignore:the load_module.. method:DeprecationWarning"),
]

with tempfile.TemporaryDirectory() as _folder:
    TARGETS = make_targets(Path(_folder))


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_no_error_of_ours_never_comes_of_an_input(name, tmp_path):
    found = fuzz.fuzz(TARGETS[name], INPUTS, 0, tmp_path)
    assert found.failures == []
    assert found.inputs == INPUTS
    assert found.taken > INPUTS / 50  # else the inputs would not reach what lies behind the start
    assert found.refused > INPUTS / 50


def fed(read: Any, tmp_path: Path) -> fuzz.Found:
    numbers = Target(st.integers(0, 9), lambda folder: read)
    return fuzz.fuzz(numbers, 10, 0, tmp_path)


def test_the_same_seed_draws_the_same_inputs(tmp_path):
    drawn: list[list[int]] = [[], [], []]
    for seed, numbers in zip((5, 5, 6), drawn, strict=True):
        target = Target(st.integers(0, 10**9), lambda folder, to=numbers: to.append)
        fuzz.fuzz(target, 20, seed, tmp_path)
    assert drawn[0] == drawn[1] != drawn[2]


def test_inputs_that_were_taken_refused_or_neither_are_told_apart(tmp_path):
    def read(number: int) -> None:
        if number >= 7:
            raise KeyError(number)
        if number >= 3:
            raise UserError("no")

    found = fed(read, tmp_path)
    assert (found.taken, found.refused, found.failed) == (3, 4, 3)
    assert {failure["error"] for failure in found.failures} == {"KeyError"}
    assert {failure["input"] for failure in found.failures} == {"7", "8", "9"}


def test_an_input_that_hangs_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)

    def read(number: int) -> None:
        deadline = time.monotonic() + 5
        while number == 4 and time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # as a parser might
                time.sleep(0.01)

    found = fed(read, tmp_path)
    assert [(f["error"], f["input"]) for f in found.failures] == [("Hang", "4")]


def test_an_input_that_takes_more_memory_than_the_limit_is_found(tmp_path):
    def read(number: int) -> None:
        if number == 4:
            bytearray((fuzz.MEMORY_MIB + 64) * 2**20)

    found = fed(read, tmp_path)
    assert [(f["error"], f["input"]) for f in found.failures] == [("MemoryError", "4")]
