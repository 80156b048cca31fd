"""Runs done one after the other, each in a process of its own, for `ablate` and `compare`.

A process for each keeps its memory and its processor time its own, and one that is killed takes
nothing else along. One process for all would share little: network, loss or seed differ, and each
is part of the compiled step. Decoded images and the compiled evaluation are kept on disk for all.
"""

import contextlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dmfer_jax import run_lock
from dmfer_jax.interruption import STOPS, Interruption


class QueuedRun(NamedTuple):
    """One run that is not over.

    Attributes:
      name: what messages call it.
      workdir: its folder.
      commands: that do it, in their order; none if only `finish` of `do_all` is left.
    """

    name: str
    workdir: Path
    commands: Sequence[list[str]]


def train_apart(command: list[str], interruption: Interruption) -> int:
    """Runs a command in another process, and hands it the signal that comes meanwhile.

    Returns:
      Its exit status; less than 0 is a signal that ended it.
    """
    # In a session of its own: Ctrl-C reaches all processes of a terminal's job, and a second
    # signal would end the training before it has saved anything.
    with subprocess.Popen(command, start_new_session=True) as process:
        told = False
        while process.poll() is None:
            if interruption.signal and not told:
                told = True
                process.send_signal(interruption.signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
        return process.returncode


Train = Callable[[list[str], Interruption], int]
"""`train_apart`, or what stands in its place in tests."""


def do_all(
    queue: Sequence[QueuedRun], finish: Callable[[str], None], train: Train = train_apart
) -> list[str]:
    """Does the runs that are left, in their order.

    A run that fails does not keep the others from being done.

    Args:
      queue: what is left; the folders lie in that of `--out`.
      finish: called with the name of each run when it is over.
      train: runs a command and returns its exit status.

    Returns:
      The names of the runs that failed.

    Raises:
      UserError: another process works on one of the runs.
      SystemExit: interrupted; what was done is saved.
    """
    failed = list[str]()
    with Interruption() as interruption:
        for number, run in enumerate(queue, start=1):
            status, label = 0, f"run {number} of {len(queue)}: {run.name}"
            for command in run.commands:
                if interruption.signal or status:
                    break
                run_lock.check_free(run.workdir, "--out")  # what a killed queue began may go on
                print(f"\n{label}", flush=True)
                status = train(command, interruption)
            if interruption.signal or status in _INTERRUPTED:
                left = len(queue) - number + 1
                print(
                    f"\nInterrupted. Runs left: {left}. The same command goes on with {run.name}."
                )
                raise SystemExit(interruption.exit_status)
            if status:
                print(f"{label}: failed with status {status}")
                failed.append(run.name)
            else:
                finish(run.name)
    return failed


_INTERRUPTED = (*(128 + number for number in STOPS), *(-number for number in STOPS))
"""Exit statuses of a training that was asked to stop."""
