"""Cosines and silhouettes of few vectors by hand, samples that are fair, maps that repeat."""

import sys

import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.explaining import embeddings


def test_each_class_comes_as_often_as_it_can():
    labels = np.repeat([0, 1, 2], [50, 3, 40])
    chosen = embeddings.sample_by_class(labels, 23)
    assert np.bincount(labels[chosen]).tolist() == [10, 3, 10]
    assert np.all(np.diff(chosen) > 0)
    np.testing.assert_array_equal(chosen, embeddings.sample_by_class(labels, 23))
    assert len(embeddings.sample_by_class(labels, 1000)) == 93


def test_cosines_are_worked_out():
    pytest.importorskip("sklearn")
    # Class 0: (1,0) and (0,1), of cosine 0. Class 1: (0,-1) twice, of cosine 1. Between them
    # the cosines are 0, 0, -1 and -1.
    unit = np.array([[1.0, 0], [0, 1], [0, -1], [0, -1]])
    labels = np.array([0, 0, 1, 1])
    centers = np.array([[1.0, 0], [0, -1]])
    found = embeddings.measure_classes(unit, labels, centers)
    assert found["within"] == pytest.approx((0 + 1) / 2)
    assert found["between"] == pytest.approx(-0.5)
    assert found["to_center"] == pytest.approx((0.5 + 1) / 2)
    # Cosine distances to the own class 1, 1, 0, 0 and to the other 1, 2, 1.5, 1.5.
    assert found["silhouette"] == pytest.approx((0 + 0.5 + 1 + 1) / 4)


def test_a_class_counts_the_same_however_many_examples_it_has():
    pytest.importorskip("sklearn")
    unit = np.array([[1.0, 0], [0, 1], [0, -1], [0, -1]])
    few = embeddings.measure_classes(unit, np.array([0, 0, 1, 1]), np.eye(2))
    many = embeddings.measure_classes(
        np.concatenate([unit, np.repeat(unit[2:3], 6, axis=0)]),
        np.array([0, 0, 1, 1, *[1] * 6]),
        np.eye(2),
    )
    for key in ("within", "between", "to_center"):
        assert many[key] == pytest.approx(few[key])


def test_what_is_undefined_is_none():
    pytest.importorskip("sklearn")
    one_class = embeddings.measure_classes(np.eye(3), np.zeros(3, int), np.eye(3))
    assert (one_class["between"], one_class["silhouette"]) == (None, None)
    alone = embeddings.measure_classes(np.eye(3), np.arange(3), np.eye(3))
    assert (alone["within"], alone["silhouette"]) == (None, None)


def test_means_are_directions_and_zero_without_examples():
    unit = np.array([[1.0, 0], [0, 1]])
    found = embeddings.class_means(unit, np.array([1, 1]), 3)
    np.testing.assert_allclose(found, [[0, 0], [0.5**0.5, 0.5**0.5], [0, 0]])


def test_map_of_the_same_vectors_is_the_same_and_keeps_groups_together():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(4)[:2], 15, axis=0)
    unit = embeddings.to_unit(groups + 0.05 * rng.normal(size=(30, 4)))
    places = embeddings.lay_out(unit)
    np.testing.assert_array_equal(places, embeddings.lay_out(unit))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert np.all(distance.argmin(axis=1) // 15 == np.arange(30) // 15)


def test_missing_scikit_learn_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install 'dmfer-jax\[explain\]'"):
        embeddings.check_scikit_learn()
