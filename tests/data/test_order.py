"""Orders are computed for many places at once, and hold what they promise."""

import numpy as np
import pytest

from dmfer_jax.data.order import mixed_order, natural_order


@pytest.mark.parametrize("examples", [1, 2, 300, 65_537])
def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(examples):
    epochs = natural_order(examples, 5)(np.arange(3 * examples)).reshape(3, examples)
    assert np.array_equal(np.sort(epochs), np.tile(np.arange(examples), (3, 1)))
    if examples > 2:
        orders = {tuple(epoch.tolist()) for epoch in [*epochs, np.arange(examples)]}
        assert len(orders) == 4


def test_natural_order_is_the_same_whatever_is_asked_for_at_once():
    whole = natural_order(300, 5)(np.arange(1000))
    one_by_one = natural_order(300, 5)
    assert [one_by_one(np.array([place]))[0] for place in range(1000)] == whole.tolist()
    across = np.array([900, 3, 299, 300, 3])
    assert one_by_one(across).tolist() == whole[across].tolist()


def test_seeds_have_other_orders():
    first, second = (natural_order(300, seed)(np.arange(300)) for seed in (0, 1))
    assert np.mean(first == second) < 0.05


def test_natural_order_has_not_changed():
    # A run goes on with the batches it began with.
    two_epochs = [7, 4, 1, 8, 6, 0, 2, 9, 3, 5, 6, 1, 2, 8, 7, 5, 4, 3, 9, 0]
    assert natural_order(10, 3)(np.arange(20)).tolist() == two_epochs


@pytest.mark.parametrize("sampling", ["balanced", "square_root"])
def test_mixed_order_is_the_same_whatever_is_asked_for_at_once(sampling):
    labels = np.repeat([0, 1, 3], [16, 4, 1])
    whole = mixed_order(labels, sampling, 3)(np.arange(1000))
    one_by_one = mixed_order(labels, sampling, 3)
    assert [one_by_one(np.array([place]))[0] for place in range(990, 1000)] == whole[-10:].tolist()


def test_mixed_order_has_not_changed():
    balanced = [2, 16, 18, 17, 20, 20, 20, 19, 20, 14, 17, 4]
    square_root = [2, 14, 4, 16, 18, 20, 17, 9, 19, 0, 15, 7]
    # The first examples that earlier versions read: a run goes on with the batches it began with.
    labels = np.repeat([0, 1, 3], [16, 4, 1])
    assert mixed_order(labels, "balanced", 3)(np.arange(12)).tolist() == balanced
    assert mixed_order(labels, "square_root", 3)(np.arange(12)).tolist() == square_root
