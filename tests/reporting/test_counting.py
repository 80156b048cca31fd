"""A long count says how far it is: in lines few enough to read, or as a bar on a terminal."""

import io

from rich.console import Console

from dmfer_jax.reporting.counting import counting
from dmfer_jax.reporting.counts import print_class_counts


def test_lines_tell_speed_and_time_left_at_most_once_an_interval():
    file = io.StringIO()
    console = Console(file=file, width=80)
    times = iter([0, 4, 8, 12, 12, 16, 20, 24, 24])  # a line looks at the clock once more
    with counting(console, 10_000, "images", interval=10, clock=lambda: next(times)) as advance:
        for _ in range(6):
            advance(1_000)
    # 3,000 in 12 seconds and 6,000 in 24: 250 a second, so 28 and 16 seconds are left.
    assert file.getvalue().splitlines() == [
        "3,000 of 10,000 images, 250 images/s, 0:00:28 left",
        "6,000 of 10,000 images, 250 images/s, 0:00:16 left",
    ]


def test_terminal_has_a_bar_that_fits_and_goes_away():
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    with counting(console, 287_651) as advance:
        advance(287_651)
    text = file.getvalue()
    assert "287651/287651\x1b[0m images" in text
    assert "ETA" in text
    assert text.endswith("\x1b[1A\x1b[2K")  # one line up, and erased: it never took two


def test_published_counts_of_joined_splits_stand_beside_their_sum():
    file = io.StringIO()
    counts = {"train": [3, 1], "valid": [1, 0], "test": [2, 2]}
    published = {"train+valid": (4, 2), "test": (2, 2), "other": (9, 9)}
    print_class_counts(Console(file=file, width=80), ["joy", "woe"], counts, published)
    rows = [line.split() for line in file.getvalue().splitlines() if line.strip()]
    assert rows[-3] == ["joy", "3", "1", "2", "4", "4", "2"]
    assert rows[-2] == ["woe", "1", "0", "2", "1", "2", "2"]
    assert rows[-1] == ["all", "4", "1", "4", "5", "6", "4"]
