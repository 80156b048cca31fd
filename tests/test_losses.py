"""Losses against formulas written out in NumPy, in float64."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dmfer_jax import loss_options, losses
from dmfer_jax.config import get_config
from tests.loss_inputs import (
    CLASSES,
    DIMENSIONS,
    EXAMPLES,
    LABELS,
    draw,
    hard_targets,
    soft_targets,
)

ARGUMENTS: dict[str, dict[str, float]] = {
    "center_cosine": {"scale": 7.0, "margin": 0.3},
    "center_cosine_island": {"margin": 0.1, "beta": 0.7},
    "center_cosine_triplet": {"margin": 0.4},
    "center": {},
    "island": {"beta": 0.7},
    "affinity": {},
    "attentive_center": {},
    "cosface": {"scale": 7.0, "margin": 0.3, "label_smoothing": 0.0},
    "arcface": {"scale": 7.0, "margin": 0.6, "label_smoothing": 0.0},
}
EUCLIDEAN_LOSSES = ["center", "island", "affinity", "attentive_center"]
COSINE_LOSSES = [name for name in ARGUMENTS if name not in EUCLIDEAN_LOSSES]
ATTENTION = np.random.default_rng(3).uniform(size=(EXAMPLES, DIMENSIONS))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@functools.partial(jax.jit, static_argnames=("name", "margin"))
def compute(
    name: str, embedding: Any, centers: Any, targets: Any, margin: float | None = None
) -> jax.Array:
    """The loss of this name, with `ARGUMENTS` unless told otherwise.

    The centers are a margin head's weights by class. Attention is `ATTENTION`.
    """
    function, inputs, _ = losses.LOSSES[name]
    arguments = ARGUMENTS[name] if margin is None else {**ARGUMENTS[name], "margin": margin}
    given = {"embedding": embedding, "centers": centers, "attention": ATTENTION}
    if "logits" in inputs:
        cosine = losses.cosine_to_centers(jnp.asarray(embedding), jnp.asarray(centers))
        given["logits"] = arguments["scale"] * cosine
    return function(*(jnp.asarray(given[n]) for n in inputs), jnp.asarray(targets), **arguments)


# The formulas, of one example x with label y, written out term by term; `i` is its number.


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def center_cosine(x, y, centers, scale, margin, **_):
    own = np.exp(scale * (cosine(x, centers[y]) - margin))
    others = sum(np.exp(scale * cosine(x, c)) for j, c in enumerate(centers) if j != y)
    return -np.log(own / (own + others))


def center_cosine_island(x, y, centers, margin, beta, **_):
    pairs = [(j, k) for j in range(len(centers)) for k in range(len(centers)) if j != k]
    overlaps = [max(0.0, cosine(centers[j], centers[k]) - margin) for j, k in pairs]
    return 1 - cosine(x, centers[y]) + beta * np.mean(overlaps)


def center_cosine_triplet(x, y, centers, margin, **_):
    nearest = max(cosine(x, c) for j, c in enumerate(centers) if j != y)
    return max(0.0, nearest - cosine(x, centers[y]) + margin)


def center(x, y, centers, **_):
    return 0.5 * sum((x[d] - centers[y][d]) ** 2 for d in range(len(x)))


def island(x, y, centers, beta, **_):
    pairs = [(j, k) for j in range(len(centers)) for k in range(len(centers)) if j != k]
    return center(x, y, centers) + beta * sum(cosine(centers[j], centers[k]) + 1 for j, k in pairs)


def affinity(x, y, centers, **_):
    mean = sum(centers) / len(centers)
    spread = sum(sum((c - mean) ** 2) for c in centers) / (len(centers) - 1)
    return sum((x - centers[y]) ** 2) / spread


def attentive_center(x, y, centers, i, **_):
    return 0.5 * sum(ATTENTION[i][d] * (x[d] - centers[y][d]) ** 2 for d in range(len(x)))


def arcface(x, y, weights, scale, margin, **_):
    angles = [np.arccos(cosine(x, w)) for w in weights]
    beyond = np.cos(angles[y]) - margin * np.sin(margin)
    own = np.cos(angles[y] + margin) if angles[y] + margin < np.pi else beyond
    others = sum(np.exp(scale * np.cos(a)) for j, a in enumerate(angles) if j != y)
    return -np.log(np.exp(scale * own) / (np.exp(scale * own) + others))


FORMULAS: dict[str, Callable[..., float]] = {
    "center_cosine": center_cosine,
    "center_cosine_island": center_cosine_island,
    "center_cosine_triplet": center_cosine_triplet,
    "center": center,
    "island": island,
    "affinity": affinity,
    "attentive_center": attentive_center,
    "cosface": center_cosine,  # on a head's weights
    "arcface": arcface,
}


def test_every_loss_is_tested_here_and_reads_options_that_exist():
    assert FORMULAS.keys() == ARGUMENTS.keys() == losses.LOSSES.keys()
    assert ("none", *losses.LOSSES) == loss_options.NAMES
    assert set(loss_options.EUCLIDEAN_LOSSES) == set(EUCLIDEAN_LOSSES)
    for name, (_, _, fields) in losses.LOSSES.items():
        assert set(fields) == ARGUMENTS[name].keys()
        assert set(fields) <= get_config().to_dict()["loss"].keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_hard_labels_give_the_formula(name):
    x, centers = draw()
    expected = [
        FORMULAS[name](x[i], LABELS[i], centers, i=i, **ARGUMENTS[name]) for i in range(EXAMPLES)
    ]
    found = compute(name, x, centers, hard_targets())
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_soft_labels_give_the_expectation_of_the_formula(name):
    x, centers = draw()
    targets = soft_targets()
    expected = [
        sum(
            targets[i, y] * FORMULAS[name](x[i], y, centers, i=i, **ARGUMENTS[name])
            for y in range(CLASSES)
        )
        for i in range(EXAMPLES)
    ]
    np.testing.assert_allclose(compute(name, x, centers, targets), expected, rtol=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_finite_differences(name):
    x, centers = draw()
    check_grads(
        lambda x, centers: compute(name, x, centers, soft_targets()),
        tuple(map(jnp.asarray, (x, centers))),
        order=1,
        modes=("rev",),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_is_the_same_under_jit(name):
    x, centers = draw()
    arrays = tuple(map(jnp.asarray, (x, centers, soft_targets())))
    with jax.disable_jit():
        eager = compute(name, *arrays)
    np.testing.assert_allclose(compute(name, *arrays), eager, rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_zero_embedding_has_a_finite_loss_and_gradient(name):
    _, centers = draw()
    x = jnp.zeros((EXAMPLES, DIMENSIONS))
    loss, grads = jax.value_and_grad(
        lambda x, centers: compute(name, x, centers, hard_targets()).sum(), argnums=(0, 1)
    )(x, jnp.asarray(centers))
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", COSINE_LOSSES)
def test_cosine_loss_ignores_the_length_of_embedding_and_centers(name):
    x, centers = draw()
    longer = compute(name, x * np.arange(1, EXAMPLES + 1)[:, None], centers, soft_targets())
    shorter = compute(name, x, centers * [[0.1], [3.0], [1.0], [20.0]], soft_targets())
    expected = compute(name, x, centers, soft_targets())
    np.testing.assert_allclose(longer, expected, rtol=1e-10)
    np.testing.assert_allclose(shorter, expected, rtol=1e-10)


@pytest.mark.parametrize("name", COSINE_LOSSES)
def test_gradient_of_a_cosine_loss_is_orthogonal_to_the_embedding(name):
    x, centers = draw()
    grad = jax.grad(lambda x: compute(name, x, centers, soft_targets()).sum())(jnp.asarray(x))
    assert float(jnp.abs(grad).max()) > 1e-3
    np.testing.assert_allclose(jnp.sum(grad * x, axis=1), 0, atol=1e-10)


def test_center_cosine_without_margin_is_cross_entropy_of_the_normalised_softmax():
    x, centers = draw()
    logits = [[7.0 * cosine(x[i], c) for c in centers] for i in range(EXAMPLES)]
    np.testing.assert_allclose(
        compute("center_cosine", x, centers, soft_targets(), margin=0.0),
        losses.cross_entropy(jnp.asarray(logits), jnp.asarray(soft_targets())),
        rtol=1e-10,
    )


@pytest.mark.parametrize("name", ["center_cosine", "center_cosine_triplet", "cosface", "arcface"])
def test_margin_raises_the_loss(name):
    x, centers = draw()
    low, high = (
        np.asarray(compute(name, x, centers, hard_targets(), margin=margin))
        for margin in (0.0, 0.4)
    )
    # An example that the triplet form asks nothing of any more stays at 0.
    assert (high >= low).all() if name == "center_cosine_triplet" else (high > low).all()
    assert (high > low).any()


def test_center_cosine_is_finite_at_a_large_scale():
    # The right center exactly opposite: e^{-64}, where a softmax without care gives log(0).
    centers = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    loss = jax.jit(functools.partial(losses.center_cosine, scale=64.0, margin=0.35))(
        np.array([[-1.0, 0.0]], np.float32), centers, np.array([[1.0, 0.0]], np.float32)
    )
    # -log(e^a / (e^a + e^b)) with a = 64 (-1 - 0.35), b = 64 is b - a within e^{-150}.
    np.testing.assert_allclose(loss, [64 * 2.35], rtol=1e-6)


def test_affinity_is_the_same_in_any_unit_of_length():
    x, centers = draw()
    expected = compute("affinity", x, centers, soft_targets())
    found = compute("affinity", 10 * x + 3, 10 * centers + 3, soft_targets())
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_affinity_of_centers_that_are_all_the_same_is_finite():
    x, _ = draw()
    assert jnp.isfinite(
        compute("affinity", x, np.ones((CLASSES, DIMENSIONS)), hard_targets())
    ).all()


def test_attentive_center_counts_a_dimension_as_often_as_its_weight_says():
    x, centers = (jnp.asarray(array) for array in draw())
    targets = jnp.asarray(soft_targets())

    def of_weights(weights: jax.Array) -> jax.Array:
        return losses.attentive_center(x, centers, weights, targets)

    ones = jnp.ones_like(x)
    np.testing.assert_allclose(of_weights(ones), losses.center(x, centers, targets), rtol=1e-12)
    first = losses.center(x[:, :1], centers[:, :1], targets)
    np.testing.assert_allclose(of_weights(ones.at[:, 1:].set(0)), first, rtol=1e-12)


def arcface_at(angles: np.ndarray, margin: float) -> jax.Array:
    """ArcFace's loss of two classes, where x is so many radians from the label's weights.

    The other class's are at a right angle, out of the plane.
    """
    weights = np.array([[1.0, 0, 0], [0, 0, 1.0]])
    x = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    return compute("arcface", x, weights, np.eye(2)[np.zeros(len(x), int)], margin)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
def test_arcface_rises_with_the_angle_up_to_opposite_directions(margin):
    loss = arcface_at(np.linspace(0, np.pi, 100), margin)
    assert (np.diff(loss) > 0).all()


def test_arcface_beyond_the_angle_that_the_margin_leaves():
    # 2.8 + 0.5 > pi. Scale 7: log(1 + e^{0 - 7 (cos 2.8 - 0.5 sin 0.5)}).
    expected = np.log1p(np.exp(-7 * (np.cos(2.8) - 0.5 * np.sin(0.5))))
    np.testing.assert_allclose(arcface_at(np.array([2.8]), 0.5), [expected], rtol=1e-10)


@pytest.mark.parametrize("name", ["cosface", "arcface"])
def test_margin_loss_without_margin_is_the_cross_entropy_of_the_logits(name):
    logits, targets = jnp.asarray(3 * draw()[0][:, :CLASSES]), jnp.asarray(soft_targets())
    function = functools.partial(losses.LOSSES[name].function, scale=20.0, margin=0.0)
    for smoothing in (0.0, 0.2):
        np.testing.assert_allclose(
            function(logits, targets, label_smoothing=smoothing),
            losses.cross_entropy(logits, targets, label_smoothing=smoothing),
            rtol=1e-10,
        )


@pytest.mark.parametrize("name", ["cosface", "arcface"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_margin_loss_has_a_finite_gradient_along_and_against_the_weights(name, sign):
    with jax.enable_x64(False):  # as in training, where a cosine may be above 1 by rounding
        weights = np.asarray(draw()[1], np.float32)
        x = jnp.asarray(sign * 7 * weights[LABELS])
        function = functools.partial(losses.LOSSES[name].function, scale=64.0, margin=0.5)

        def loss(x: jax.Array) -> jax.Array:
            logits = 64.0 * losses.cosine_to_centers(x, jnp.asarray(weights))
            return function(logits, jnp.asarray(hard_targets(), jnp.float32)).sum()

        value, grad = jax.value_and_grad(loss)(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_gives_the_formula(smoothing):
    logits = np.random.default_rng(2).normal(size=(EXAMPLES, CLASSES)) * 3
    targets = soft_targets()
    expected = []
    for row, target in zip(logits, targets, strict=True):
        log_total = np.log(sum(np.exp(value) for value in row))
        smooth = [(1 - smoothing) * t + smoothing / CLASSES for t in target]
        expected.append(-sum(t * (v - log_total) for t, v in zip(smooth, row, strict=True)))
    found = losses.cross_entropy(
        jnp.asarray(logits), jnp.asarray(targets), label_smoothing=smoothing
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["center_cosine", "affinity", "cosface", "arcface"])
def test_masked_mean_of_a_batch_equals_the_mean_of_its_subset(name):
    x, centers = draw()
    mask = np.array([1.0, 0, 1, 1, 0, 1])
    values = compute(name, x, centers, soft_targets())
    subset = compute(name, x[mask > 0], centers, soft_targets()[mask > 0])
    found = losses.masked_mean(values, jnp.asarray(mask))
    np.testing.assert_allclose(found, subset.mean(), rtol=1e-12)


def test_masked_mean_of_nothing_is_zero():
    assert losses.masked_mean(jnp.ones(3), jnp.zeros(3)) == 0
