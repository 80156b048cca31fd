"""Predictions from anywhere are scored as our own are."""

import numpy as np
import pytest

from dmfer_jax import predicted
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError


@pytest.fixture
def split() -> Split:
    labels = np.array([0, 1, 1, 0], np.int32)
    return Split(
        name="test",
        images=np.zeros((4, 1, 1, 3), np.uint8),
        labels=labels,
        targets=np.eye(2, dtype=np.float32)[labels],
        rows=np.arange(4),
        repeated=np.array([False, False, False, True]),
        names=np.array(["a", "b", "c", "d"]),
        groups={},
        class_names=("neutral", "happiness"),
    )


def test_rows_are_found_by_name_in_any_order_and_others_are_passed_over(split):
    names = ["d", "b", "z", "a", "c"]
    probabilities = np.array([[0.2, 0.8], [0.1, 0.9], [1, 0], [0.7, 0.3], [0, 1]], np.float32)
    found = predicted.score_predictions(split, names, probabilities)
    assert found["examples"] == 4
    assert found["confusion"] == [[1, 1], [0, 2]]  # d is wrong
    assert found["accuracy"] == 0.75
    expected = -np.mean(np.log([0.7, 0.9, 1.0, 0.2]))
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["deduplicated"]["accuracy"] == 1.0


def test_certainty_in_a_wrong_class_leaves_the_loss_finite(split):
    wrong = 1 - np.eye(2, dtype=np.float32)[split.labels]
    assert predicted.score_predictions(split, list("abcd"), wrong)["loss"] < 100


def test_an_image_without_a_prediction_is_refused(split):
    with pytest.raises(UserError, match=r"no row for 2 of the 4 images of 'test', such as 'b'"):
        predicted.score_predictions(split, ["a", "d"], np.full((2, 2), 0.5, np.float32))
