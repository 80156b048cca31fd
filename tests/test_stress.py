"""Every kind and level is scored once, on the images it names, by one compiled step."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dmfer_jax import steps, subjects
from dmfer_jax.data.corruptions import CORRUPTIONS, LEVELS, corrupt
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.evaluate import evaluate
from dmfer_jax.reporting.report import json_line
from dmfer_jax.reporting.rows import KINDS
from dmfer_jax.stress import score_stress


def make_split(examples: int = 4) -> Split:
    rows = 10 * np.arange(examples)
    return Split(
        name="test",
        images=np.random.default_rng(0).integers(0, 256, (examples, 32, 32, 1), np.uint8),
        labels=np.zeros(examples, np.int32),
        targets=np.ones((examples, 1), np.float32),
        rows=rows,
        repeated=np.zeros(examples, bool),
        names=rows.astype(str),
        groups={"gender": np.full(examples, "unknown")},
        class_names=("a",),
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=80)


def numbered_scores(calls: list[Split]):
    """Gives 0.8 to the first split and then 0.001, 0.002 ... 0.055 to those of the kinds."""

    def score(split: Split) -> dict[str, Any]:
        calls.append(split)
        value = 0.8 if len(calls) == 1 else (len(calls) - 1) / 1000
        return {"accuracy": value, "mean_class_accuracy": value / 2, "loss": 1.0}

    return score


def test_each_kind_and_level_is_scored_on_its_images_in_order():
    split, calls = make_split(), []
    score_stress(numbered_scores(calls), split, quiet())
    assert len(calls) == 1 + 11 * LEVELS
    np.testing.assert_array_equal(calls[0].images, split.images)
    expected = [(kind, level) for kind in CORRUPTIONS for level in range(1, LEVELS + 1)]
    for given, (kind, level) in zip(calls[1:], expected, strict=True):
        assert given.labels is split.labels
        for position in range(len(split)):
            harmed = corrupt(split.images[position], kind, level, 10 * position)
            np.testing.assert_array_equal(given.images[position], harmed)


def test_result_holds_the_scores_by_kind_and_their_means():
    found = score_stress(numbered_scores([]), make_split(), quiet())
    assert found["examples"] == 4
    assert found["clean"] == {"accuracy": 0.8, "mean_class_accuracy": 0.4}
    assert list(found["kinds"]) == list(CORRUPTIONS)
    assert {kind for kinds in KINDS.values() for kind in kinds} < found["kinds"].keys()
    second = found["kinds"]["eye_band"]
    assert second["values"] == [10, 20, 30, 40, 50]
    assert (second["parameter"], second["unit"]) == ("area covered", "% of the face")
    assert second["accuracy"] == pytest.approx([0.006, 0.007, 0.008, 0.009, 0.010])
    assert second["mean_class_accuracy"] == pytest.approx([0.003, 0.0035, 0.004, 0.0045, 0.005])
    # The mean of 0.001 to 0.055.
    assert found["mean_accuracy"] == pytest.approx(0.028)
    assert found["mean_class_accuracy"] == pytest.approx(0.014)
    assert found["relative"] == pytest.approx(0.028 / 0.8)


def test_images_too_small_for_the_levels_are_refused():
    split = make_split()
    small = replace(split, images=np.asarray(split.images)[:, :31])
    with pytest.raises(UserError, match="images of 31 pixels"):
        score_stress(numbered_scores([]), small, quiet())


def test_network_that_is_never_right_has_no_relative_score():
    never = {"accuracy": 0.0, "mean_class_accuracy": 0.0}
    assert score_stress(lambda split: never, make_split(), quiet())["relative"] is None


def test_a_line_is_printed_for_each_kind_where_there_is_no_terminal():
    console = quiet()
    score_stress(numbered_scores([]), make_split(), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == len(CORRUPTIONS)
    assert lines[0] == "stress on test: block 0.1 % 0.2 % 0.3 % 0.4 % 0.5 %"


def test_a_terminal_shows_a_bar_and_the_time_left():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    score_stress(numbered_scores([]), make_split(), console)
    assert "/56" in console.file.getvalue()  # type: ignore[attr-defined]


def test_evaluation_under_stress_compiles_once_and_reports_beside_the_splits(finished, monkeypatch):
    made: list[Any] = []
    make = steps.make_eval_step

    def make_and_keep(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(steps, "make_eval_step", make_and_keep)
    report = evaluate(subjects.of_run(finished[0], "last"), ["test"], stress=True)
    (eval_step,) = made
    assert eval_step._cache_size() == 1

    entry = report["checkpoints"]["last"]
    found = entry["stress"]["test"]
    assert found["clean"]["accuracy"] == entry["splits"]["test"]["accuracy"]
    counts = np.array([row["accuracy"] for row in found["kinds"].values()]) * found["examples"]
    np.testing.assert_allclose(counts, counts.round(), atol=1e-6)
    assert len(np.unique(counts.round())) > 1  # harm reaches the network
    line = json.loads(json_line(report))["checkpoints"]["last"]["splits"]["test"]
    assert line["stress_mean_accuracy"] == found["mean_accuracy"]
    assert "stress_mean_accuracy" not in json_line(finished[1])
