"""The first signal is noticed, the second acts as it always did."""

import os
import signal

import pytest

from dmfer_jax.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noticed_and_the_second_is_left_to_whoever_had_it(number):
    came = []
    before = signal.signal(number, lambda number, frame: came.append(number))
    try:
        with Interruption() as interruption:
            assert interruption.signal is None
            os.kill(os.getpid(), number)
            assert (interruption.signal, came) == (number, [])
            os.kill(os.getpid(), number)
            assert came == [number]
        assert interruption.exit_status == 128 + number
        os.kill(os.getpid(), number)
        assert came == [number, number]
    finally:
        signal.signal(number, before)


def test_process_that_stops_for_the_signal_of_another_says_sigterm():
    assert Interruption().exit_status == 128 + signal.SIGTERM
