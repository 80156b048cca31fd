"""The fitted temperature is the one of the least loss, and is found again when it was put in."""

import numpy as np
import pytest

from dmfer_jax.calibration import TEMPERATURES, fit_temperature, scale_probabilities


def negative_log_likelihood(logits, labels, temperature):
    scaled = logits / temperature
    total = np.log(np.exp(scaled).sum(axis=1))
    return np.mean(total - scaled[np.arange(len(labels)), labels])


def draw(n=400, classes=5):
    rng = np.random.default_rng(0)
    return 3 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)


def test_two_classes_are_fitted_as_worked_out_by_hand():
    # Says 90 % and is right 3 times of 4. At T the odds are 9^(1/T); they must be 3, so T = 2.
    logits = np.log([[0.9, 0.1]] * 4)
    assert fit_temperature(logits, [0, 0, 0, 1]) == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize("put_in", [0.3, 1.0, 4.0])
def test_temperature_that_was_put_in_is_found_again(put_in):
    # Each row stands for 1,000 examples whose labels are drawn exactly as its softmax says.
    rng = np.random.default_rng(1)
    counts = rng.multinomial(1000, [0.2, 0.3, 0.5], size=20)
    counts[counts == 0] = 1
    honest = np.log(counts / counts.sum(axis=1, keepdims=True))
    logits = np.repeat(honest, counts.sum(axis=1), axis=0)
    labels = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    assert fit_temperature(put_in * logits, labels) == pytest.approx(put_in, rel=1e-9)


def test_no_temperature_nearby_has_a_lower_loss():
    logits, labels = draw()
    logits[np.arange(400), labels] += 2  # right more often than by chance, and too sure
    best = fit_temperature(logits, labels)
    least = negative_log_likelihood(logits, labels, best)
    assert TEMPERATURES[0] < best < TEMPERATURES[1]
    for other in (0.99 * best, 1.01 * best):
        assert negative_log_likelihood(logits, labels, other) > least


def test_log_probabilities_and_shifted_logits_give_the_same_temperature():
    logits, labels = draw()
    logits[np.arange(400), labels] += 2
    expected = fit_temperature(logits, labels)
    logs = np.log(scale_probabilities(logits, 1))
    assert fit_temperature(logs, labels) == pytest.approx(expected, rel=1e-9)
    assert fit_temperature(logits + 1e6, labels) == pytest.approx(expected, rel=1e-6)


def test_where_no_best_temperature_exists_the_bound_is_given():
    logits, labels = draw()
    always_right = np.eye(5)[labels]
    assert fit_temperature(always_right, labels) == TEMPERATURES[0]
    assert fit_temperature(-always_right, labels) == TEMPERATURES[1]
    assert fit_temperature(np.zeros_like(logits), labels) == TEMPERATURES[1]


def test_scaled_probabilities_keep_the_order_and_sum_to_one():
    logits, _ = draw()
    scaled = scale_probabilities(logits, 7)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(scaled.argsort(axis=1), logits.argsort(axis=1))
    np.testing.assert_allclose(scale_probabilities([[np.log(9) * 2, 0]], 2), [[0.9, 0.1]])


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.zeros((0, 3)), [], "expected"),
        (np.zeros((2, 3)), [0], "expected"),
        (np.zeros(3), [0, 1, 2], "expected"),
        ([[0, -np.inf]], [0], "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits, labels, words):
    with pytest.raises(ValueError, match=words):
        fit_temperature(logits, labels)
