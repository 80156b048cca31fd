"""Kills short training runs at random moments, goes on with each, and compares what comes out.

  python benchmarks/kill_and_resume.py --out=results/kill_and_resume.json

Each trial starts the training command in a folder of its own, ends it with SIGKILL, gives the same
command again and lets it finish. Every other trial waits, at its moment, for the next checkpoint
that is being written. The run that nothing interrupts is the measure: the digests of all arrays in
the last checkpoint, the report's scores, and every line of the log but for speeds must be the same.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measurements
from benchmarks.devices import NETWORK
from benchmarks.side_by_side import run
from dmfer_jax.checkpoint_record import read_record
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.writers import read_jsonl

FIELDS: dict[str, Any] = {
    **NETWORK,
    "optimizer.learning_rate": 1.0,
    "train.batch_size": 8,
    "train.eval_batch_size": 16,
    "train.log_every": 5,
    "train.checkpoint_every": 4,
}
"""Saves more often than anyone would."""

_TIMED = ("images_per_second", "input_wait")  # depend on the machine, not on the run


def main() -> None:
    """Runs the trials, prints a table and writes the report."""
    parser = argparse.ArgumentParser(description="Kills training runs and goes on with them.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=40, help="of 6 steps each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        finish(whole, options.epochs)  # compiles; what follows reads what it has kept
        began, whole = time.monotonic(), Path(folder) / "whole_again"
        finish(whole, options.epochs)
        seconds = time.monotonic() - began
        random, rows = np.random.default_rng(options.seed), []
        for number in range(1, options.trials + 1):
            workdir, killed = Path(folder) / str(number), None
            while not killed:  # not even begun where the run was over before
                shutil.rmtree(workdir, ignore_errors=True)
                moment = random.uniform(0, seconds)
                killed = kill(workdir, options.epochs, moment, in_flight=number % 2 == 0)
            finish(workdir, options.epochs)
            rows.append({"trial": number, **killed, **compare(whole, workdir)})
            print(rows[-1], flush=True)
    print(f"\nthe run that nothing interrupts takes {seconds:.1f} s\n")
    print(measurements.table(list(rows[0]), [[_cell(v) for v in row.values()] for row in rows]))
    report = {**measurements.describe(), "fields": {**FIELDS, "train.epochs": options.epochs}}
    measurements.write(options.out, {**report, "seconds": round(seconds, 1), "trials": rows})
    if bad := [row["trial"] for row in rows if not (row["same_bits"] and row["same_log"])]:
        raise UserError(f"trials {bad} did not end as the run that nothing interrupts")


def command(workdir: Path, epochs: int) -> list[str]:
    """Returns the training command."""
    fields = {**FIELDS, "train.epochs": epochs}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    start = [sys.executable, "-m", "dmfer_jax.train", "--config=configs/synthetic.py"]
    return [*start, f"--workdir={workdir}", *flags]


def finish(workdir: Path, epochs: int) -> None:
    """Trains to the end.

    Raises:
      UserError: the command failed.
    """
    done = subprocess.run(command(workdir, epochs), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"training in {workdir} ended with {done.returncode}: {done.stderr[-500:]}")


def kill(workdir: Path, epochs: int, moment: float, in_flight: bool) -> dict[str, Any] | None:
    """Begins to train and kills the process.

    Args:
      workdir: of the run.
      epochs: of the run.
      moment: seconds from the start of the command.
      in_flight: whether to wait from then on until a checkpoint is being written.

    Returns:
      `killed_after` in seconds, `log_step`, the last step that the log tells of, and
      `save_in_flight`, whether there was a checkpoint that was not complete. None if the run was
      over by then.
    """
    process = subprocess.Popen(
        command(workdir, epochs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    time.sleep(moment)
    while in_flight and process.poll() is None and not _unfinished(workdir):
        time.sleep(0.001)
    killed_after = time.monotonic() - began
    process.kill()
    if process.wait() != -signal.SIGKILL:
        return None
    rows = read_jsonl(workdir / "metrics.jsonl")
    return {
        "killed_after": round(killed_after, 2),
        "log_step": rows[-1]["step"] if rows else 0,
        "save_in_flight": _unfinished(workdir),
    }


def compare(whole: Path, workdir: Path) -> dict[str, bool]:
    """Returns whether a run has ended as another one.

    Args:
      whole: folder of the run that nothing interrupted.
      workdir: of the other one.

    Returns:
      `same_bits`: all arrays of the last checkpoint and all scores; `same_log`: every line but for
      speeds; `tidy`: nothing unfinished is left.
    """
    steps = [max(int(p.name) for p in (w / "checkpoints").iterdir()) for w in (whole, workdir)]
    arrays = [
        read_record(w / "checkpoints" / str(s)).arrays
        for w, s in zip((whole, workdir), steps, strict=True)
    ]
    scores = [json.loads((w / "report.json").read_text())["checkpoints"] for w in (whole, workdir)]
    logs = [
        [{k: v for k, v in row.items() if k not in _TIMED} for row in read_jsonl(path)]
        for path in (whole / "metrics.jsonl", workdir / "metrics.jsonl")
    ]
    return {
        "same_bits": steps[0] == steps[1] and arrays[0] == arrays[1] and scores[0] == scores[1],
        "same_log": logs[0] == logs[1],
        "tidy": not _unfinished(workdir) and not (workdir / "run.lock").exists(),
    }


def _unfinished(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.partial*"))


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    run(main)
