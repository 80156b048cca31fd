"""Scores of a split and of its groups, of predictions that are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import metrics, scoring, sharding
from dmfer_jax.data.sources import Split
from dmfer_jax.feeding import Feed
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.reporting.predictions import Predictions


def test_accuracy_by_group_is_that_of_each_groups_images():
    predicted = np.array([0, 0, 1, 1, 0, 1])
    labels = np.array([0, 0, 0, 1, 1, 1])
    groups = {
        "gender": np.array(["male", "male", "male", "male", "female", "unknown"]),
        "age": np.array(["4-19", "20-39", "4-19", "70+", "0-3", "unknown"]),
        "race": np.array(["unknown"] * 6),
    }
    found = scoring.accuracy_by_group(predicted, labels, groups)
    # Of the men two of three class-0 images and the one class-1 image are right.
    assert found["gender"]["male"] == {
        "examples": 4,
        "accuracy": 3 / 4,
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
    }
    assert found["gender"]["female"] == {
        "examples": 1,
        "accuracy": 0,
        "mean_class_accuracy": 0,
    }
    assert list(found) == ["gender", "age"]
    assert list(found["gender"]) == ["female", "male", "unknown"]
    assert list(found["age"]) == ["0-3", "4-19", "20-39", "70+", "unknown"]


def predict_pixel(_: Any, batch: dict[str, jax.Array], totals: Any) -> Any:
    """Stands for a network that takes an image's first pixel for its class."""
    probabilities = jax.nn.one_hot(batch["image"][:, 0, 0, 0], 8)
    losses = jnp.zeros(len(batch["label"]))
    added = {
        name: metrics.from_batch(probabilities, batch["label"], losses, batch[mask])
        for name, mask in (("all", "mask"), ("first", "first"))
    }
    return {name: totals[name].merge(added[name]) for name in totals}, probabilities


def score_pixels(
    pixels: list[int],
    labels: list[int],
    groups: dict[str, list[str]],
    device_gib: float = 1,
    said: dict[str, Predictions] | None = None,
    repeated: list[int] | None = None,
) -> dict:
    split = Split(
        name="test",
        images=np.array(pixels, np.uint8)[:, None, None, None],
        labels=np.array(labels, np.int32),
        targets=np.eye(8, dtype=np.float32)[labels],
        rows=np.arange(len(labels)),
        repeated=np.array(repeated or [0] * len(labels), bool),
        names=np.array([f"{row}.jpg" for row in range(len(labels))]),
        groups={key: np.array(values) for key, values in groups.items()},
        class_names=EXPRESSION_NAMES,
    )
    return scoring.score(predict_pixel, {}, Feed(split, sharding.make_mesh(), device_gib), 4, said)


@pytest.mark.parametrize("device_gib", [1, 0])
def test_scores_by_group_add_up_to_the_score_of_the_split_without_its_padding(device_gib):
    group = ["a", "b", "a", "b", "a", "a"]
    # The last batch of 4 holds two images and twice the last of them, which is right.
    found = score_pixels([1, 2, 3, 4, 5, 6], [1, 0, 3, 4, 0, 6], {"group": group}, device_gib)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["groups"]["group"]["a"]["examples"] == 4
    assert found["groups"]["group"]["a"]["accuracy"] == 3 / 4
    assert found["groups"]["group"]["b"]["accuracy"] == 1 / 2
    assert "groups" not in score_pixels([1], [1], {})
    assert "groups" not in score_pixels([1], [1], {"group": ["unknown"]})


def test_deduplicated_scores_leave_out_images_that_stand_in_an_earlier_row():
    pixels, labels = [1, 2, 3, 4, 5, 6], [1, 0, 3, 4, 0, 6]
    found = score_pixels(pixels, labels, {}, repeated=[0, 0, 0, 0, 1, 0])
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["deduplicated"]["accuracy"] == pytest.approx(4 / 5)
    assert found["deduplicated"]["examples"] == 5
    assert "deduplicated" not in score_pixels(pixels, labels, {})


def test_predictions_are_those_of_every_image_once_without_padding():
    said: dict[str, Predictions] = {}
    score_pixels([1, 2, 3, 4, 5, 6], [1, 0, 3, 4, 0, 6], {}, said=said)
    assert list(said) == ["test"]
    assert said["test"].names.tolist() == [f"{row}.jpg" for row in range(6)]
    np.testing.assert_array_equal(said["test"].labels, [1, 0, 3, 4, 0, 6])
    np.testing.assert_array_equal(said["test"].probabilities, np.eye(8)[[1, 2, 3, 4, 5, 6]])


def test_image_without_a_name_of_its_own_is_told_by_its_row():
    split = Split(
        name="test",
        images=np.zeros((4, 1, 1, 1), np.uint8),
        labels=np.zeros(4, np.int32),
        targets=np.ones((4, 1), np.float32),
        rows=np.array([3, 5, 8, 9]),
        repeated=np.zeros(4, bool),
        names=np.array(["a.png", "", "b.png", "a.png"]),
        groups={},
        class_names=("neutral",),
    )
    assert split.identifiers.tolist() == ["a.png (row 3)", "row 5", "b.png", "a.png (row 9)"]
