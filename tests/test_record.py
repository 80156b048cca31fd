"""Rows of results from reports, and the tables of pages from rows."""

import shutil
from pathlib import Path

import pytest

from dmfer_jax import record
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import differences, result_tables, rows
from dmfer_jax.reporting.report import read_report, write_report
from tests.made_up import make_stress

ROOT = Path(__file__).parent.parent
PAGE = "Before.\n<!-- results: runs.csv -->\nold\n<!-- end of results -->\nAfter.\n"


def row(seed: int, **changes: str) -> dict[str, str]:
    values = {
        "experiment": "tiny",
        "seed": str(seed),
        "dataset": "ferplus",
        "protocol": "majority",
        "split": "valid",
        "epoch_rule": "last",
        "epoch": "3",
        "images": "3191",
        "hours": "0.5",
        "command": f"train --config.seed={seed}",
    }
    return dict.fromkeys(rows.COLUMNS, "") | values | changes


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "results/search_face.md"])
def test_the_tables_of_this_project_are_those_of_its_files(page):
    """If it fails: python -m dmfer_jax.record --page=PAGE."""
    text = (ROOT / page).read_text()
    assert result_tables.render_page(text, (ROOT / page).parent) == text


def test_a_line_is_of_all_seeds_and_of_the_last_epoch():
    table = result_tables.render_table(
        [
            row(0, accuracy="0.8"),
            row(1, accuracy="0.82", hours="0.7"),
            row(0, accuracy="0.9", epoch_rule="best-on-valid"),
            row(0, accuracy="0.5", variant="wide", deduplicated_accuracy="0.4"),
        ]
    )
    lines = table.splitlines()
    scores = "accuracy | dedup."  # the columns that some row has
    assert lines[0] == f"| run | scored on | images | epoch | {scores} | seeds | hours |"
    # The standard deviation of 80 and 82, as a sample.
    assert lines[2] == (
        "| `tiny` | ferplus valid, majority | 3,191 | 3 | 81.00 ± 1.41 | - | 2 | 0.60 |"
    )
    assert lines[3].startswith("| `tiny` `wide` | ferplus valid, majority | 3,191 | 3 | 50.00 |")
    assert lines[5:] == [
        "- `tiny`: `train --config.seed=0` (and seed 1)",
        "- `tiny` `wide`: `train --config.seed=0`",
    ]
    assert "90.00" not in table


def test_an_ablation_has_a_line_for_each_variant_with_its_difference(tmp_path):
    made = [
        row(seed, variant=variant, accuracy=accuracy, cpu_hours="0.25", command=f"{variant}{seed}")
        for variant, scores in (("plain", ("0.8", "0.82")), ("cosine", ("0.81", "0.84")))
        for seed, accuracy in enumerate(scores)
    ]
    chosen = row(0, variant="plain", accuracy="0.99", epoch_rule="best-on-valid")
    rows.append_rows(tmp_path / "grid" / "runs.csv", [*made, chosen])
    columns = differences.COLUMNS
    line = "tiny,valid,cosine,plain,{},0+1,3191,{},-0.005,0.034,0.95"
    lines = [",".join(columns), line.format("accuracy", 0.015), line.format("macro_f1", 0.5)]
    (tmp_path / "grid" / "differences.csv").write_text("\n".join(lines) + "\n")
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("runs.csv", "grid"))
    record.update_page(page)
    table = page.read_text().splitlines()[2:]
    assert table[0] == "ferplus valid, majority, 3,191 images, epoch 3, the last; percent:"
    scores = "accuracy | mean-class | macro-F1"
    assert table[2] == f"| variant | {scores} | accuracy - `plain` | mean-class - `plain` | seeds |"
    assert table[4:6] == [
        "| `plain` | 81.00 ± 1.41 | - | - | - | - | 2 |",
        "| `cosine` | 82.50 ± 2.12 | - | - | +1.50 [-0.50, +3.40] | - | 2 |",
    ]
    assert table[7].startswith("Mean ± standard deviation")
    assert table[7].endswith("0.25 CPU hours a run; the first row's command:")
    assert table[8] == "`plain0`"
    step = line.replace("cosine,plain", "wide,cosine").format("accuracy", 0.25)
    wide = row(0, variant="wide", accuracy="0.9", cpu_hours="0.25", command="wide0")
    rows.append_rows(tmp_path / "grid" / "runs.csv", [*made, chosen, wide])
    (tmp_path / "grid" / "differences.csv").write_text("\n".join([*lines, step]) + "\n")
    record.update_page(page)
    table = page.read_text().splitlines()[2:]
    assert table[6] == "| `wide` | 90.00 | - | - | - | - | 1 |"
    assert table[8:11] == [
        "| each step by itself | from | accuracy | mean-class | seeds |",
        "|---|---|--:|--:|--:|",
        "| `wide` | `cosine` | +25.00 [-0.50, +3.40] | - | 2 |",
    ]
    for wrong, said in ((line.format("x", "none"), "could not convert"), ("a,b", "zip")):
        (tmp_path / "grid" / "differences.csv").write_text(f"{lines[0]}\n{wrong}\n")
        with pytest.raises(UserError, match=rf"differences\.csv cannot be read \({said}"):
            record.update_page(page)
    later = row(2, variant="cosine", accuracy="0.83", epoch="4")
    rows.append_rows(tmp_path / "grid" / "runs.csv", [later])
    (tmp_path / "grid" / "differences.csv").write_text("\n".join(lines) + "\n")
    record.update_page(page)
    table = page.read_text().splitlines()[2:]
    assert table[0].endswith("the last epoch; percent:")
    assert table[5].endswith(" | 3 (2 compared) |")
    (tmp_path / "grid" / "differences.csv").write_text("variant\ncosine\n")
    with pytest.raises(
        UserError, match=r"differences\.csv cannot be read \(its columns are others"
    ):
        record.update_page(page)


def test_a_page_keeps_what_stands_around_its_tables(tmp_path):
    rows.append_rows(tmp_path / "runs.csv", [row(0, accuracy="0.8")])
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    record.update_page(page)
    made = page.read_text()
    assert made.startswith("Before.\n<!-- results: runs.csv -->\n| run |")
    assert made.endswith("<!-- end of results -->\nAfter.\n")
    assert "old" not in made
    record.update_page(page)
    assert page.read_text() == made


def test_a_page_or_a_file_that_cannot_be_used_is_named(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(UserError, match=r"page\.md: No such file"):
        record.update_page(page)
    page.write_text("nothing")
    with pytest.raises(UserError, match=r"page\.md: the page has no place for results"):
        record.update_page(page)
    page.write_text(PAGE)
    with pytest.raises(UserError, match=r"page\.md: runs\.csv.* has no rows"):
        record.update_page(page)
    broken = PAGE.replace("<!-- end of results -->", "") + "Between.\n" + PAGE
    page.write_text(broken)  # what stands between is not taken for a table
    with pytest.raises(UserError, match=r"2 results start .*, 1 end .*, and 1 do both"):
        record.update_page(page)
    assert page.read_text() == broken
    page.write_bytes("Über".encode("latin-1"))
    with pytest.raises(UserError, match=r"page\.md: it is no text in UTF-8"):
        record.update_page(page)


def test_rows_of_a_report_name_the_command_that_repeats_it(tmp_path):
    out = tmp_path / "runs.csv"
    report = ROOT / "results" / "synthetic_seed0.json"
    assert record.add_report(report, "configs/synthetic.py", "", out) == 8
    assert record.add_report(report, "configs/synthetic.py", "", out) == 8  # in place of the first
    found = rows.read_rows(out)
    assert len(found) == 8
    (test,) = [one for one in found if (one["split"], one["epoch_rule"]) == ("test", "last")]
    scored = read_report(report)["checkpoints"]["last"]["splits"]["test"]
    assert float(test["accuracy"]) == pytest.approx(scored["accuracy"], abs=1e-6)
    assert test["command"] == (
        "python -m dmfer_jax.train --config=configs/synthetic.py --config.seed=0"
    )


def test_a_run_in_pytorch_is_not_told_as_one_of_train(tmp_path):
    report = {**read_report(ROOT / "results" / "synthetic_seed0.json"), "system": "plain_torch"}
    write_report(tmp_path / "report.json", report)
    with pytest.raises(UserError, match=r"is of plain_torch, which train does not train"):
        record.add_report(tmp_path / "report.json", "configs/synthetic.py", "", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_of_another_config_are_not_taken_for_the_same_run(tmp_path):
    report, out = read_report(ROOT / "results" / "synthetic_seed0.json"), tmp_path / "runs.csv"
    path = tmp_path / "report.json"
    write_report(path, report)
    record.add_report(path, "configs/synthetic.py", "", out)
    report["config"]["loss"]["margin"] = 0.3
    report["seed"] = report["config"]["seed"] = 1
    write_report(path, report)
    before = out.read_bytes()
    with pytest.raises(UserError, match="another config than the rows of synthetic, without a var"):
        record.add_report(path, "configs/synthetic.py", "", out)
    assert out.read_bytes() == before
    record.add_report(path, "configs/synthetic.py", "margin_0.3", out)


def test_rows_of_another_release_are_not_seeds_of_the_same_run(tmp_path):
    report, out = read_report(ROOT / "results" / "synthetic_seed0.json"), tmp_path / "runs.csv"
    path = tmp_path / "report.json"
    write_report(path, report)
    record.add_report(path, "configs/synthetic.py", "", out)
    report["seed"] = report["config"]["seed"] = 1
    write_report(path, {**report, "dataset": "synthetic_faces/other"})
    with pytest.raises(UserError, match="another dataset or release than the rows of synthetic"):
        record.add_report(path, "configs/synthetic.py", "", out)


def test_a_row_has_what_a_later_evaluation_found_under_harm(tmp_path, finished):
    workdir, report = finished
    evaluated = {"step": report["checkpoints"]["last"]["step"], "epoch": 2, "splits": {}}
    evaluated["stress"] = {"test": make_stress(0.25)}
    run = shutil.copytree(workdir, tmp_path / "run")
    write_report(run / "evaluation" / "last_test.json", {"checkpoints": {"last": evaluated}})
    out = tmp_path / "runs.csv"
    record.add_report(run, "configs/synthetic.py", "", out)
    found = {(row["split"], row["epoch_rule"]): row for row in rows.read_rows(out)}
    scored = [found["test", "last"][column] for column in rows.STRESS]
    assert scored == ["0.550000", "0.350000", "0.250000"]
    assert {found["valid", "last"][column] for column in rows.STRESS} == {""}
    assert float(found["test", "last"]["hours"]) >= 0


def test_an_occlusion_list_that_was_scored_later_has_a_row(tmp_path, finished):
    workdir, report = finished
    last = report["checkpoints"]["last"]
    scored = {"occlusion": last["splits"]["test"] | {"accuracy": 0.5, "list": {"found": 8}}}
    scored["test"] = last["splits"]["test"] | {"accuracy": 0.25}  # the report's own stands
    run = shutil.copytree(workdir, tmp_path / "run")
    evaluated = {"checkpoints": {"last": last | {"splits": scored}}}
    write_report(run / "evaluation" / "last_test_lists.json", evaluated)
    out = tmp_path / "runs.csv"
    record.add_report(run, "configs/synthetic.py", "", out)
    found = {row["split"]: row for row in rows.read_rows(out) if row["epoch_rule"] == "last"}
    assert found["occlusion"]["accuracy"] == "0.500000"
    assert float(found["test"]["accuracy"]) == pytest.approx(
        last["splits"]["test"]["accuracy"], abs=1e-6
    )


@pytest.mark.parametrize(
    "other",
    [
        {"records_sha256": "f" * 64},
        {"config": {"model": {"width": 7.0}}},
        {"config": {"data": {"image_size": 7}}},
        {"config": {"train": {"epochs": 7}}},
        {"init_from": {"sha256": "f" * 64}},
        {"seed": 9},
        {},
    ],
)
def test_what_was_found_of_another_run_or_of_other_records_joins_no_rows(other, tmp_path, finished):
    workdir, report = finished
    run = shutil.copytree(workdir, tmp_path / "run")
    last = report["checkpoints"]["last"]
    evaluated = {**report, "checkpoints": {"last": {**last, "stress": {"test": make_stress(0.25)}}}}
    write_report(run / "evaluation" / "last_test_stress.json", {**evaluated, **other})
    out = tmp_path / "runs.csv"
    record.add_report(run, "configs/synthetic.py", "", out)
    found = {row["split"]: row for row in rows.read_rows(out) if row["epoch_rule"] == "last"}
    assert bool(found["test"]["stress_accuracy"]) == (not other)


def test_a_report_whose_config_is_none_of_this_release_adds_no_rows(tmp_path):
    report = read_report(ROOT / "results" / "synthetic_seed0.json")
    path, out = tmp_path / "report.json", tmp_path / "runs.csv"

    def refused(config):
        write_report(path, {**report, "config": config})
        with pytest.raises(UserError, match=r"report\.json ") as error:
            record.add_report(path, "configs/synthetic.py", "", out)
        return str(error.value)

    assert "names no config; expected the report that training wrote" in refused(None)
    assert "config has no field 'newer'" in refused({**report["config"], "newer": 1})
    assert "does not know" in refused({**report["config"], "seed": "none"})
    assert not out.exists()
