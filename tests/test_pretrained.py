"""The model that the package carries, and its card, which tells no other numbers than results/."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import dmfer_jax
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.loading import load_weights
from dmfer_jax.weights.packaged import PRETRAINED

ROOT = Path(__file__).parents[1]
FILE = PRETRAINED / "ferplus-small.safetensors"
CARD = FILE.with_suffix(".md").read_text(encoding="utf-8")


def result(name: str) -> Any:
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def valid_of(name: str) -> dict[str, Any]:
    """What a report says of the last epoch on the validation split."""
    return result(name)["checkpoints"]["last"]["splits"]["valid"]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def load_temperature() -> float:
    return load_weights(FILE)[0].training["temperature"]


def rows_of_card(head: str) -> dict[str, list[str]]:
    """The rows of the card's table whose first column is called so: {first cell: other cells}."""
    table = CARD.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {first: rest for first, *rest in cells}


def test_it_is_small_and_says_what_it_was_trained_on():
    assert FILE.stat().st_size <= 12e6
    manifest, _ = load_weights(FILE)
    assert manifest.labels == EXPRESSION_NAMES
    assert manifest.training["train_splits"] == ["train", "valid"]
    assert manifest.training["checkpoint"] == "last"
    assert manifest.scores is None
    assert f"| {load_temperature()}, fitted" in CARD
    assert f"{FILE.stat().st_size / 1e6:.1f} MB" in CARD


def test_a_smile_is_happiness():
    (face,) = dmfer_jax.load("ferplus-small")(ROOT / "tests" / "stored" / "astronaut.jpg")
    assert face.expression == "happiness"
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_scores_of_the_card_are_those_of_the_run_on_training_images_alone():
    report = result("ferplus_face_cpu_seed0.json")
    assert report["config"]["data"]["train_splits"] == ["train"]
    valid = valid_of("ferplus_face_cpu_seed0.json")
    stated = re.search(
        r"accuracy ([\d.]+) %, mean of the classes' recalls ([\d.]+) %, macro-F1 ([\d.]+) %", CARD
    )
    assert stated
    assert stated.groups() == tuple(
        percent(valid[name]) for name in ("accuracy", "mean_class_accuracy", "macro_f1")
    )
    numbers = result("ferplus_face_cpu_seed0_calibration.json")["numbers"]
    assert f"error is {percent(numbers['scaled_ece'])} % with" in CARD.replace("\n", " ")
    assert f"it, and {percent(numbers['ece'])} % without" in CARD
    assert numbers["temperature"] == pytest.approx(load_temperature(), abs=0.005)
    expected = {
        name: [str(row["examples"]), percent(row["recall"]), percent(row["precision"])]
        for name, row in valid["per_class"].items()
    }
    assert rows_of_card("Class") == expected


def test_harm_of_the_card_is_that_of_the_evaluation():
    stress = result("ferplus_face_cpu_seed0_stress.json")["checkpoints"]["last"]["stress"]["valid"]
    assert f"the accuracy is {percent(stress['mean_accuracy'])} %" in CARD.replace("\n", " ")
    assert rows_of_card("Harm") == {
        kind.replace("_", " "): [", ".join(f"{100 * value:.1f}" for value in row["accuracy"])]
        for kind, row in stress["kinds"].items()
    }


def test_the_file_is_as_accurate_as_the_checkpoint_that_it_was_made_of():
    checkpoint = valid_of("ferplus_small_checkpoint.json")
    programs = result("ferplus_small_file.json")["programs"]
    (file,) = (row for row in programs if row["program"] == "predictor")
    assert file["accuracy"] == pytest.approx(checkpoint["accuracy"], abs=1e-3)
    for value in (file["accuracy"], checkpoint["accuracy"]):
        assert f"{percent(value)} % of the" in CARD.replace("\n", " ")
