"""Decodes images in processes beside this one: threads of one Python hinder each other at it.

A process takes the files of many images on its standard input and gives their pixels on its
standard output. It imports neither JAX nor TFDS, so it is there in a fifth of a second.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dmfer_jax.data.images import decode_image, quiet_decoder
from dmfer_jax.errors import UserError


class Encoded(NamedTuple):
    """An image as it lies in a file, and what to call it in an error."""

    file: bytes
    name: str


class Decoders:
    """Processes that decode images, each started when it is first needed.

    Any number of threads may decode at once; each has a process of its own while it does, or waits
    for one. The processes end with this object, and with the process that started them.

    Args:
      number: of processes.
      size: height and width of the decoded images, in pixels.
      channels: 3 for RGB, 1 for grey.
    """

    def __init__(self, number: int, size: int, channels: int):
        self._shape = (size, size, channels)
        self._free: queue.LifoQueue[_Process] = queue.LifoQueue()  # those at work are kept at it
        self._processes = [_Process() for _ in range(number)]
        for process in self._processes:
            self._free.put(process)
        weakref.finalize(self, _end_all, self._processes)

    def decode(self, images: Sequence[Encoded]) -> np.ndarray:
        """Returns images as `images.decode_image` decodes them: uint8 `[n, size, size, channels]`.

        Raises:
          UserError: an image cannot be decoded, or the process was ended from outside.
        """
        process = self._free.get()
        try:
            return process.decode(images, self._shape)
        finally:
            self._free.put(process)

    def close(self) -> None:
        """Ends the processes; whoever decodes again starts new ones."""
        _end_all(self._processes)


class _Process:
    """One process, which answers one request after the other."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, images: Sequence[Encoded], shape: tuple[int, ...]) -> np.ndarray:
        if self._process is None:
            self._process = _start()
        process = self._process
        assert process.stdin
        assert process.stdout
        size, _, channels = shape
        request = {
            "size": size,
            "channels": channels,
            "images": [[len(image.file), image.name] for image in images],
        }
        pixels = np.empty((len(images), *shape), np.uint8)
        try:
            _send(process.stdin, request, *(image.file for image in images))
            answer = _receive(process.stdout)
            if "error" in answer:
                raise UserError(answer["error"])
            _fill(process.stdout, pixels)
        except (BrokenPipeError, EOFError):
            self._process = None
            process.kill()
            raise UserError(
                f"a process that decodes images has ended (status {process.wait()}) before it had "
                "decoded them; if the memory is short, set config.data.workers to fewer"
            ) from None
        return pixels

    def end(self) -> None:
        if process := self._process:
            self._process = None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe
                pipe.close()


def _start() -> "subprocess.Popen[bytes]":
    # Found from any folder, and where the package is not installed.
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Ctrl-C, SIGTERM of a scheduler and SIGHUP of a closed terminal reach all processes of a run.
    # This one's work is wanted until its last checkpoint is written; then its standard input ends.
    # Blocked signals are inherited.
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    start = partial(
        subprocess.Popen,
        [sys.executable, "-m", __name__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        return start(pipesize=_PIPE_BYTES)
    except PermissionError:  # Linux gives all of a user's pipes together no more than 64 MiB
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


_PIPE_BYTES = 2**20
"""What a process can write ahead, on Linux; with the usual 64 kB it would wait at every image."""


def _end_all(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.end()


def _send(pipe: Any, head: dict[str, Any], *parts: Any) -> None:
    """Writes a line of JSON, and bytes behind it."""
    pipe.write(json.dumps(head).encode() + b"\n")
    for part in parts:
        pipe.write(part)
    pipe.flush()


def _receive(pipe: Any) -> dict[str, Any]:
    """Reads the line of JSON.

    Raises:
      EOFError: there is none.
    """
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def _fill(pipe: Any, array: np.ndarray) -> None:
    """Reads the bytes of an array of bytes into it."""
    flat: Any = array.reshape(-1)  # Any: NumPy tells of its buffers from Python 3.12 on
    view, done = memoryview(flat), 0
    while done < len(view):
        if not (count := pipe.readinto(view[done:])):
            raise EOFError
        done += count


def _answer_all(requests: BinaryIO, answers: BinaryIO) -> None:
    """What the process does: answers until there are no more requests."""
    while True:
        try:
            request = _receive(requests)
        except EOFError:
            return
        files = [requests.read(length) for length, _ in request["images"]]
        size, channels = request["size"], request["channels"]
        try:
            pixels = [
                decode_image(file, size, channels, name)
                for file, (_, name) in zip(files, request["images"], strict=True)
            ]
        except UserError as error:
            _send(answers, {"error": str(error)})
        else:
            _send(answers, {}, *pixels)


if __name__ == "__main__":
    quiet_decoder()
    _answer_all(sys.stdin.buffer, sys.stdout.buffer)
