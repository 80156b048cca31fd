"""Tables and figure of an ablation, made of runs that never were."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dmfer_jax.errors import UserError
from dmfer_jax.reporting import ablation_figure, ablation_table, rows
from dmfer_jax.reporting.ablation_table import Findings
from dmfer_jax.reporting.differences import read_differences
from tests.made_up import make_report, say_of_both

VARIANTS = {"plain": {}, "+shallow": {"model.scales": "both"}, "squeeze_and_excitation": {}}


def rights(share: float, start: int) -> list[int]:
    return (np.random.default_rng(start).random(100) < share).astype(int).tolist()


def find(runs: dict[tuple[str, str], list[int]], steps: dict[str, str] | None = None) -> Findings:
    """Returns the findings of {(variant, seed): which images are right}."""
    made = []
    for (variant, seed), right in runs.items():
        report = make_report(int(seed), float(np.mean(right)))
        common = {"experiment": "tiny-parts", "config_digest": "0", "command": "python"}
        made += rows.rows_of_report(report, variant=variant, **common)
    said = {run: say_of_both(right) for run, right in runs.items()}
    return ablation_table.find(
        "tiny-parts", "plain", VARIANTS, made, lambda variant, seed: said[variant, seed], steps
    )


RUNS = {
    ("plain", "0"): rights(0.8, 0),
    ("+shallow", "0"): rights(0.9, 1),
    ("plain", "1"): rights(0.8, 2),
    ("+shallow", "1"): rights(0.9, 3),
    ("+shallow", "2"): rights(0.9, 4),
    ("squeeze_and_excitation", "1"): rights(0.8, 2),
}


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Two seeds of the baseline, three of a variant, and one of another."""
    return find(RUNS)


def printed(findings: Findings) -> str:
    output = io.StringIO()
    ablation_table.print_findings(findings, Console(file=output, width=80, highlight=False))
    assert max(map(len, output.getvalue().splitlines())) <= 80
    return output.getvalue()


def test_scores_are_means_and_deviations_over_seeds(findings):
    cells = [line.split() for line in printed(findings).splitlines()]
    first, second = (100 * np.mean(RUNS["plain", seed]) for seed in "01")
    deviation = abs(first - second) / np.sqrt(2)  # of two values, with n - 1
    expected = f"{(first + second) / 2:.2f}±{deviation:.2f}"
    assert ["plain", "2", expected, "66.67±0.00", "50.00±0.00", "40.00±0.00"] in cells
    one = f"{100 * np.mean(RUNS['squeeze_and_excitation', '1']):.2f}"
    assert ["squeeze_and_excitation", "1", one, "66.67", "50.00", "40.00"] in cells


def test_differences_are_of_the_seeds_that_both_have(findings):
    found = {(one.split, one.variant): one for one in findings.differences}
    assert list(found) == [(split, name) for split in ("valid", "test") for name in [*VARIANTS][1:]]
    shallow = found["test", "+shallow"]
    assert (shallow.seeds, shallow.images) == (("0", "1"), 100)
    expected = np.mean([RUNS["+shallow", seed] for seed in "01"])
    expected -= np.mean([RUNS["plain", seed] for seed in "01"])
    interval = shallow.intervals["accuracy"]
    assert interval.value == pytest.approx(expected)
    assert interval.low < interval.value < interval.high
    # The third variant says of every image what the baseline of the same seed says.
    same = found["valid", "squeeze_and_excitation"]
    assert (same.seeds, tuple(same.intervals["accuracy"])) == (("1",), (0, 0, 0))


def test_reader_is_told_what_the_numbers_are_worth(findings):
    text = " ".join(printed(findings).split())
    assert "valid, best on valid, percent: the split that chose it, so too high" in text
    assert "test, best on valid, percent variant" in text
    assert "4 intervals on each split, each meant to leave out 0 once in 20 times" in text
    assert "marked *: one seed, so the interval is over images alone" in text
    assert "squeeze_and_excitation 1* +0.00 [+0.00, +0.00]" in text
    assert "no finished run yet" not in text
    alone = " ".join(printed(find({("plain", "0"): [1, 0]})).split())
    assert "no finished run yet: +shallow, squeeze_and_excitation" in alone
    assert "comparison" not in alone


def test_a_mean_of_some_seeds_says_so_and_none_is_of_those_whose_best_epoch_is_the_last(findings):
    harm = dict.fromkeys(rows.STRESS, "0.700000")
    told = [
        {**row, **(harm if (row["variant"], row["seed"]) == ("plain", "1") else {})}
        for row in findings.rows
    ]
    text = printed(findings._replace(rows=told))
    lines = [line.split() for line in text.splitlines()]
    assert ["plain", "2", *["70.00", "(1/2)"] * 3] in lines
    assert ["plain", "2", "-", "-", "-"] in lines
    assert "(2/3): of two seeds of three" in text
    assert "(2/3)" not in printed(findings)


def test_runs_of_other_images_are_not_compared():
    with pytest.raises(UserError, match=r"'\+shallow' and of 'plain' .* other images"):
        find({("plain", "0"): [1, 0, 1], ("+shallow", "0"): [1, 0]})


def test_written_are_a_table_and_a_file_of_differences(findings, tmp_path):
    ablation_table.write_findings(tmp_path, findings)
    text = (tmp_path / "table.md").read_text()
    assert "| `+shallow` | `model.scales=both` |" in text
    assert "| `plain` (baseline) | - |" in text
    assert "**test, last epoch, minus plain, points**" in text
    with (tmp_path / "differences.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == 2 * 2 * 3
    first = findings.differences[0]
    assert written[0]["seeds"] == "0+1"
    assert float(written[0]["low"]) == pytest.approx(first.intervals["accuracy"].low, abs=1e-6)


def test_a_step_is_compared_with_the_variant_before_too(findings, tmp_path):
    stepped = find(RUNS, {"squeeze_and_excitation": "+shallow", "+shallow": "plain"})
    (of_valid, of_test) = [one for one in stepped.differences if one.against != "plain"]
    assert (of_valid.variant, of_valid.seeds, of_test.split) == (
        "squeeze_and_excitation",
        ("1",),
        "test",
    )
    expected = np.mean(RUNS["squeeze_and_excitation", "1"]) - np.mean(RUNS["+shallow", "1"])
    assert of_valid.intervals["accuracy"].value == pytest.approx(expected)
    assert [one for one in stepped.differences if one.against == "plain"] == findings.differences
    text = " ".join(printed(stepped).split())
    assert "valid, last epoch, each step by itself, points step seeds accuracy" in text
    assert "6 intervals on each split" in text
    ablation_table.write_findings(tmp_path, stepped)
    assert "| `squeeze_and_excitation - +shallow` | 1* |" in (tmp_path / "table.md").read_text()
    kept = ablation_table.keep_known(find({("plain", "0"): [1, 0]}), read_differences(tmp_path))
    assert [(one.variant, one.against) for one in kept.differences[:3]] == [
        ("+shallow", "plain"),
        ("squeeze_and_excitation", "plain"),
        ("squeeze_and_excitation", "+shallow"),
    ]


def test_figure_is_drawn_for_screen_and_print(findings, tmp_path):
    paths = ablation_figure.draw_findings(tmp_path, findings)
    assert [Path(path).name for path in paths] == ["ablation.png", "ablation.pdf"]
    with Image.open(paths[0]) as picture:
        assert min(picture.size) > 300
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert ablation_figure.draw_findings(tmp_path, find({("plain", "0"): [1, 0]})) == []
