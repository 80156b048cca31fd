"""The first signal is noticed, the second ends the process."""

import os
import signal
import subprocess
import sys

import pytest

from dmfer_jax.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_is_noticed_and_later_ones_are_left_to_whoever_had_them(number):
    came = []
    before = signal.signal(number, lambda number, frame: came.append(number))
    try:
        with Interruption() as interruption:
            assert interruption.signal is None
            os.kill(os.getpid(), number)
            assert (interruption.signal, came) == (number, [])
        assert interruption.exit_status == 128 + number
        os.kill(os.getpid(), number)
        assert came == [number]
    finally:
        signal.signal(number, before)


def test_second_signal_ends_the_process_at_once():
    script = """
import os, signal, time
from dmfer_jax.interruption import Interruption
with Interruption() as interruption:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    print(interruption.exit_status, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
print("still there")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert (ended.stdout, ended.returncode) == ("130\n", -signal.SIGTERM)


def test_process_that_stops_for_the_signal_of_another_says_sigterm():
    assert Interruption().exit_status == 128 + signal.SIGTERM


def test_closed_terminal_ends_nothing_that_nohup_keeps():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert interruption.signal is None
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
