"""What a run says while it runs, and the tables it prints.

On a terminal: a bar with speed, remaining time, loss and accuracy. Elsewhere (a log file, a
notebook, a CI job): plain lines, few enough to read.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rich import box, progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Progress:
    """Shows how far training is; a context manager.

    Speed and remaining time count only the steps that this process took, and leave out the time
    spent in `paused`. So they are right from the start after a resume, and neither compilation nor
    evaluation makes them jump.

    Args:
      total_steps: steps of the whole run.
      total_epochs: epochs of the whole run.
      batch_size: images per step, over all devices and processes.
      start_step: the step that a resumed run goes on from.
      console: where to print; standard output unless told.
      interval: seconds between two plain lines where there is no terminal.
      clock: returns seconds; tests pass their own.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        total_epochs: int,
        batch_size: int,
        start_step: int = 0,
        console: Console | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total_steps = total_steps
        self._total_epochs = total_epochs
        self._batch_size = batch_size
        self._console = console or Console(highlight=False)
        self._interval = interval
        self._clock = clock
        self._step = start_step
        self._counted_steps = 0
        self._started = self._last_line = clock()
        self._idle_seconds = 0.0
        self._waited_seconds = 0.0
        self._paused_since: float | None = None
        self._bar: progress.Progress | None = None
        self._task = progress.TaskID(0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("epoch {task.fields[epoch]}"),
                # The words and numbers take up to 73 columns and matter more than the bar.
                progress.BarColumn(bar_width=min(max(self._console.width - 73, 5), 40)),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[status]}"),
                console=self._console,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task(
                "train",
                total=self._total_steps,
                completed=self._step,
                epoch=f"-/{self._total_epochs}",
                status="starting",
            )
            self._bar.start()
        self._started = self._last_line = self._clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def images_per_second(self) -> float | None:
        """The mean over this process's counted steps; None before the first one."""
        seconds = self._counted_seconds()
        return self._counted_steps * self._batch_size / seconds if seconds else None

    @property
    def input_wait(self) -> float | None:
        """The share of its counted time that this process spent in `waiting_for_input`, 0 to 1."""
        seconds = self._counted_seconds()
        return self._waited_seconds / seconds if seconds else None

    @property
    def remaining_seconds(self) -> float | None:
        """How long the steps still to do will take at this speed; None before the first one."""
        speed = self.images_per_second
        left = (self._total_steps - self._step) * self._batch_size
        return left / speed if speed else None

    @contextlib.contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Counts the time inside as time in which nothing could be computed for want of input."""
        since = self._clock()
        yield
        if self._paused_since is None:
            self._waited_seconds += self._clock() - since

    @contextlib.contextmanager
    def paused(self, reason: str = "") -> Iterator[None]:
        """Leaves the time inside, and the steps that `update` reports inside, out of the speed.

        Args:
          reason: shown beside the bar meanwhile, such as "compiling" or "evaluating".
        """
        if self._paused_since is not None:
            yield  # inside another pause, which counts the time of both
            return
        self._paused_since = self._clock()
        if self._bar and reason:
            self._bar.update(self._task, status=reason)
        try:
            yield
        finally:
            self._idle_seconds += self._clock() - self._paused_since
            self._paused_since = None

    def update(
        self, step: int, epoch: int, *, loss: float | None = None, accuracy: float | None = None
    ) -> None:
        """Tells how far the run is.

        Args:
          step: steps taken, those before a resume included.
          epoch: the current epoch, counted from 1.
          loss: the latest training loss.
          accuracy: the latest training accuracy, 0 to 1.
        """
        if self._paused_since is None:
            self._counted_steps += step - self._step
        self._step = step
        if self._bar:
            status = " ".join(self._numbers(loss, accuracy, short=True))
            self._bar.update(
                self._task, completed=step, epoch=f"{epoch}/{self._total_epochs}", status=status
            )
        elif self._clock() - self._last_line >= self._interval:
            self._print_line(epoch, self._numbers(loss, accuracy, short=False))

    def leave_out(self, step: int) -> None:
        """Leaves the steps up to this one out of the speed, as the time that they took is."""
        self._step = step

    def end_epoch(self, epoch: int, results: str = "") -> None:
        """Prints a line that stays, above the bar where there is one.

        Args:
          epoch: the epoch that ended, counted from 1.
          results: what came out, such as "valid accuracy 81.2 %, loss 0.612".
        """
        self._print_line(epoch, [results] if results else [])

    def print(self, text: str) -> None:
        """Prints a line, above the bar where there is one; the text is taken as it is."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _print_line(self, epoch: int, parts: Sequence[str]) -> None:
        head = f"epoch {epoch}/{self._total_epochs}, step {self._step}/{self._total_steps}"
        self.print(": ".join([head, ", ".join(parts)]) if parts else head)
        self._last_line = self._clock()

    def _counted_seconds(self) -> float | None:
        """Seconds of the counted steps; None before the first one."""
        seconds = self._clock() - self._started - self._idle_seconds
        if self._paused_since is not None:
            seconds -= self._clock() - self._paused_since
        return seconds if self._counted_steps and seconds > 0 else None

    def _numbers(self, loss: float | None, accuracy: float | None, short: bool) -> list[str]:
        """Formats what is known; short enough to stand beside a bar in 80 columns, or in words."""
        remaining = "-" if self.remaining_seconds is None else duration(self.remaining_seconds)
        waits = self.input_wait or 0.0
        shows_wait = waits > _MUCH_WAITING
        if short:
            shown = [f"loss {number(loss)}", f"acc {percent(accuracy, 1)}"]
            shown += [f"{number(self.images_per_second, 0)} img/s", f"ETA {remaining}"]
            return [*shown, f"input wait {percent(waits, 0)}"] if shows_wait else shown
        shown = [
            f"loss {number(loss)}",
            f"accuracy {percent(accuracy)}",
            f"{number(self.images_per_second, 0)} images/s",
            f"{remaining} left",
        ]
        return [*shown, f"waits for input {percent(waits, 0)}"] if shows_wait else shown


_MUCH_WAITING = 0.02
"""A share of time waited for input that is worth a word; a faster disk or more workers help."""


def number(value: float | None, digits: int = 3) -> str:
    """Formats a number, with commas between thousands; "-" for None.

    >>> number(1234.5678, 1)
    '1,234.6'
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def whole_percent(share: float) -> str:
    """Returns a share from 0 to 1 as whole percent, "<1 %" or ">99 %" where it is not 0 or 1."""
    text = f"{100 * share:.0f} %"
    if text == "0 %" and share > 0:
        return "<1 %"
    return ">99 %" if text == "100 %" and share < 1 else text


def percent(value: float | None, digits: int = 2) -> str:
    """Formats a fraction from 0 to 1 in percent; "-" for None.

    >>> percent(0.8963)
    '89.63 %'
    """
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def hundredths(value: float | None) -> str:
    """Formats a fraction as `percent` does, for a column whose name has the sign.

    >>> hundredths(0.8963)
    '89.63'
    """
    return "-" if value is None else f"{100 * value:.2f}"


def duration(seconds: float) -> str:
    """Formats a time as hours, minutes and seconds.

    >>> duration(3725.4)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def print_table(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Prints a table whose first column is text and whose other columns are numbers.

    Args:
      console: where to.
      title: a line above it.
      header: one name per column; may hold a newline.
      rows: cells as they shall appear, already formatted.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(header):
        table.add_column(escape(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    # Not the table's own title, which is broken at the table's width.
    console.print(f"\n[bold]{escape(title)}[/bold]")
    console.print(table)
