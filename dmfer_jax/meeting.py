"""Where processes that were started by hand meet, before JAX connects them.

JAX ends the process in C++ when one of them does not come or was told another number, without a
word of which. So they exchange what they were told first, over the port that JAX uses next.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from dmfer_jax.errors import UserError

_RETRY = 0.3  # seconds
_SPEAKS_WITHIN = 5.0  # seconds; whoever says nothing keeps the next ones waiting
_LONGEST = 4096  # bytes of a message


def meet(coordinator: str, processes: int, process: int, timeout: float) -> None:
    """Waits until all processes are there and were told the same.

    Args:
      coordinator: "host:port" at which process 0 waits for the others.
      processes: how many there are.
      process: which of them this is, counted from 0.
      timeout: seconds to wait.

    Raises:
      UserError: in every process that is there: which one is missing, or differs, and how.
    """
    host, port = _split(coordinator)
    until = time.monotonic() + timeout
    if process == 0:
        _gather(port, processes, until, timeout)
    else:
        _join(host, port, {"processes": processes, "process": process}, until, timeout)


def _split(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator is '{coordinator}'; expected host:port, the host that process 0 runs "
            "on and a free port there, such as --coordinator=10.0.0.1:8476"
        )
    return host.strip("[]"), int(port)


def _gather(port: int, processes: int, until: float, timeout: float) -> None:
    """What process 0 does: waits for the others, and tells all of them what came of it."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(port))
        guests: dict[int, socket.socket] = {}
        told: list[socket.socket] = []
        fault = ""
        try:
            while missing := set(range(1, processes)) - set(guests):
                guest = _in_time(server, until, lambda: server.accept()[0])
                if guest is None:
                    raise UserError(
                        f"{_name(missing)} of {processes} did not come to port {port} of process 0 "
                        f"within {timeout:.0f} s. Is every one started, with the same "
                        "--coordinator, and does the network let it through?"
                    )
                stack.enter_context(guest)
                words = _words(guest, min(until, time.monotonic() + _SPEAKS_WITHIN))
                if words is None:
                    continue  # a stranger that tries the port
                process, number = words
                told.append(guest)
                _check(process, number, processes, guests.get(process))
                guests[process] = guest
        except UserError as error:
            fault = str(error)
            raise
        finally:
            for guest in told:
                with contextlib.suppress(OSError):
                    guest.sendall(json.dumps({"fault": fault}).encode() + b"\n")


def _words(guest: socket.socket, until: float) -> tuple[int, int] | None:
    """Returns which process a guest says it is, and of how many; None if it says neither."""
    try:
        words = json.loads(_read_line(guest, until))
        return int(words["process"]), int(words["processes"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _check(process: int, processes: int, expected: int, before: socket.socket | None) -> None:
    """Says what is wrong with what a process was told.

    Args:
      process: which one it was told to be.
      processes: how many it was told there are.
      expected: how many there are.
      before: the connection of the one that came under this number, if any did.
    """
    if processes != expected:
        raise UserError(
            f"process 0 was started with --processes={expected} and process {process} with "
            f"--processes={processes}; give all of them the same"
        )
    if before is not None and not _is_closed(before):
        raise UserError(
            f"two processes were started with --process={process}; give each its own, from 0 to "
            f"{expected - 1}"
        )


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended, as when a process was started again."""
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def _join(host: str, port: int, told: dict[str, int], until: float, timeout: float) -> None:
    """What the other processes do: tell process 0, and hear what came of it."""
    where = f"{host}:{port}"
    reason = "it never answered"
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(json.dumps(told).encode() + b"\n")
                answer = json.loads(_read_line(connection, until + _RETRY))
        except (OSError, ValueError) as error:  # not started yet, or it was another program
            reason = str(error)
            time.sleep(_RETRY)
            continue
        if answer["fault"]:
            raise UserError(answer["fault"])
        return
    raise UserError(
        f"process {told['process']} could not reach process 0 at {where} within {timeout:.0f} s "
        f"({reason}). Is it started, is --coordinator the host it runs on, and does the network "
        "let it through?"
    )


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port} ({error.strerror}); give another port in "
            "--coordinator, to all processes"
        ) from error


def _read_line(connection: socket.socket, until: float) -> bytes:
    """Reads up to the end of a line."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST:
        part = _in_time(connection, until, lambda: connection.recv(_LONGEST))
        if not part:
            raise ConnectionError("the connection was closed")
        line += part
    return line


def _in_time(waits: socket.socket, until: float, act: Callable[[], Any]) -> Any:
    """Does what waits at a socket; None if the time is over."""
    if (left := until - time.monotonic()) <= 0:
        return None
    waits.settimeout(left)
    try:
        return act()
    except TimeoutError:
        return None


def _name(missing: set[int]) -> str:
    numbers = ", ".join(map(str, sorted(missing)))
    return f"process {numbers}" if len(missing) == 1 else f"processes {numbers}"
