"""A report survives writing and reading, and is readable in 80 columns."""

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.metrics import Metrics, center_report, summarize
from dmfer_jax.reporting.environment import describe_environment
from dmfer_jax.reporting.report import (
    json_line,
    main_split,
    print_report,
    read_report,
    write_report,
)


def summary_of(confusion, loss=0.5):
    confusion = jnp.asarray(confusion, jnp.int32)
    metrics = Metrics.empty(len(confusion)).replace(
        confusion=confusion, loss_sum=loss * confusion.sum()
    )
    return summarize(metrics, EXPRESSION_NAMES[: len(confusion)])


def make_report():
    # 800 of 1,000 images right; contempt never occurs; neutral is taken for sadness 60 times.
    confusion = np.diag([200, 200, 100, 100, 100, 50, 50, 0])
    confusion[0, 3], confusion[6, 2], confusion[5, 4] = 60, 40, 100
    test = summary_of(confusion)
    without_copies = np.diag([200, 190, 100, 100, 100, 50, 20, 0])  # 760 of 800 right
    without_copies[0, 3] = 40
    test["deduplicated"] = summary_of(without_copies)
    valid = summary_of(np.diag([10] * 8))
    occlusion = summary_of(np.diag([1200] * 8)[::-1])
    centers = center_report(np.eye(8))
    return {
        "dataset": "ferplus",
        "protocol": "majority",
        "seed": 0,
        "config": {"model": {"width": 1.0, "stages": [2, 2, 2, 2]}, "note": "[1,\n2] öé"},
        "environment": {"python": "3.11.9", "device": "cpu", "cores": 2},
        "train": {
            "epochs": 12,
            "steps": 9384,
            "examples": 25045,
            "seconds": 3725.0,
            "images_per_second": 80.7,
        },
        "checkpoints": {
            "last": {
                "epoch": 12,
                "step": 9384,
                "splits": {"valid": valid, "test": test, "test_occlusion": occlusion},
                "centers": centers,
            },
            "best": {
                "epoch": 10,
                "step": 7820,
                "splits": {"valid": valid, "test": test},
                "centers": centers,
            },
        },
    }


def printed(report):
    output = io.StringIO()
    print_report(report, Console(file=output, width=80, highlight=False))
    return output.getvalue()


def words_of_rows(text, first):
    """Returns the words of each table row that begins with `first`."""
    rows = [line.split() for line in text.splitlines()]
    return [row for row in rows if row and row[0] == first]


def test_report_read_back_equals_the_one_written(tmp_path):
    write_report(tmp_path / "new" / "report.json", make_report())
    assert read_report(tmp_path / "new" / "report.json") == make_report()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]


def test_report_file_keeps_key_order_ends_in_newline_and_shows_matrices(tmp_path):
    write_report(tmp_path / "report.json", make_report())
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert list(json.loads(text)) == list(make_report())
    assert "[200, 0, 0, 60, 0, 0, 0, 0]" in text


def test_failed_write_leaves_the_older_report(tmp_path):
    path = tmp_path / "report.json"
    write_report(path, make_report())
    with pytest.raises(UnicodeEncodeError):
        write_report(path, {**make_report(), "dataset": "\ud800"})  # no UTF-8 for half a pair
    assert read_report(path) == make_report()
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{", "not JSON"), ('{"accuracy": 1}', "no `checkpoints`")],
)
def test_file_that_is_no_report_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=rf"report\.json: .*{message}"):
        read_report(tmp_path / "report.json")


def test_json_line_is_one_line_with_the_headline_numbers():
    line = json_line(make_report())
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["dataset"], parsed["protocol"], parsed["seed"]) == ("ferplus", "majority", 0)
    best = parsed["checkpoints"]["best"]
    assert (best["epoch"], best["step"], best["mean_center_cosine"]) == (10, 7820, 0.0)
    test = best["splits"]["test"]
    assert test["examples"] == 1000
    assert test["accuracy"] == pytest.approx(0.8)
    assert test["deduplicated_accuracy"] == pytest.approx(760 / 800)
    # Recalls 200/260, 1, 1, 1, 1, 50/150, 50/90 over the seven classes that occur.
    expected = (200 / 260 + 4 + 50 / 150 + 50 / 90) / 7
    assert test["mean_class_accuracy"] == pytest.approx(expected)
    assert test["loss"] == pytest.approx(0.5)
    assert best["splits"]["valid"]["deduplicated_accuracy"] is None


def test_printed_report_has_one_line_per_row_in_80_columns():
    text = printed(make_report())
    assert max(map(len, text.splitlines())) <= 80
    test = ["test", "1,000", "80.00", "95.00", "80.83", "0.765", "0.000", "0.500"]
    assert words_of_rows(text, "test") == [test, test]
    valid = ["valid", "80", "100.00", "-", "100.00", "1.000", "0.000", "0.500"]
    assert words_of_rows(text, "valid") == [valid, valid]
    assert len(words_of_rows(text, "test_occlusion")) == 1
    neutral = ["neutral", "260", "76.92", "100.00", "0.870", "sadness", "23.1", "%"]
    assert words_of_rows(text, "neutral") == [neutral]
    assert "means of recall, F1 over the classes that the split has" in text.splitlines()[-2]
    assert words_of_rows(text, "contempt") == [["contempt", "0", "-", "-", "-", "-"]]


def test_printed_report_says_how_each_epoch_was_chosen():
    text = printed(make_report())
    assert "Last epoch (epoch 12, step 9384)" in text
    assert "Epoch chosen on valid (epoch 10, step 7820)" in text
    assert "ideal -0.143" in text


def test_last_epoch_that_is_also_the_chosen_one_is_shown_once():
    report = make_report()
    report["checkpoints"]["best"] = report["checkpoints"]["last"] | {"chosen_on": "test"}
    text = printed(report)
    assert "Last epoch, also the one chosen on test (epoch 12, step 9384)" in text
    assert "Epoch chosen" not in text
    assert set(json.loads(json_line(report))["checkpoints"]) == {"last", "best"}


def test_training_labels_of_another_protocol_are_named():
    assert "trained on" not in printed(make_report() | {"train": None})
    report = make_report() | {"train_protocol": "votes"}
    assert "protocol majority, trained on protocol votes" in printed(report)


def test_images_that_the_first_weights_had_seen_are_named():
    started = {"file": "x.safetensors", "trained_on": {"ferplus": ["train", "valid"]}}
    said = "it began with weights of valid: these are no new faces"
    assert said in printed(make_report() | {"init_from": started})
    assert "no new faces" not in printed(make_report() | {"init_from": {"file": "x.pth"}})


def test_a_system_that_is_not_ours_is_named():
    assert "plain_torch on " in printed(make_report() | {"system": "plain_torch"})
    assert " on ferplus" not in printed(make_report())


def test_run_that_was_stopped_within_an_epoch_says_so():
    report = make_report()
    report["checkpoints"]["best"]["epoch"] = 9.123456
    assert "(epoch 9.12, step 7820)" in printed(report)


def test_single_evaluation_without_training_or_centers_prints():
    report = make_report()
    del report["train"], report["checkpoints"]["last"], report["environment"]
    report["checkpoints"]["best"]["centers"] = None
    report["checkpoints"]["best"]["chosen_on"] = "test"
    text = printed(report)
    assert "Epoch chosen on test" in text
    assert "cosine" not in text
    assert json.loads(json_line(report))["checkpoints"]["best"]["mean_center_cosine"] is None


def test_details_are_of_test_then_valid_then_what_there_is():
    assert main_split(["valid", "test_pose", "test"]) == "test"
    assert main_split(["train", "valid"]) == "valid"
    assert main_split(["test_pose"]) == "test_pose"


def test_environment_names_versions_and_device_but_no_path():
    found = describe_environment()
    assert {"python", "jax", "flax", "device", "processor", "cores"} <= set(found)
    assert "/" not in json.dumps(found)


def test_heading_names_what_was_done_about_classes_where_anything_was():
    report = make_report()
    assert printed(report).splitlines()[0] == "ferplus, protocol majority, seed 0"
    report |= {"dataset": "affectnet/new", "protocol": None, "drop_classes": ["contempt", "fear"]}
    report |= {"sampling": "balanced", "class_weights": "balanced", "limit": 1000}
    heading = " ".join(printed(report).split("trained")[0].split())
    assert heading == (
        "affectnet/new, without contempt and fear, the first 1,000 examples of each split, "
        "class-balanced sampling, balanced loss weights, seed 0"
    )
    report["sampling"] = "square_root"
    assert "square-root sampling" in printed(report)


def test_line_of_json_names_what_was_done_about_classes_where_anything_was():
    report = make_report()
    assert "sampling" not in json.loads(json_line(report))
    line = json.loads(json_line({**report, "sampling": "balanced", "drop_classes": ["fear"]}))
    assert (line["sampling"], line["drop_classes"]) == ("balanced", ["fear"])


def test_printed_report_has_a_table_for_each_attribute():
    report = make_report()
    group = {"examples": 1234, "accuracy": 0.5, "mean_class_accuracy": 0.25}
    summary = report["checkpoints"]["last"]["splits"]["test"]
    summary["groups"] = {"gender": {"female": group}, "age_group": {"70+": group}}
    text = printed(report)
    assert "Accuracy by gender on test" in text
    assert "Accuracy by age group on test" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["female", "1,234", "50.00", "25.00"] in rows
    assert ["70+", "1,234", "50.00", "25.00"] in rows
