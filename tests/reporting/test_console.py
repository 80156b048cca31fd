"""Progress counts only its own work, and stays readable where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

from dmfer_jax.reporting.console import (
    Progress,
    duration,
    number,
    percent,
    print_table,
    whole_percent,
)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def make(clock, *, terminal=False, start_step=0, total_steps=100, total_epochs=10):
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=terminal, highlight=False)
    progress = Progress(
        total_steps=total_steps,
        total_epochs=total_epochs,
        batch_size=32,
        start_step=start_step,
        console=console,
        clock=clock,
    )
    return progress, output


def visible(output):
    """Returns what a terminal shows, without the codes for colours and moves."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).replace("\r", "\n")


def test_speed_after_resume_counts_this_process_only():
    clock = Clock()
    progress, _ = make(clock, start_step=50)
    with progress:
        assert progress.images_per_second is None
        clock.seconds += 20
        progress.update(60, 6)
    # 10 steps of 32 images in 20 seconds; 40 steps are left.
    assert progress.images_per_second == pytest.approx(16)
    assert progress.remaining_seconds == pytest.approx(80)


def test_steps_that_are_left_out_make_no_speed():
    clock = Clock()
    progress, _ = make(clock)
    with progress:
        with progress.paused("first step"):
            clock.seconds += 50
            progress.leave_out(1)
        clock.seconds += 10
        progress.update(11, 2)
    assert progress.images_per_second == pytest.approx(32)


def test_wait_for_input_is_a_share_of_the_counted_time():
    clock = Clock()
    progress, _ = make(clock)
    with progress:
        assert progress.input_wait is None
        with progress.paused("compiling"), progress.waiting_for_input():
            clock.seconds += 500
        with progress.waiting_for_input():
            clock.seconds += 3
        clock.seconds += 9
        progress.update(1, 1)
        # 3 of 12 seconds; those while it compiled are no part of either.
        assert progress.input_wait == pytest.approx(0.25)


@pytest.mark.parametrize(("waited", "shown"), [(1, False), (3, True)])
def test_a_wait_for_input_is_named_only_where_it_is_long(waited, shown):
    clock = Clock()
    progress, output = make(clock)
    with progress:
        with progress.waiting_for_input():
            clock.seconds += waited
        clock.seconds += 100 - waited
        progress.update(1, 1)
    assert (f"waits for input {waited} %" in visible(output)) == shown


def test_pauses_count_neither_time_nor_steps():
    clock = Clock()
    progress, _ = make(clock)
    with progress:
        with progress.paused("compiling"):
            clock.seconds += 500
            progress.update(1, 1)
        clock.seconds += 10
        progress.update(11, 1)
        with progress.paused("evaluating"):
            clock.seconds += 50
            assert progress.images_per_second == pytest.approx(32)
    assert progress.images_per_second == pytest.approx(32)


def test_without_terminal_lines_come_every_ten_seconds_and_at_epoch_ends():
    clock = Clock()
    progress, output = make(clock)
    with progress:
        for step in range(1, 26):
            clock.seconds += 1
            progress.update(step, 1, loss=0.5, accuracy=0.75)
        progress.end_epoch(1, "valid accuracy 81.20 %")
    assert output.getvalue().splitlines() == [
        "epoch 1/10, step 10/100: loss 0.500, accuracy 75.00 %, 32 images/s, 0:01:30 left",
        "epoch 1/10, step 20/100: loss 0.500, accuracy 75.00 %, 32 images/s, 0:01:20 left",
        "epoch 1/10, step 25/100: valid accuracy 81.20 %",
    ]


def test_bar_shows_its_numbers_and_epoch_lines_stay():
    clock = Clock()
    progress, output = make(clock, terminal=True)
    with progress:
        clock.seconds += 10
        progress.update(50, 5, loss=0.5, accuracy=0.75)
        progress.end_epoch(5, "valid accuracy 81.20 % [not markup]")
    text = visible(output)
    assert "50/100 loss 0.500 acc 75.0 % 160 img/s ETA 0:00:10" in text
    assert "epoch 5/10, step 50/100: valid accuracy 81.20 % [not markup]" in text


def test_bar_of_a_long_run_is_whole_in_80_columns():
    clock = Clock()
    progress, output = make(clock, terminal=True, total_steps=98765, total_epochs=40)
    with progress:
        clock.seconds += 80
        progress.update(12500, 12, loss=1.2345, accuracy=0.853)
    last = visible(output).splitlines()[-1]
    assert last.startswith("epoch 12/40 ")
    assert last.rstrip().endswith("12500/98765 loss 1.234 acc 85.3 % 5,000 img/s ETA 0:09:12")
    assert len(last) <= 80


def test_numbers_are_formatted_for_readers():
    assert [number(None), number(1234.5678, 1)] == ["-", "1,234.6"]
    assert [percent(None), percent(0.8963)] == ["-", "89.63 %"]
    assert [duration(59.6), duration(3725.4)] == ["0:01:00", "1:02:05"]


def test_table_of_plain_text_has_one_line_per_row():
    output = io.StringIO()
    console = Console(file=output, width=80)
    print_table(console, "Title", ["split", "accuracy"], [["valid", "81.20 %"], ["test", "-"]])
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert ["Title"] in lines
    assert ["valid", "81.20", "%"] in lines
    assert ["test", "-"] in lines


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (0.001, "<1 %"),
        (0.006, "1 %"),
        (0.5, "50 %"),
        (0.997, ">99 %"),
        (1.0, "100 %"),
    ],
)
def test_nearly_none_and_nearly_all_are_told_from_none_and_all(share, text):
    assert whole_percent(share) == text
