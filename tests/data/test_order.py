"""Orders are computed for many places at once, and are those that Grain gives one by one."""

import grain
import numpy as np
import pytest

from dmfer_jax.data.order import mixed_order, natural_order

# Around the sizes at which the cipher takes more bits; from 2**16 on it takes more than 16.
SIZES = [1, 2, 3, 48, 255, 256, 257, 28_709, 65_535, 65_536, 65_537, 65_538, 262_145, 1_500_000]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("examples", SIZES)
def test_natural_order_is_that_of_grains_shuffle(examples, seed):
    grains = grain.MapDataset.range(examples).seed(seed).shuffle().repeat()
    # The first places, those around the end of the first epoch, and some of a later one.
    places = np.array([*range(9), *range(examples - 5, examples + 5), *range(7 * examples, 15)])
    places = places[places >= 0]
    expected = [grains[place] for place in places.tolist()]
    assert natural_order(examples, seed)(places).tolist() == expected


def test_whole_epochs_are_those_of_grain():
    grains = grain.MapDataset.range(300).seed(5).shuffle().repeat()
    assert natural_order(300, 5)(np.arange(1000)).tolist() == [grains[i] for i in range(1000)]


def test_an_epoch_holds_every_example_once_but_of_one_number_of_them():
    for examples in (65_536, 65_538):
        epoch = natural_order(examples, 0)(np.arange(examples))
        assert np.array_equal(np.sort(epoch), np.arange(examples))
    of_65_537 = natural_order(65_537, 0)(np.arange(65_537))
    assert np.array_equal(np.unique(of_65_537), np.arange(65_536))


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
