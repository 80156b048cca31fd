"""What the benchmarks make of their times: medians, ratios, a table, and a report as JSON.

Nothing here measures. Times are in seconds; a ratio is their time by ours, so above 1 is faster.
"""

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.environment import describe_processor


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Returns `median`, `quartiles` [lower, upper] and `count` of some values.

    >>> summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'quartiles': [2.0, 4.0], 'count': 5}
    """
    lower, upper = values[0], values[0]
    if len(values) > 1:
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "quartiles": [lower, upper],
        "count": len(values),
    }


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Returns how many times as fast we are: a summary over the rounds.

    Each round gives one ratio, of the medians of its times, so what slows a whole round down
    does not count.

    Args:
      ours: the times of each round.
      theirs: the same of the other side.
    """
    rounds = zip(ours, theirs, strict=True)
    return summarize([statistics.median(b) / statistics.median(a) for a, b in rounds])


def check_same_losses(losses: Mapping[str, Sequence[float]], tolerance: float) -> None:
    """Checks that all sides have computed the same thing.

    Args:
      losses: name of side -> its loss at each of the first steps.
      tolerance: the largest relative difference from the first side's.

    Raises:
      UserError: a loss is another one, or is no number; a benchmark of it would mean nothing.
    """
    (first, expected), *others = losses.items()
    for name, found in [(first, expected), *others]:
        for step, (value, other) in enumerate(zip(found, expected, strict=True), 1):
            if not math.isfinite(value) or not math.isclose(value, other, rel_tol=tolerance):
                raise UserError(
                    f"the sides do not compute the same: at step {step} the loss of '{name}' is "
                    f"{value:.6g} and that of '{first}' is {other:.6g}; expected finite ones "
                    f"within {tolerance:g} of each other"
                )


def describe() -> dict[str, Any]:
    """Returns what every report begins with: command, commit and machine, without any path.

    Says so where something else is running: PyTorch's threads wait for each other at every
    operation, and suffer from it far more than JAX's do.
    """
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > 0.25 * cores:
        print(f"something else is running (load {load:.1f} on {cores} cores): believe no number")
    return {
        "command": _command(sys.argv),
        **_commit(),
        "machine": machine(),
        "load_before": round(load, 2),
    }


def machine() -> dict[str, Any]:
    """Returns what the measurements were made on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": describe_processor(),
        "memory_gib": round(_memory_kib(_read("/proc/meminfo")) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown; all columns but the first are aligned to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        ("-" * width) if i == 0 else ("-" * (width - 1) + ":") for i, width in enumerate(widths)
    ]
    return "\n".join([line(columns), line(rule), *map(line, rows)])


def spread(summary: Mapping[str, Any], digits: int = 2, scale: float = 1.0) -> str:
    """Returns a summary as text.

    >>> spread({"median": 1.257, "quartiles": [1.1, 1.3]})
    '1.26 (1.10 to 1.30)'
    """
    median, (low, high) = summary["median"] * scale, summary["quartiles"]
    return f"{median:.{digits}f} ({low * scale:.{digits}f} to {high * scale:.{digits}f})"


def named(side: Mapping[str, Any]) -> str:
    """Returns a side's name with what it ran on.

    >>> named({"side": "ours", "versions": {"jax": "0.12.0", "python": "3.12.1"}})
    'ours (jax 0.12.0, Python 3.12.1)'
    """
    versions = side["versions"]
    library = "jax" if "jax" in versions else "torch"
    return f"{side['side']} ({library} {versions[library]}, Python {versions['python']})"


def write(out: Path | None, report: Mapping[str, Any]) -> None:
    """Writes a report as JSON, if there is a place to write it to."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Lists of numbers stay on one line.
        text = json.dumps(report, indent=1)
        text = re.sub(r"\[\s+([-\d.,e\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
        out.write_text(text + "\n")
        print(f"\nwritten to {out}")


def _command(argv: Sequence[str]) -> str:
    """The command as anyone would give it: names of files, and not where they lie here."""
    arguments = []
    for argument in argv[1:]:
        name, equals, value = argument.rpartition("=")
        arguments.append(f"{name}{equals}{value.rsplit('/')[-1]}")
    return " ".join(["python", f"benchmarks/{Path(argv[0]).name}", *arguments])


def _commit() -> dict[str, Any]:
    """The commit measured, and whether the files were the ones committed; None where unknown."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return {"commit": git("rev-parse", "HEAD"), "changed_since": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed_since": None}


def _memory_kib(meminfo: str) -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
