"""A stress test is readable as a table in 80 columns, as curves, and as a sheet of examples."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dmfer_jax.data.corruptions import CORRUPTIONS, corrupt
from dmfer_jax.reporting.stress_report import draw_stress_curves, draw_stress_figures, print_stress
from dmfer_jax.stress_sheet import contact_sheet


def make_found(first=0.75):
    """Kind number i scores `first` - 0.01 i at level 1, and 0.1 less at each level after it."""
    kinds = {}
    for number, (kind, corruption) in enumerate(CORRUPTIONS.items()):
        accuracy = [first - 0.01 * number - 0.1 * level for level in range(5)]
        kinds[kind] = {
            "parameter": corruption.parameter,
            "unit": corruption.unit,
            "values": list(corruption.values),
            "accuracy": accuracy,
            "mean_class_accuracy": [value - 0.05 for value in accuracy],
        }
    return {
        "examples": 3137,
        "clean": {"accuracy": 0.8, "mean_class_accuracy": 0.7},
        "kinds": kinds,
        "mean_accuracy": 0.5,  # 0.75, less 0.05 on the mean of kinds and 0.2 on that of levels
        "mean_class_accuracy": 0.45,
        "relative": 0.625,
    }


def make_report(found):
    last = {"epoch": 12, "step": 9384, "splits": {}, "centers": None}
    return {"checkpoints": {"last": last | ({"stress": {"test": found}} if found else {})}}


def printed(found):
    output = io.StringIO()
    print_stress(make_report(found), Console(file=output, width=80, highlight=False))
    return output.getvalue()


def test_printed_table_has_one_line_per_kind_in_80_columns():
    text = printed(make_found())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "Stress on test: Last epoch (epoch 12, step 9384)" in lines
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["eye_band"][1:7] == ["74.0", "64.0", "54.0", "44.0", "34.0", "54.0"]
    assert " ".join(rows["eye_band"][7:]) == "10 to 50 % of the face"
    assert " ".join(rows["jpeg"][7:]) == "30 to 3 of 100"
    assert rows["mean"][1:] == ["70.0", "60.0", "50.0", "40.0", "30.0", "50.0"]
    assert set(CORRUPTIONS) <= set(rows)
    mean = "accuracy unharmed 80.00 %, mean over kinds and levels 50.00 % (62.5 % of it)"
    assert mean in lines


def test_table_of_a_perfect_network_fits_too():
    perfect = make_found()
    for row in perfect["kinds"].values():
        row["accuracy"] = [1.0] * 5
    lines = printed(perfect | {"mean_accuracy": 1.0}).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.split()[1:7] == ["100.0"] * 6 for line in lines) == len(CORRUPTIONS) + 1
    assert sum("% of the face" in line for line in lines) == 4  # none is broken


def test_report_without_a_stress_test_prints_and_draws_nothing(tmp_path):
    assert printed(None) == ""
    assert draw_stress_figures(tmp_path, make_report(None)) == []


def test_network_that_is_never_right_is_printed_and_drawn(tmp_path):
    found = make_found() | {"relative": None, "clean": {"accuracy": 0.0, "mean_class_accuracy": 0}}
    assert "accuracy unharmed 0.00 %" in printed(found)
    draw_stress_curves(tmp_path / "a.png", found, "Stress")
    assert (tmp_path / "a.png").exists()


def test_figure_has_its_size_and_follows_the_data(tmp_path):
    for name, first in (("a", 0.75), ("b", 0.7), ("again", 0.75)):
        (path,) = draw_stress_figures(tmp_path / name, make_report(make_found(first)))
        assert path == tmp_path / name / "last_test_stress.png"
    a, b, again = (
        np.asarray(Image.open(tmp_path / n / "last_test_stress.png")) for n in ("a", "b", "again")
    )
    # Three rows of 2.1 inches, 0.9 for title and legend, 150 pixels to the inch.
    assert a.shape[:2] == pytest.approx((150 * (0.9 + 3 * 2.1), 150 * 10), abs=1)
    assert not np.array_equal(a, b)
    assert np.array_equal(a, again)


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_shows_the_image_and_all_its_harm(channels):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, channels), np.uint8)
    sheet = np.asarray(contact_sheet(image, row=5))

    def stands_in_sheet(tile, row, column):
        # Of the layout: 92 and 16 pixels for the names, tiles 34 pixels apart, 44 down.
        top, left = 16 + 44 * row, 92 + 34 * column
        shown = sheet[top : top + 32, left : left + 32]
        return np.array_equal(shown, np.broadcast_to(tile, (32, 32, 3)))

    for row, kind in enumerate(CORRUPTIONS):
        assert stands_in_sheet(image, row, 0)
        for level in range(1, 6):
            assert stands_in_sheet(corrupt(image, kind, level, 5), row, level)
