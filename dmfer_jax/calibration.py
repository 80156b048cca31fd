"""Temperature scaling: one number, fitted on held-out data, that makes confidence honest.

Guo et al., "On calibration of modern neural networks", ICML 2017: logits are divided by one
temperature T > 0. No prediction changes, since the order of the logits does not.
"""

from typing import Any

import numpy as np

TEMPERATURES = (0.05, 20.0)
"""The lowest and the highest temperature that is fitted. Beyond them probabilities are all but
certain, or all but equal, and a best value need not exist: where every example is predicted right,
colder is always better."""


def fit_temperature(logits: Any, labels: Any) -> float:
    """Returns the temperature T at which softmax(logits / T) has the least negative log-likelihood.

    In the inverse temperature b = 1/T the mean negative log-likelihood is convex. Its slope, the
    mean over examples of sum_k p_k z_k - z_y with p = softmax(b z), rises with b; where it is 0
    is found by bisection, to float64's rounding. There is nothing to tune and nothing random.

    >>> logits = np.log([[0.9, 0.1]] * 4)  # says 90 %, and is right three times out of four
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 3)
    2.0

    Args:
      logits: `[n, K]`, or the logarithms of probabilities, which are logits, too. Of examples that
        the network was not trained on, or T comes out too low.
      labels: int `[n]`, the true class, 0 to K-1.

    Returns:
      T, within `TEMPERATURES`; above 1 where the network is too sure.

    Raises:
      ValueError: there is no example, the shapes do not fit, or a logit is not finite.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(y):
        raise ValueError(f"logits are {z.shape} and labels {y.shape}; expected [n, K] and [n]")
    if not np.isfinite(z).all():
        raise ValueError("a logit is not finite; of a probability of 0 take a tiny one's logarithm")
    # Measured from the true class, so that a large common part does not cost digits.
    z = z - z[np.arange(len(y)), y][:, None]

    def slope(inverse: float) -> float:
        return float(np.mean(np.sum(_softmax(inverse * z) * z, axis=1)))

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    for _ in range(60):  # each halves the interval; float64 has 52 bits
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def scale_probabilities(logits: Any, temperature: float) -> np.ndarray:
    """Returns softmax(logits / T): float64 `[n, K]`.

    Args:
      logits: `[n, K]`, or the logarithms of probabilities.
      temperature: T, of `fit_temperature`.
    """
    return _softmax(np.asarray(logits, np.float64) / temperature)


def _softmax(z: np.ndarray) -> np.ndarray:
    weights = np.exp(z - z.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
