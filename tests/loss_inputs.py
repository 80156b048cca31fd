"""Embeddings, centers and targets, as the tests of losses and of centers draw them."""

import numpy as np

EXAMPLES, CLASSES, DIMENSIONS = 6, 4, 5
LABELS = np.array([0, 3, 1, 1, 2, 0])


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns an embedding [n, C] and centers [K, C] of various lengths."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(EXAMPLES, DIMENSIONS)), 2 * rng.normal(size=(CLASSES, DIMENSIONS))


def hard_targets() -> np.ndarray:
    return np.eye(CLASSES)[LABELS]


def soft_targets(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(CLASSES), EXAMPLES)
