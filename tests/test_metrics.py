"""Metrics against values worked out by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.metrics import Metrics, center_report, from_batch, summarize

NAMES = ("neutral", "happiness", "surprise", "sadness")

# Six examples of the classes 0, 1 and 3; class 2 never occurs, and is predicted once.
#   true       0    0    0    1    1    3
#   predicted  0    0    1    1    2    0
PROBABILITIES = np.array(
    [
        [0.70, 0.10, 0.10, 0.10],
        [0.90, 0.10, 0.00, 0.00],
        [0.30, 0.50, 0.10, 0.10],
        [0.05, 0.90, 0.05, 0.00],
        [0.20, 0.10, 0.70, 0.00],
        [0.50, 0.10, 0.10, 0.30],
    ],
    np.float32,
)
LABELS = np.array([0, 0, 0, 1, 1, 3])
LOSSES = np.array([0.5, 0.25, 1.5, 0.25, 2.0, 1.5], np.float32)
ALL = np.ones(6, bool)


def batch(rows: slice | np.ndarray = slice(None), mask=None):
    mask = np.ones_like(LABELS, bool)[rows] if mask is None else mask
    arrays = (PROBABILITIES[rows], LABELS[rows], LOSSES[rows], mask)
    return from_batch(*map(jnp.asarray, arrays))


def assert_same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_confusion_has_true_rows_and_predicted_columns():
    expected = [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert batch().confusion.tolist() == expected
    assert summarize(batch(), NAMES)["confusion"] == expected


def test_summary_equals_values_by_hand():
    summary = summarize(batch(), NAMES)
    assert summary["examples"] == 6
    assert summary["accuracy"] == pytest.approx(3 / 6)
    # Recall 2/3, 1/2 and 0; F1 2*2/(3+3), 2*1/(2+2) and 0; over the three classes that occur.
    assert summary["mean_class_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert summary["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert summary["loss"] == pytest.approx(1.0)
    assert summary["labels"] == list(NAMES)
    happiness = {"examples": 2, "recall": 0.5, "precision": 0.5, "f1": 0.5}
    assert summary["per_class"]["happiness"] == pytest.approx(happiness)


def test_calibration_error_equals_value_by_hand():
    # 0.9 twice, both right: gap 2 * 0.1. 0.7 twice, one right: 2 * 0.2. 0.5 twice, none: 2 * 0.5.
    summary = summarize(batch(), NAMES)
    assert summary["ece"] == pytest.approx((0.2 + 0.4 + 1.0) / 6)
    assert [b["count"] for b in summary["reliability"]] == [0] * 7 + [2, 0, 0, 2, 0, 0, 2, 0]
    assert summary["reliability"][10] == pytest.approx(
        {"count": 2, "confidence": 0.7, "accuracy": 0.5}
    )


@pytest.mark.parametrize(("confidence", "bin_"), [(0.0, 0), (0.06, 0), (0.07, 1), (1.0, 14)])
def test_every_confidence_has_a_bin(confidence, bin_):
    one = from_batch(
        jnp.array([[confidence, 0.0]]), jnp.array([0]), jnp.array([0.0]), jnp.array([True])
    )
    assert one.bin_count.tolist() == np.eye(15, dtype=int)[bin_].tolist()


def test_class_without_examples_is_none_and_left_out_of_means():
    summary = summarize(batch(), NAMES)
    surprise = {"examples": 0, "recall": None, "precision": 0.0, "f1": None}
    assert summary["per_class"]["surprise"] == surprise


def test_class_that_is_never_predicted_has_no_precision_and_an_f1_of_zero():
    sadness = {"examples": 1, "recall": 0.0, "precision": None, "f1": 0.0}
    assert summarize(batch(), NAMES)["per_class"]["sadness"] == sadness


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masked_batch_equals_its_subset(dtype):
    mask = np.array([1, 0, 1, 1, 0, 1], dtype)
    assert_same(batch(mask=mask), batch(rows=mask.astype(bool)))


def test_what_stands_in_a_masked_row_has_no_effect():
    probabilities, labels, losses = PROBABILITIES.copy(), LABELS.copy(), LOSSES.copy()
    probabilities[2], labels[2], losses[2] = np.nan, -1, np.inf
    mask = np.array([1, 1, 0, 1, 1, 1], bool)
    assert_same(
        from_batch(*map(jnp.asarray, (probabilities, labels, losses, mask))), batch(mask=mask)
    )


def test_merge_of_two_halves_equals_the_whole():
    assert_same(batch(slice(0, 2)).merge(batch(slice(2, 6))), batch())
    assert_same(Metrics.empty(4).merge(batch()), batch())


def test_same_under_jit_and_as_a_carried_state():
    @jax.jit
    def add(total, *arrays):
        return total.merge(from_batch(*arrays))

    arrays = tuple(map(jnp.asarray, (PROBABILITIES, LABELS, LOSSES, ALL)))
    total = add(add(Metrics.empty(4), *arrays), *arrays)
    assert_same(total, batch().merge(batch()))


def test_no_examples_give_none_and_valid_json():
    summary = summarize(Metrics.empty(4), NAMES)
    assert summary["examples"] == 0
    undefined = ("accuracy", "mean_class_accuracy", "macro_f1", "ece", "loss")
    assert [summary[key] for key in undefined] == [None] * 5
    json.dumps(summary, allow_nan=False)


def test_diverged_loss_is_none_and_valid_json():
    summary = summarize(batch().replace(loss_sum=jnp.array(jnp.nan)), NAMES)
    assert summary["loss"] is None
    json.dumps(summary, allow_nan=False)


def test_wrong_number_of_names_is_an_error():
    with pytest.raises(ValueError, match="3 names for a confusion matrix of 4 classes"):
        summarize(batch(), NAMES[:3])


def test_centers_of_a_simplex_reach_the_ideal_at_any_length():
    # The corners of a triangle point 120 degrees apart: a cosine of -1/2 = -1/(3-1).
    angles = np.deg2rad([0, 120, 240])
    centers = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1.0], [2.0], [0.5]]
    report = center_report(centers)
    assert report["mean_cosine"] == pytest.approx(-0.5)
    assert report["max_cosine"] == pytest.approx(-0.5)
    assert report["ideal_cosine"] == -0.5
    assert np.diag(report["cosines"]) == pytest.approx([1, 1, 1])


def test_center_report_by_hand():
    report = center_report(jnp.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]))
    # Pairs: 0, 3/5 and 4/5.
    assert report["mean_cosine"] == pytest.approx(1.4 / 3)
    assert report["max_cosine"] == pytest.approx(0.8)


def test_zero_center_gives_none_and_valid_json():
    report = center_report(np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert report["cosines"] == [[None, None], [None, 1.0]]
    assert report["mean_cosine"] is None
    json.dumps(report, allow_nan=False)
