"""Processes that are started by hand meet, or all hear what is wrong."""

import contextlib
import socket
import threading
import time

import pytest

from benchmarks.devices import free_port
from dmfer_jax import meeting
from dmfer_jax.errors import UserError


def meet(*told: tuple[int, int], timeout: float = 20, stranger: bytes | None = None) -> list[str]:
    """What each process hears that was told (processes, process); "" is that all are there."""
    port, heard = free_port(), [""] * len(told)

    def come(index: int, processes: int, process: int) -> None:
        try:
            meeting.meet(f"localhost:{port}", processes, process, timeout)
        except UserError as error:
            heard[index] = str(error)

    threads = [threading.Thread(target=come, args=(i, *one)) for i, one in enumerate(told)]
    with contextlib.ExitStack() as stack:
        for index, thread in enumerate(threads):
            thread.start()
            if stranger is not None and index == 0:
                connection = stack.enter_context(connect(port))
                connection.sendall(stranger)  # who stays
        for thread in threads:
            thread.join()
    return heard


def connect(port: int) -> socket.socket:
    """Connects as soon as somebody listens."""
    for _ in range(600):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("localhost", port))
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens at port {port}")


def test_processes_that_were_told_the_same_meet():
    assert meet((3, 0), (3, 1), (3, 2)) == ["", "", ""]


def test_one_that_comes_before_process_0_waits_for_it():
    assert meet((2, 1), (2, 0)) == ["", ""]


def test_a_stranger_at_the_port_does_no_harm():
    said = b"GET / HTTP/1.1\r\n\r\n"
    assert meet((2, 0), stranger=said, timeout=2)[0].startswith("process 1 of 2 did not come")


def test_a_stranger_that_says_nothing_keeps_nobody_waiting_for_long(monkeypatch):
    monkeypatch.setattr(meeting, "_SPEAKS_WITHIN", 0.5)
    assert meet((2, 0), (2, 1), timeout=4, stranger=b"") == ["", ""]


def test_all_hear_which_process_is_missing():
    heard = meet((4, 0), (4, 2), timeout=2)
    assert heard[0].startswith("processes 1, 3 of 4 did not come to port ")
    assert heard[1] == heard[0]


def test_all_hear_of_different_numbers():
    assert (
        meet((2, 0), (3, 1))
        == [
            "process 0 was started with --processes=2 and process 1 with --processes=3; "
            "give all of them the same"
        ]
        * 2
    )


def test_all_hear_of_a_number_given_twice():
    heard = meet((3, 0), (3, 1), (3, 1))
    assert set(heard) == {
        "two processes were started with --process=1; give each its own, from 0 to 2"
    }


def test_coordinator_that_nobody_listens_at_is_named():
    port = free_port()
    with pytest.raises(UserError, match=rf"could not reach process 0 at localhost:{port} within 1"):
        meeting.meet(f"localhost:{port}", 2, 1, timeout=1)


def test_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"process 0 cannot listen at port {port}"):
            meeting.meet(f"localhost:{port}", 2, 0, timeout=1)
