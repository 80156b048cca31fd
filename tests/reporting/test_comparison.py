"""The table of a comparison, from reports of runs that never were."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dmfer_jax.errors import UserError
from dmfer_jax.reporting import comparison, result_tables
from dmfer_jax.reporting.rows import COLUMNS, STRESS, rows_of_report
from tests.made_up import make_predictions, make_report

LOG = [
    {"step": 3, "kind": "train", "images_per_second": 10.0},
    {"step": 6, "kind": "eval", "accuracy": 0.5, "seconds": 900.0, "cpu_seconds": 1800.0},
    {"step": 9, "kind": "train", "images_per_second": 40.0},
    {"step": 12, "kind": "eval", "accuracy": 0.75, "seconds": 1800.0, "cpu_seconds": 3600.0},
]
COST = {"flops": 2_500_000, "peak_bytes": 3 * 10**9}

RIGHT = {  # what each run gets right of the same four images
    ("ours", 0): [1, 1, 1, 1],
    ("ours", 1): [1, 1, 0, 1],
    ("plain_torch", 0): [1, 0, 0, 1],
    ("plain_torch", 1): [1, 1, 0, 0],
}


def rows_of(system: str, seed: int, **changes: Any) -> list[dict[str, str]]:
    report = make_report(seed, float(np.mean(RIGHT[system, seed]))) | changes
    names = {"experiment": "made_up", "config_digest": "0", "command": "python -m ..."}
    return rows_of_report(report, variant=system, **names)


def cost_of(system: str, seed: int, goal: float | None = 0.75) -> dict[str, Any]:
    return comparison.list_cost(system, make_report(seed), LOG, COST, goal)


@pytest.fixture
def found() -> comparison.Comparison:
    rows = [row for run in RIGHT for row in rows_of(*run)]

    def said(system: str, seed: str) -> Any:
        return dict.fromkeys(("valid", "test"), make_predictions(RIGHT[system, int(seed)]))

    differences = comparison.find_differences("plain_torch", rows, said)
    costs = [cost_of(*run) for run in RIGHT]
    return comparison.Comparison("plain_torch", rows, costs, differences)


def printed(found: comparison.Comparison, width: int = 80) -> str:
    text = io.StringIO()
    comparison.print_comparison(found, Console(file=text, width=width, highlight=False))
    return text.getvalue()


def test_cost_of_a_run():
    assert cost_of("ours", 0) == {
        "system": "ours",
        "seed": 0,
        "flops": 2_500_000,
        "images_per_second": 40.0,  # of the last line: one that grows until then
        "peak_bytes": 3 * 10**9,
        "hours": 0.5,
        "cpu_hours": 0.9,
        "hours_to_baseline": 0.5,
        "cpu_hours_to_baseline": 1.0,
    }


@pytest.mark.parametrize(
    ("goal", "hours"), [(0.4, 0.25), (0.5, 0.25), (0.6, 0.5), (0.8, None), (None, None)]
)
def test_hours_to_the_baseline_are_those_of_the_first_epoch_that_reaches_it(goal, hours):
    assert cost_of("ours", 0, goal)["hours_to_baseline"] == hours


def test_tables_hold_means_over_seeds_and_paired_differences(found):
    text = printed(found)
    assert "ferplus, protocol majority: 4 images of test" in text
    lines = [line.split() for line in text.splitlines()]
    # 100 and 75; 50 and 50. Sample deviation of two values: their distance by the root of 2.
    assert lines[4][:6] == ["ours", "last", "2", "87.50±17.68", "66.67±0.00", "50.00±0.00"]
    assert any(line[:4] == ["plain_torch", "last", "2", "50.00±0.00"] for line in lines)
    lead = next(line for line in lines if line[:2] == ["ours", "2"])
    assert lead[2] == "+37.50"
    assert ["ours", "best", "87.50±17.68"] in lines  # on valid
    cost = next(line for line in lines if line[:2] == ["ours", "0.00"])
    assert cost == ["ours", "0.00", "2", "40", "3.00", "0.50", "0.90", "0.50", "1.00"]
    assert max(map(len, text.splitlines())) <= 80


def test_a_difference_of_one_seed_is_marked(found):
    assert "marked *" not in printed(found)
    differences = [one._replace(seeds=("0",)) for one in found.differences]
    text = printed(found._replace(differences=differences))
    assert any(line.split()[:2] == ["ours", "1*"] for line in text.splitlines())
    assert "marked *: one seed, so the interval is over images alone" in " ".join(text.split())


def test_how_many_seeds_reached_the_baseline_is_told(found):
    costs = [*found.costs[:1], cost_of("ours", 1, goal=0.9), *found.costs[2:]]
    assert "0.50 (1/2)" in printed(found._replace(costs=costs), width=100)


def test_what_is_not_known_is_a_dash_and_not_a_zero(found):
    costs = [comparison.list_cost("ours", make_report(0), [], {}, None)]
    line = next(
        line.split()
        for line in printed(found._replace(costs=costs, differences=[])).splitlines()
        if line.split()[:2] == ["ours", "0.00"]
    )
    assert line[2:] == ["-", "-", "-", "0.50", "0.90", "-", "-"]


def test_predictions_of_another_system_stand_in_the_first_table_alone(found):
    summary = {
        "examples": 4,
        "accuracy": 0.25,
        "mean_class_accuracy": 0.125,
        "macro_f1": 0.5,
        "ece": None,
        "deduplicated": {"accuracy": 0.5},
    }
    like = next(row for row in found.rows if row["split"] == "test")
    row = comparison.list_predicted_row("other", summary, like)
    assert tuple(row) == COLUMNS
    assert (row["variant"], row["epoch_rule"], row["seed"]) == ("other", "predictions", "")
    text = printed(found._replace(rows=[*found.rows, row]))
    lines = [line.split() for line in text.splitlines() if line.startswith("other")]
    assert lines == [["other", "predictions", "-", "25.00", "50.00", "12.50", "0.500"]]


def test_lists_have_scores_and_no_paired_difference(found):
    report = make_report(0)
    splits = report["checkpoints"]["last"]["splits"]
    splits["pose_30"] = splits["test"] | {"list": {}}
    names = {"experiment": "made_up", "config_digest": "0", "command": "python -m ..."}
    rows = [*rows_of_report(report, variant="ours", **names), *rows_of("plain_torch", 0)]
    said = {"test": make_predictions([1, 1, 1, 0]), "valid": make_predictions([1, 1, 1, 0])}
    differences = comparison.find_differences("plain_torch", rows, lambda *_: said)
    assert {one.split for one in differences} == {"test", "valid"}
    assert "pose_30" in printed(found._replace(rows=rows, differences=differences))


def test_files_hold_what_is_printed(found, tmp_path: Path):
    comparison.write_comparison(tmp_path, found)
    markdown = (tmp_path / "table.md").read_text()
    assert "| ours | last | 2 | 87.50±17.68 |" in markdown
    with (tmp_path / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [dict(row) for row in found.rows]
    with (tmp_path / "costs.csv").open(newline="") as file:
        costs = list(csv.DictReader(file))
    assert tuple(costs[0]) == comparison.COST_COLUMNS
    assert [cost["hours_to_baseline"] for cost in costs] == ["0.5"] * 4
    read = comparison.read_comparison(tmp_path)
    assert comparison.render_comparison(read) + "\n" == markdown
    assert [cost["flops"] for cost in read.costs] == [2.5e6] * 4


def test_a_page_has_the_tables_of_a_comparison_or_the_file_that_is_wrong(found, tmp_path: Path):
    page = "<!-- results: compared -->\nold\n<!-- end of results -->"
    comparison.write_comparison(tmp_path / "compared", found)
    made = result_tables.render_page(page, tmp_path)
    assert comparison.render_comparison(found) in made
    costs = tmp_path / "compared" / "costs.csv"
    for wrong in ("system,seed\nours,0\n", costs.read_text().replace("0.9", "much")):
        costs.write_text(wrong)
        with pytest.raises(UserError, match=r"costs\.csv cannot be read"):
            result_tables.render_page(page, tmp_path)
    comparison.write_comparison(tmp_path / "compared", found._replace(differences=[]))
    assert "| ours | last | 2 | 87.50±17.68 |" in result_tables.render_page(page, tmp_path)
    (tmp_path / "compared" / "compare.csv").write_text("")
    with pytest.raises(UserError, match=r"compare\.csv has no rows: nothing has been compared"):
        result_tables.render_page(page, tmp_path)


def test_without_the_baseline_nothing_is_compared():
    said = {"test": make_predictions([1, 1, 1, 0])}
    rows = rows_of("ours", 0)
    assert comparison.find_differences("plain_torch", rows, lambda *_: said) == []


def test_stress_is_shown_of_the_main_split(found):
    unharmed = dict.fromkeys(STRESS, "")
    harm = unharmed | {"stress_pose_accuracy": "0.200000", "stress_accuracy": "0.125000"}
    rows = [
        {**row, **(harm if row["epoch_rule"] == "last" else unharmed)} for row in rows_of("ours", 0)
    ]
    lines = [line.split() for line in printed(found._replace(rows=rows, costs=[])).splitlines()]
    assert ["system", "epoch", "valid", "pose", "(stress)", "stress"] in lines
    assert ["ours", "last", "100.00", "20.00", "12.50"] in lines
    assert ["ours", "best", "100.00", "-", "-"] in lines


def test_a_mean_of_some_seeds_says_so_and_none_is_of_those_whose_best_epoch_is_the_last(found):
    harm = dict.fromkeys(STRESS, "0.700000")

    def is_harmed(row: Any) -> bool:
        return row["seed"] == "1" and row["variant"] == "ours"

    rows = [{**row, **(harm if is_harmed(row) else {})} for row in found.rows]
    text = printed(found._replace(rows=rows), width=120)
    lines = [line.split() for line in text.splitlines()]
    assert ["ours", "last", "87.50±17.68", *["70.00", "(1/2)"] * 3] in lines
    assert ["ours", "best", "87.50±17.68", "-", "-", "-"] in lines
    assert "(2/3): of two seeds of three" in text
    assert "(2/3)" not in printed(found)


def test_times_of_several_machines_are_not_taken_for_those_of_one(found):
    assert "several machines" not in printed(found)
    first, *rest = (dict(row) for row in found.rows)
    text = " ".join(printed(found._replace(rows=[first | {"machine": "a GPU"}, *rest])).split())
    assert "times are of several machines: " in text
    assert "; a GPU" in text
