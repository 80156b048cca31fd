"""What a process used of the machine: processor time, wall time and memory, kept in a file.

A run may take several processes, one after the other; each adds its own. Times of a machine that
others share say little, and so processor time stands beside them.
"""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmfer_jax.reporting import plain_json


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Adds what this process uses, until it leaves, to the list in a file.

    The entry is there from the beginning, with None for what is not known yet: so it stays where
    the process is killed, and tells that something is missing.

    Args:
      path: of a JSON file; a list of what `read_usage` says.
    """
    processes, began = read_usage(path), time.monotonic()
    processes.append({"seconds": None, "cpu_seconds": None, "peak_bytes": None})
    _write(path, processes)
    before = _cpu_seconds()
    try:
        yield
    finally:
        processes[-1] = {
            "seconds": time.monotonic() - began,
            "cpu_seconds": _cpu_seconds() - before,
            "peak_bytes": _peak_bytes(),
        }
        _write(path, processes)


def read_usage(path: Path) -> list[dict[str, Any]]:
    """Returns what the processes of a run used; empty where none began.

    Args:
      path: as of `recorded`.

    Returns:
      Of each process `seconds`, `cpu_seconds` (of all its threads and of the processes that it
      waited for) and `peak_bytes` (the most memory that it had resident); None each where it was
      killed.
    """
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def total(processes: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds up what the processes of a run used.

    Returns:
      `cpu_seconds` (the sum), `peak_bytes` (the largest), `processes` (how many there were) and
      `killed` (how many of them left no numbers). The first two are None if all were killed.
    """
    known = [one for one in processes if one["cpu_seconds"] is not None]
    return {
        "cpu_seconds": sum(one["cpu_seconds"] for one in known) if known else None,
        "peak_bytes": max(one["peak_bytes"] for one in known) if known else None,
        "processes": len(processes),
        "killed": len(processes) - len(known),
    }


def _cpu_seconds() -> float:
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in of)


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the process was before it became this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _write(path: Path, processes: list[dict[str, Any]]) -> None:
    text = json.dumps(processes, indent=2) + "\n"
    plain_json.write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
