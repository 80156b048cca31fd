"""Feeds every reader of strangers' files and flags with mutated and raw inputs.

  python -m benchmarks.fuzz --inputs=100000 --out=results/fuzz.json

An input may be taken or refused with the project's own error. Any other exception, an input that
takes longer than `SECONDS`, and one that needs more than `MEMORY_MIB` of address space beyond what
the process had is a failure, which is reported with the input.
"""

import argparse
import contextlib
import faulthandler
import resource
import signal
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis

from benchmarks import measurements
from benchmarks.fuzz_targets import Target, make_targets
from benchmarks.side_by_side import run as run_benchmark
from dmfer_jax.errors import UserError

SECONDS = 5.0
"""What one input may take. None needs a tenth of it on an idle core."""

MEMORY_MIB = 512
"""Address space that a few hundred inputs, one after the other, may add to the process."""

_PART = 500  # inputs for which Hypothesis is started once: it keeps a tree of what it drew
_LONGEST_PART = 600  # seconds; one takes a few
_MOST_FAILURES = 20  # that are kept of a target
_SHOWN = 2_000  # characters of an input


class _Hang(BaseException):
    """Not an Exception: a parser that catches everything must not catch this."""


@dataclass
class Found:
    """What became of the inputs of a target.

    Attributes:
      taken: inputs that were read.
      refused: inputs that ended in a `UserError`.
      failures: of the others, the first ones: {"error", "message", "input"}.
      failed: how many others there were.
    """

    taken: int = 0
    refused: int = 0
    failed: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """How many inputs there were."""
        return self.taken + self.refused + self.failed


def fuzz(target: Target, inputs: int, seed: int, folder: Path) -> Found:
    """Feeds a target.

    Args:
      target: of `make_targets`.
      inputs: how many.
      seed: of the inputs.
      folder: an empty one, best in memory.
    """
    found, feed = Found(), target.open(folder)
    checks: Any = hypothesis.HealthCheck  # of how fast and how large inputs are; not ours
    part = 0
    while found.inputs < inputs:
        before = found.inputs

        def feed_one(given: Any) -> None:
            _feed(feed, given, found)

        settings = hypothesis.settings(
            max_examples=min(_PART, inputs - before),
            phases=[hypothesis.Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(checks),
        )
        draw = hypothesis.seed(zlib.crc32(f"{seed} {part}".encode()))
        with _memory_limited(), _watched(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of a number that did not fit, and such
            draw(settings(hypothesis.given(target.inputs)(feed_one)))()
        if found.inputs == before:
            raise RuntimeError("no input was drawn")
        part += 1
    return found


def _feed(feed: Any, given: Any, found: Found) -> None:
    try:
        with _alarm():
            feed(given)
    except UserError:
        found.refused += 1
    except (Exception, _Hang, SystemExit) as error:
        found.failed += 1
        if len(found.failures) < _MOST_FAILURES:
            name, message = type(error).__name__.strip("_"), str(error)[:_SHOWN]
            shown = {"error": name, "message": message, "input": repr(given)[:_SHOWN]}
            found.failures.append(shown)
    else:
        found.taken += 1


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Ends what takes too long."""

    def ring(number: int, frame: Any) -> None:
        raise _Hang(f"it took more than {SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Ends the process where no signal can: in a loop of a library that is not Python."""
    faulthandler.dump_traceback_later(_LONGEST_PART, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _memory_limited() -> Iterator[None]:
    """Lets the address space grow by so much and no more: what asks for it gets a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_MIB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> None:
    """Fuzzes all targets, prints a table and writes the report."""
    parser = argparse.ArgumentParser(description="Fuzzes the readers.")
    parser.add_argument("--inputs", type=int, default=10_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", help="names; all unless told")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    described = measurements.describe()  # before files can be changed
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        folder = Path(place)
        (folder / "base").mkdir()
        targets = make_targets(folder / "base")
        names = options.targets or list(targets)
        if unknown := set(names) - set(targets):
            raise UserError(f"there is no target {unknown.pop()!r}; there are {', '.join(targets)}")
        each = -(-options.inputs // len(names))
        rows = {}
        for number, name in enumerate(names):
            (folder / str(number)).mkdir()
            rows[name] = fuzz(targets[name], each, options.seed, folder / str(number))
            print(f"{name}: {rows[name].inputs:,}, {rows[name].failed} failed", flush=True)
    _report(described, rows, options.seed, options.out)


def _report(described: dict[str, Any], rows: dict[str, Found], seed: int, out: Path | None) -> None:
    shown = [
        [name, f"{row.inputs:,}", f"{row.taken:,}", f"{row.refused:,}", str(row.failed)]
        for name, row in rows.items()
    ]
    print(measurements.table(["target", "inputs", "taken", "refused", "failed"], shown))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = {
        **described,
        "seed": seed,
        "limits": {"seconds_of_an_input": SECONDS, "memory_mib": MEMORY_MIB},
        "inputs": sum(row.inputs for row in rows.values()),
        "failed": sum(row.failed for row in rows.values()),
        "peak_resident_mib": round(peak),
        "targets": {
            name: {"inputs": row.inputs, "taken": row.taken, "refused": row.refused}
            | ({"failed": row.failed, "failures": row.failures} if row.failed else {})
            for name, row in rows.items()
        },
    }
    measurements.write(out, report)
    if report["failed"]:
        for name, row in rows.items():
            for failure in row.failures[:3]:
                print(f"{name}: {failure['error']}: {failure['message']}\n  {failure['input']}")
        raise UserError(f"{report['failed']:,} inputs of {report['inputs']:,} failed")


if __name__ == "__main__":
    run_benchmark(main)
