"""The update of the class centers, and how far apart centers can be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import losses
from dmfer_jax.metrics import center_report
from dmfer_jax.models import vectors
from tests.loss_inputs import (
    CLASSES,
    DIMENSIONS,
    EXAMPLES,
    LABELS,
    draw,
    hard_targets,
    soft_targets,
)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def update(centers: Any, embedding: Any, targets: Any, mask: Any = None, **options) -> np.ndarray:
    """Centers after an update, which works in float32, whatever it is given."""
    mask = np.ones(len(embedding)) if mask is None else mask
    arrays = (np.asarray(array, np.float32) for array in (centers, embedding, targets, mask))
    return np.asarray(_update(*arrays, **options))


_update = jax.jit(losses.update_centers, static_argnames=("rate", "unit"))


def test_euclidean_update_by_hand():
    centers = [[0.0, 0.0], [10.0, 10.0]]
    embedding = [[1.0, 0.0], [3.0, 2.0], [10.0, 14.0]]
    targets = [[1, 0], [1, 0], [0, 1]]
    # delta_0 = ((1, 0) + (3, 2)) / (1 + 2); delta_1 = (0, 4) / (1 + 1); half of each is moved.
    np.testing.assert_allclose(
        update(centers, embedding, targets, rate=0.5, unit=False),
        [[2 / 3, 1 / 3], [10.0, 11.0]],
        rtol=1e-6,
    )


def test_cosine_update_by_hand():
    # x^ = (0, 1), delta = ((0, 1) - (1, 0)) / 2; (1, 0) + delta / 2 = (3/4, 1/4), then length 1.
    moved = update([[1.0, 0.0], [0.0, 1.0]], [[0.0, 5.0]], [[1, 0]], rate=0.5)
    np.testing.assert_allclose(moved[0], np.array([3, 1]) / np.sqrt(10), rtol=1e-6)


def test_update_weighs_soft_labels():
    # A quarter of an example: delta = (8 - 0) / 4 / (1 + 1/4) = 1.6.
    moved = update([[0.0], [8.0]], [[8.0]], [[0.25, 0.75]], rate=1.0, unit=False)
    np.testing.assert_allclose(moved, [[1.6], [8.0]], rtol=1e-6)


@pytest.mark.parametrize("unit", [True, False])
def test_class_without_examples_does_not_move(unit):
    x, centers = draw()
    targets = np.eye(CLASSES)[np.array([0, 3, 0, 0, 3, 0])]
    moved = update(centers, x, targets, unit=unit)
    np.testing.assert_array_equal(moved[[1, 2]], centers[[1, 2]].astype(np.float32))
    assert (np.abs(moved - centers)[[0, 3]].max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("unit", [True, False])
def test_update_of_a_masked_batch_equals_that_of_its_subset(unit):
    x, centers = draw()
    mask = np.array([1, 0, 1, 1, 0, 1])
    chosen = mask > 0
    masked = update(centers, x, soft_targets(), mask, unit=unit)
    subset = update(centers, x[chosen], soft_targets()[chosen], unit=unit)
    np.testing.assert_allclose(masked, subset, rtol=1e-5)


def test_centers_stay_of_length_one():
    centers: Any = losses.init_centers(jax.random.key(0), CLASSES, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, rtol=1e-6)
    for seed in range(20):
        centers = update(centers, 100 * draw(seed)[0], soft_targets(seed))
    assert centers.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, rtol=1e-6)


def test_no_gradient_passes_from_the_moved_centers_to_the_embedding():
    x, centers = draw()
    grad = jax.grad(lambda x: _update(centers, x, soft_targets(), np.ones(EXAMPLES)).sum())(x)
    assert not grad.any()


def test_repeated_update_finds_the_direction_of_each_class():
    directions = np.eye(CLASSES, DIMENSIONS)
    centers = vectors.unit(jnp.asarray(draw()[1]))
    for _ in range(60):
        centers = update(centers, 3 * directions[LABELS], hard_targets())
    np.testing.assert_allclose(centers, directions, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_centers_of_a_simplex_are_as_sparse_as_centers_can_be(classes):
    # The corners of a regular simplex: the axes, seen from their mean.
    corners = np.eye(classes) - 1 / classes
    report = center_report(corners)
    assert report["max_cosine"] == pytest.approx(-1 / (classes - 1))
    assert report["ideal_cosine"] == pytest.approx(-1 / (classes - 1))
    # K unit vectors have |sum|^2 = K + K (K-1) mean cosine >= 0, so no others do better.
    for seed in range(5):
        drawn = np.random.default_rng(seed).normal(size=(classes, classes))
        assert center_report(drawn)["mean_cosine"] >= -1 / (classes - 1) - 1e-12


def test_no_margin_above_that_of_a_simplex_can_be_kept():
    corners = np.eye(CLASSES) - 1 / CLASSES
    widest = CLASSES / (CLASSES - 1)

    def triplet(margin: float) -> jax.Array:
        arrays = map(jnp.asarray, (corners, corners, np.eye(CLASSES)))
        return losses.center_cosine_triplet(*arrays, margin=margin)

    np.testing.assert_allclose(triplet(widest), 0, atol=1e-12)
    np.testing.assert_allclose(triplet(widest + 0.1), 0.1, rtol=1e-10)
