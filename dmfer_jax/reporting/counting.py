"""Shows how far a long count is: a bar on a terminal, a plain line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich import progress
from rich.console import Console

from dmfer_jax.reporting.console import duration, number


@contextlib.contextmanager
def counting(
    console: Console,
    total: int,
    noun: str = "images",
    *,
    interval: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Shows progress towards a total, with speed and remaining time.

    Args:
      console: where to.
      total: of what is counted.
      noun: what is counted.
      interval: seconds between two plain lines where there is no terminal.
      clock: returns seconds; tests pass their own.

    Yields:
      A function to be called with the number done since it was last called.
    """
    if console.is_terminal:
        with progress.Progress(
            progress.BarColumn(bar_width=30),  # the rest takes up to 48 columns
            progress.MofNCompleteColumn(),
            progress.TextColumn(noun),
            progress.TextColumn("{task.fields[speed]}/s, ETA"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task("", total=total, speed="-")

            def advance(done: int) -> None:
                bar.update(task, advance=done, speed=number(bar.tasks[0].speed, 0))

            yield advance
        return

    began = last = clock()
    count = 0

    def print_line(done: int) -> None:
        nonlocal count, last
        count += done
        if clock() - last < interval:
            return
        last = clock()
        speed = count / (last - began)
        left = duration((total - count) / speed)
        console.print(f"{count:,} of {total:,} {noun}, {number(speed, 0)} {noun}/s, {left} left")

    yield print_line
