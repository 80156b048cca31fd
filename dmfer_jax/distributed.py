"""Several processes that train or evaluate as one: how they find each other, and who does what.

On TPU slices, under SLURM and under Open MPI the processes are told by the environment, as JAX
reads it. Elsewhere each is started with `--coordinator`, `--processes` and `--process`. A process
that is told nothing works alone. The first process (0) writes and prints; the others say errors.
"""

import ctypes
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
from absl import flags
from jax.experimental import multihost_utils

from dmfer_jax import meeting
from dmfer_jax.errors import UserError

_TIMEOUT = 300  # seconds that a process waits for the others to be started
_DAY = 24 * 3600 * 1000  # milliseconds; records of a large dataset may be built meanwhile

Result = TypeVar("Result")


def define_flags() -> None:
    """Defines the flags that `start` takes, for an entry point."""
    flags.DEFINE_string(
        "coordinator", "", "host:port of process 0, where several are started by hand."
    )
    flags.DEFINE_integer("processes", None, "How many processes there are, in that case.")
    flags.DEFINE_integer("process", None, "Which of them this is, counted from 0.")


def start(
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
    timeout: int = _TIMEOUT,
) -> None:
    """Joins the other processes, before any device is touched; does nothing where there are none.

    Args:
      coordinator: "host:port" of process 0; the port must be free there.
      processes: how many there are.
      process: which of them this is, counted from 0.
      timeout: seconds to wait for the others.

    Raises:
      UserError: some of the three are given and others not, they are no such numbers, or the
        processes did not find each other or were told different numbers.
    """
    if coordinator or processes is not None or process is not None:
        processes, process = _check_given(coordinator, processes, process)
        meeting.meet(coordinator, processes, process, timeout)
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method="deactivate",
            initialization_timeout=timeout,
        )
    elif cluster := _find_cluster():
        jax.distributed.initialize(cluster_detection_method=cluster, initialization_timeout=timeout)
    else:
        return
    _Notice.take_over()
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open to the end of the process)


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def main_first(work: Callable[[], Result]) -> Result:
    """Does the same in every process, in process 0 before the others begin.

    So what it leaves on a disk that they share is there for the others, and where each has a disk
    of its own each does it all. No process goes on unless all have succeeded.

    Args:
      work: what to do; it must not compute on devices of several processes.

    Raises:
      UserError: of the work, here or in another process, whose message it repeats.
    """
    if jax.process_count() == 1:
        return work()
    me, number = jax.process_index(), next(_numbers)
    keys = [f"dmfer_jax/{number}/{process}" for process in range(jax.process_count())]
    outcome = "it ended with an error that is not the user's; its own output tells"
    try:
        if me:
            _check_outcome(0, keys[0])
        result = work()
        outcome = _SUCCESS
    except UserError as error:
        outcome = str(error)
        raise
    finally:
        _table().key_value_set(keys[me], outcome)
    for process, key in enumerate(keys):
        _check_outcome(process, key)
    return result


def check_same(value: str, what: str) -> None:
    """Checks that all processes have the same value.

    Args:
      value: of this process.
      what: the value is, for the message, such as "digest of the records".

    Raises:
      UserError: one has another than process 0; all processes raise it.
    """
    key = f"dmfer_jax/{next(_numbers)}/value"

    def compare() -> None:
        if is_main():
            _table().key_value_set(key, value)
        elif (first := _table().blocking_key_value_get(key, _DAY)) != value:
            raise UserError(f"the {what} is {value} here, and {first} in process 0")

    if jax.process_count() > 1:
        main_first(compare)


def decided_by_main(decide: Callable[[], Result]) -> Result:
    """Returns in every process what process 0 decides, as JSON knows it.

    What each would read from a shared disk by itself may be older for one than for another.

    Args:
      decide: what process 0 does.

    Raises:
      UserError: of `decide`.
    """
    if jax.process_count() == 1:
        return decide()
    key = f"dmfer_jax/{next(_numbers)}/decided"

    def work() -> Result:
        if is_main():
            _table().key_value_set(key, json.dumps(decide()))
        return json.loads(_table().blocking_key_value_get(key, _DAY))

    return main_first(work)


def wait_until_seen(path: Path) -> None:
    """Waits until a shared disk shows this process what another has written.

    Raises:
      UserError: it did not within two minutes.
    """
    for _ in range(120):
        if path.exists():
            return
        time.sleep(1)
    check_shared(path)


def wait_for_others() -> None:
    """Waits until all processes have come here, before they compute together for the first time.

    Compiling takes one longer than another, above all where one finds it kept from before, and
    collectives between CPUs give up after half a minute.
    """
    if jax.process_count() > 1:
        _table().wait_at_barrier(f"dmfer_jax/{next(_numbers)}", _DAY)


def check_shared(path: Path) -> None:
    """Checks that a file which process 0 has written is seen by this process.

    Raises:
      UserError: it is not.
    """
    if not path.exists():
        raise UserError(
            f"process 0 has written {path}, and process {jax.process_index()} does not see it. "
            "Checkpoints are written by all processes: give a --workdir on a disk that they share"
        )


def stops_here(step: int, signalled: bool) -> bool:
    """Whether training stops after a step because a process was asked to end.

    All processes must ask after each step. They agree on a step that none of them has passed, the
    same for all, a second or so after the first of them was asked.

    Args:
      step: that has just been done.
      signalled: whether this process was asked to end.
    """
    if jax.process_count() == 1:
        return signalled
    if signalled:
        _Notice.give()
    return multihost_utils.reached_preemption_sync_point(step)


class _Notice:
    """How JAX is told that this process was asked to end.

    JAX brings the processes to agree, and learns of it by a handler of SIGTERM alone, which would
    swallow the signal whenever no loop asks. So the signal is left to whoever had it, and the
    handler is called from between two steps; any signal that a loop catches can be told this way.
    """

    _handler: Any = None

    @classmethod
    def take_over(cls) -> None:
        """Takes the handler that JAX has just installed off the signal."""
        library = ctypes.CDLL(None)
        library.signal.restype, library.signal.argtypes = (
            ctypes.c_void_p,
            (
                ctypes.c_int,
                ctypes.c_void_p,
            ),
        )
        address = library.signal(signal.SIGTERM, int(signal.SIG_DFL))
        if (before := signal.getsignal(signal.SIGTERM)) is not None:
            signal.signal(signal.SIGTERM, before)
        if not address:
            raise RuntimeError(
                f"jax {jax.__version__} no longer catches SIGTERM in jax.distributed.initialize; "
                "distributed.stops_here must tell it in another way"
            )
        cls._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(address)

    @classmethod
    def give(cls) -> None:
        """Tells JAX; more than once is as good as once."""
        if cls._handler is None:
            raise RuntimeError("processes that are to stop together are joined by start()")
        cls._handler(int(signal.SIGTERM))


_numbers = itertools.count()
_SUCCESS = "done"


def _check_outcome(process: int, key: str) -> None:
    """Waits until a process has done its work, and raises its error if it failed."""
    outcome = _table().blocking_key_value_get(key, _DAY)
    if outcome != _SUCCESS:
        raise UserError(f"process {process} failed: {outcome}")


def _table() -> Any:
    from jax._src import distributed  # private: there is no other way to the processes' table

    return distributed.global_state.client


def _find_cluster() -> str | None:
    """Returns JAX's name of the cluster that this is one of several processes of, if any."""
    if os.environ.get("SLURM_STEP_NUM_TASKS") == "1":
        return None  # a shell inside an allocation, whose numbers are of the whole
    # Private: JAX tells nowhere else whether there are several hosts.
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster, OmpiCluster, SlurmCluster

    # On one host of a TPU slice, JAX_PLATFORMS=cpu is for working alone, beside the others.
    tpus = () if os.environ.get("JAX_PLATFORMS") == "cpu" else (GkeTpuCluster, GceTpuCluster)
    for cluster in (*tpus, OmpiCluster, SlurmCluster):
        try:
            if cluster.is_env_present() and cluster.get_process_count() > 1:
                return cluster.name
        except OSError:  # a TPU machine without Google's metadata server is no slice of several
            continue
        except RuntimeError as error:  # Open MPI 5 tells its numbers to mpi4py alone
            raise UserError(
                f"{error} Install it, or give --coordinator, --processes and --process"
            ) from error
    return None


def _check_given(coordinator: str, processes: int | None, process: int | None) -> tuple[int, int]:
    """Checks the flags against each other, and returns the two numbers."""
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value in ("", None)]
    if missing or processes is None or process is None:
        there = ", ".join(name for name in given if name not in missing)
        raise UserError(
            f"{there} given and {', '.join(missing)} not: several processes are started with all "
            "of --coordinator=host:port --processes=N --process=0 (1, ... N - 1 for the others)"
        )
    if processes < 1:
        raise UserError(f"--processes is {processes}; expected 1 or more")
    if not 0 <= process < processes:
        raise UserError(
            f"--process is {process} of --processes={processes}; expected 0 to {processes - 1}, "
            "a different one for each"
        )
    return processes, process
