"""Runs several programs in turn on one machine, so that its noise falls on all of them alike.

Each side is a process of its own, of an interpreter of its own. All are alive at once, and all but
the one whose turn it is are stopped, with the processes that they have started: none computes,
waits busily or reads ahead in another's time. For Linux.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from dmfer_jax.errors import UserError

ROOT = Path(__file__).parent.parent
"""Of the repository; sides of every interpreter import it from here."""

Turn = Callable[..., dict[str, Any]]
"""What a side does in its turn: takes a request's fields, returns what it measured."""


class Side:
    """A process that does what it is asked in its turns, and is stopped between them.

    Args:
      name: for tables and messages.
      python: its interpreter.
      module: to run; it calls `serve` when it is given `--worker`.
      options: for the module, to be written as JSON.

    Attributes:
      name: as given.
      facts: what the side says of itself once it is ready.
    """

    def __init__(self, name: str, python: str, module: str, options: dict[str, Any]) -> None:
        self.name = name
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # The CPU is what both sides are measured on, whatever else one of them would find.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [python, "-m", module, "--worker", json.dumps(options)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # One signal reaches all of its processes. A group rather than a session: should this
            # process be killed, the system ends the stopped ones that it leaves behind.
            process_group=0,
        )
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise
        self._forget_peak()
        self._signal(signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def turn(self, **request: Any) -> dict[str, Any]:
        """Lets the side do what is asked of it, alone, and returns its answer.

        Raises:
          UserError: it ended instead.
        """
        assert self._process.stdin
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended, as its answer will show
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def peak_mib(self) -> float | None:
        """The most memory that its first process has had resident since it was ready, in MiB."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        return peak_of(status)

    def close(self) -> None:
        """Ends the side and all of its processes."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):  # of a request that nobody took
                    pipe.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"side '{self.name}' ended before it had measured; see above why")
        return json.loads(line)

    def _signal(self, number: signal.Signals) -> None:
        # Where it has ended, the next answer will show it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _forget_peak(self) -> None:
        """Lets the peak of memory begin anew: compiling is over."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")


def take_turns(
    sides: Sequence[Side],
    rounds: int,
    requests: Callable[[Side, int], dict[str, Any]],
    after_round: Callable[[int], None] = lambda _: None,
) -> dict[str, list[dict[str, Any]]]:
    """Lets every side have a turn in every round, in the order given.

    Args:
      sides: that are ready.
      rounds: how many turns each has.
      requests: what to ask of a side in a round, counted from 1.
      after_round: is told the number of each round that is over.

    Returns:
      Name of side -> its answers, one a round.
    """
    answers: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for number in range(1, rounds + 1):
        for side in sides:
            answers[side.name].append(side.turn(**requests(side, number)))
        after_round(number)
    return answers


def print_round(number: int) -> None:
    """Shows that something is going on."""
    print(f"\rround {number}", end="", file=sys.stderr, flush=True)


Prepare = Callable[[dict[str, Any]], tuple[dict[str, Any], Turn]]
"""What makes a side ready: takes the options that `Side` was given; returns facts to tell, and the
turn."""


def run(main: Callable[[], None], prepare: Prepare | None = None) -> None:
    """Runs a benchmark's file: as a side where it was started as one, else as the command.

    Args:
      main: the command.
      prepare: makes a side ready, if the file has sides of its own.
    """
    if prepare and worker_options() is not None:
        serve(prepare)
        return
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def serve(prepare: Prepare) -> None:
    """Is a side: prepares, says that it is ready, and answers requests until it is ended.

    Args:
      prepare: makes it ready.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer

    def send(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    facts, turn = prepare(worker_options() or {})
    memory = {"peak_mib_until_ready": peak_of(Path("/proc/self/status").read_text())}
    send({**facts, **memory})
    for line in sys.stdin:
        send(turn(**json.loads(line)))


def worker_options() -> dict[str, Any] | None:
    """The options that `Side` gave this process; None if it is no side."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--worker", type=json.loads)
    return parser.parse_known_args()[0].worker


def peak_of(status: str) -> float | None:
    """Returns the peak of resident memory in MiB that a /proc/PID/status tells.

    >>> peak_of("VmHWM:\\t    2048 kB")
    2.0
    """
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return None
