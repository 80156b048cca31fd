"""Images decoded in processes of their own: the same pixels, plain errors, and nothing left."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmfer_jax.data.decoding import Decoders, Encoded
from dmfer_jax.data.images import decode_image
from dmfer_jax.errors import UserError


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "jpeg")
    return jpeg.getvalue()


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(2, size=16, channels=3)
    yield made
    made.close()


def children() -> set[int]:
    """The processes that this one has started, by any of its threads."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def test_pixels_are_those_of_the_one_decoder(decoders):
    photos = [photo(seed) for seed in range(5)]
    decoded = decoders.decode([Encoded(file, f"{n}") for n, file in enumerate(photos)])
    expected = np.stack([decode_image(file, 16, 3) for file in photos])
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8


def test_no_images_are_an_empty_array(decoders):
    assert decoders.decode([]).shape == (0, 16, 16, 3)


def test_more_threads_than_processes_each_get_their_own_images(decoders):
    photos = [photo(seed) for seed in range(24)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda file: decoders.decode([Encoded(file, "a")])[0], photos))
    expected = np.stack([decode_image(file, 16, 3) for file in photos])
    np.testing.assert_array_equal(np.stack(found), expected)


def test_an_image_that_cannot_be_decoded_is_named_and_the_next_is_decoded(decoders):
    name = "tür 1\n.jpg"
    with pytest.raises(UserError, match=r"image 'tür 1\n\.jpg' cannot be decoded"):
        decoders.decode([Encoded(photo(0), "good"), Encoded(photo(0)[:100], name)])
    np.testing.assert_array_equal(
        decoders.decode([Encoded(photo(1), "a")])[0], decode_image(photo(1), 16, 3)
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_process_is_an_error_that_says_so_and_another_takes_its_place(decoders):
    before = children()
    decoders.decode([Encoded(photo(0), "a")])
    (worker,) = children() - before
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(UserError, match=r"has ended \(status -9\).*config\.data\.workers to fewer"):
        decoders.decode([Encoded(photo(0), "a")])
    assert decoders.decode([Encoded(photo(0), "a")]).shape == (1, 16, 16, 3)


def test_a_user_who_may_have_no_more_large_pipes_gets_usual_ones(decoders, monkeypatch):
    start, sizes = subprocess.Popen, []

    def refuse(*arguments, pipesize: int = -1, **options):
        sizes.append(pipesize)
        if pipesize > 0:
            raise PermissionError(1, "Operation not permitted")
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert decoders.decode([Encoded(photo(0), "a")]).shape == (1, 16, 16, 3)
    assert sizes == [2**20, -1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_with_what_started_them():
    before = children()
    made = Decoders(1, size=16, channels=3)
    made.decode([Encoded(photo(0), "a")])
    assert children() - before
    del made
    assert not children() - before


_PARENT = """
import io, sys, time
from PIL import Image
from dmfer_jax.data.decoding import Decoders, Encoded
png = io.BytesIO()
Image.new("L", (8, 8)).save(png, "png")
decoders = Decoders(1, 8, 1)
decoders.decode([Encoded(png.getvalue(), "a")])
print(decoders._free.queue[0]._process.pid, flush=True)
{then}
"""


def run_parent(then: str) -> tuple["subprocess.Popen[str]", int]:
    """Runs a process that decodes; returns it and the number of the process that did."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT.format(then=then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    return parent, int(parent.stdout.readline())


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_when_their_parent_is_killed():
    parent, worker = run_parent("time.sleep(60)")
    assert is_there(worker)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while is_there(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_there(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_whole_run_leave_its_decoders_to_it(number):
    then = "sys.stdin.readline(); decoders.decode([Encoded(png.getvalue(), 'b')]); print('decoded')"
    parent, worker = run_parent(then)
    os.kill(worker, number)
    output, _ = parent.communicate("\n", timeout=30)
    assert output == "decoded\n"
