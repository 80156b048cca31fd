"""What a hash of names alone decides is the same everywhere and in any order."""

import numpy as np

from data_builders.common.division import choose_of_each_class, mixed_order, place

NAMES = [f"{index}.jpg" for index in range(300)]
LABELS = np.arange(300) % 3


def test_place_is_the_beginning_of_the_sha_256():
    # The first 8 bytes of the SHA-256 of "abc" (FIPS 180-2) over 2**64.
    assert place("abc") == 0xBA7816BF8F01CFEA / 2**64


def test_order_is_that_of_the_places_and_mixes():
    order = mixed_order(NAMES)
    assert sorted(order) == list(range(300))
    assert [NAMES[index] for index in order] == sorted(NAMES, key=place)


def test_choice_has_the_number_asked_for_of_each_class():
    chosen = choose_of_each_class(NAMES, LABELS, lambda images: images // 10)
    assert np.bincount(LABELS[chosen]).tolist() == [10, 10, 10]


def test_choice_is_the_same_in_any_order():
    order = np.random.default_rng(0).permutation(300)
    chosen = choose_of_each_class(NAMES, LABELS, lambda images: 7)
    shuffled = choose_of_each_class([NAMES[i] for i in order], LABELS[order], lambda images: 7)
    np.testing.assert_array_equal(chosen[order], shuffled)


def test_name_that_is_added_changes_the_choice_by_one_name_of_its_class_at_most():
    before = choose_of_each_class(NAMES, LABELS, lambda images: images // 10)
    labels = np.append(LABELS, 1)
    after = choose_of_each_class([*NAMES, "new.jpg"], labels, lambda images: images // 10)
    changed = before != after[:300]
    assert changed.sum() <= 1
    assert set(LABELS[changed]) <= {1}
