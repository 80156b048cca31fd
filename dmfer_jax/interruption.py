"""Ctrl-C and the signal that asks a process to end: noticed, and acted on between two steps.

SIGTERM is also how clouds and schedulers tell that a machine will be taken away, and SIGHUP how a
terminal tells that it was closed. Under nohup the second is ignored, and stays so.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a process to end, and that it may answer."""


@contextlib.contextmanager
def ending_tidily() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end what is inside as Ctrl-C does, so that nothing half-made stays.

    Only where they would end the process at once, and in the main thread.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + number)  # what a shell expects of a process that a signal ended

    main, previous = threading.current_thread() is threading.main_thread(), dict[int, Any]()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if main and signal.getsignal(number) is signal.SIG_DFL:
            previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interruption:
    """Catches the first SIGINT, SIGTERM or SIGHUP while it is entered; a second one ends at once.

    The second one is left to the system, which ends the process even while it computes or compiles.

    Attributes:
      signal: the number of the signal that came, None before.
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in STOPS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that a signal ended: 128 and the signal's number.

        Of several processes that stop together, those that no signal came to say SIGTERM.
        """
        return 128 + (self.signal or signal.SIGTERM)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        for caught in self._previous:
            signal.signal(caught, signal.SIG_DFL)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
