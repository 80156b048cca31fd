"""The logs of a run: one JSON object per line, and TensorBoard.

A run may be killed at any moment and goes on from its last checkpoint, which is older than its last
log line. So each log is told on opening from which step the run goes on and forgets what came
after: the steps are done again and logged again, and the log reads as if nothing had happened.
"""

import json
import numbers
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import plain_json


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads a log; a last line that a killed process left unfinished is not part of it.

    Args:
      path: the file.

    Returns:
      One dict per line, in the order written. Empty when there is no file.

    Raises:
      UserError: a line other than the last one is not a JSON object with a `step`.
    """
    path = Path(path)
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:  # also text that is not UTF-8
            row = None
            if number == len(lines):
                break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UserError(
                f"{path}, line {number}: found {line[:60]!r}, expected a JSON object with a whole "
                f"number as `step`. Delete this line, or move the file away to start a new log."
            )
        rows.append(row)
    return rows


class JsonlLog:
    """Appends one JSON object per line.

    Args:
      path: the file; folders above it are made.
      resume_step: the step the run goes on from (that of the restored checkpoint). Lines of later
        steps are dropped, and so is an unfinished last line. A new run gives 0; steps that are
        trained on are counted from 1.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int):
        kept = [row for row in read_jsonl(path) if row["step"] <= resume_step]
        text = "".join(f"{plain_json.dump_line(row)}\n" for row in kept)
        files.write_text(path, text)
        self._path = Path(path)
        # Unbuffered: what a full disk has refused is not tried again when the file is closed.
        self._file = self._path.open("ab", buffering=0)

    def write(self, step: int, **values: Any) -> None:
        """Adds a line, which survives the death of this process.

        Args:
          step: how many steps have been taken.
          **values: numbers (Python, NumPy or JAX) and strings; NaN and infinity become null.

        Raises:
          UserError: the file cannot be written.
        """
        line = (plain_json.dump_line({"step": int(step), **values}) + "\n").encode()
        with files.writing(self._path):
            while line:  # a disk that gets full takes a part
                line = line[self._file.write(line) :]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardLog:
    """Writes scalars as TensorBoard event files, without TensorFlow.

    Args:
      folder: where the event files go.
      resume_step: as in `JsonlLog`; TensorBoard is told to hide what older files hold beyond it.
    """

    def __init__(self, folder: str | os.PathLike[str], resume_step: int):
        self._folder = os.fspath(folder)
        # Its thread ends where it cannot write, and a queue with a limit would be waited for then.
        self._writer = SummaryWriter(
            logdir=self._folder, purge_step=resume_step + 1, max_queue=0, flush_secs=30
        )

    def write(self, step: int, **values: Any) -> None:
        """Adds a point to one curve per number.

        Args:
          step: how many steps have been taken.
          **values: numbers become curves; `kind` and `split` (strings) name the group that they
            stand in, such as "train" or "eval_valid"; other strings and None are left out.

        Raises:
          UserError: what was written before could not be.
        """
        events: Any = self._writer._get_file_writer()
        if not events.event_writer._worker.is_alive():
            raise UserError(f"{self._folder} cannot be written any more; is the disk full?")
        group = "_".join(str(values[key]) for key in ("kind", "split") if key in values)
        for name, value in plain_json.to_plain(values).items():
            if isinstance(value, numbers.Real):
                self._writer.add_scalar(f"{group}/{name}" if group else name, value, int(step))

    def close(self) -> None:
        """Writes what is still in memory and closes the file.

        Raises:
          UserError: the file cannot be written.
        """
        with files.writing(self._folder):
            self._writer.close()


class RunLog:
    """Both logs of a run, as a context manager.

    Writes `workdir/metrics.jsonl` and `workdir/tensorboard/`.

    Args:
      workdir: the folder of the run.
      resume_step: the step the run goes on from; 0 for a new run.
      writes: False in all but one of several processes; then nothing is written.
    """

    def __init__(self, workdir: str | os.PathLike[str], resume_step: int, writes: bool = True):
        workdir = Path(workdir)
        self._logs: tuple[JsonlLog | TensorBoardLog, ...] = ()
        if not writes:
            return
        self._logs = (
            JsonlLog(workdir / "metrics.jsonl", resume_step),
            TensorBoardLog(workdir / "tensorboard", resume_step),
        )

    def write(self, step: int, kind: str, **values: Any) -> None:
        """Adds one row.

        Args:
          step: how many steps have been taken.
          kind: "train" or "eval"; rows of "eval" carry their `split`.
          **values: the row's numbers and strings.
        """
        for log in self._logs:
            log.write(step, kind=kind, **values)

    def close(self) -> None:
        """Closes both logs."""
        for log in self._logs:
            log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
