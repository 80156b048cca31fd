"""What a survey says of its counts and names."""

from typing import Any

import numpy as np
import pytest

from data_builders.common.survey import Rows, Survey, check_all_differ
from dmfer_jax.errors import UserError


def rows(labels: list[int], names: list[str] | None = None) -> Rows:
    names = names or [f"{index}.jpg" for index in range(len(labels))]
    return Rows(names, names, np.array(labels, np.int64))


def survey(splits: dict[str, Rows], published: dict[str, tuple[int, ...]]) -> Survey:
    return Survey("a layout", "", ("sad", "happy", "calm"), splits, published)


def test_counts_are_per_class_and_joined_splits_are_counted_together():
    found = survey({"train": rows([0, 2, 2]), "valid": rows([1])}, {})

    assert found.counts("train") == (1, 0, 2)
    assert found.counts("train+valid") == (1, 1, 2)
    assert found.counts("train+test") == (1, 0, 2)


def test_mismatches_name_split_class_and_both_numbers():
    splits = {"train": rows([0, 2, 2]), "valid": rows([1]), "test": rows([0])}
    found = survey(splits, {"train+valid": (1, 1, 1_300), "test": (1, 0, 0)})

    assert found.mismatches() == ["train+valid, calm: 2 images; published are 1,300"]


def test_split_that_is_not_there_is_no_mismatch():
    assert survey({"train": rows([0])}, {"test": (5, 5, 5)}).mismatches() == []


def with_fields(**fields: Any) -> Survey:
    split = rows([0, 1])
    split.fields = {"votes": np.array([[1, 2], [3, 4]]), "pixels": [b"ab", b"cd"], **fields}
    return survey({"train": split}, {})


def test_fingerprint_is_that_of_the_rows_and_not_of_where_they_lie():
    moved = with_fields()
    moved.splits["train"].files, moved.layout = ["x/0.jpg", "x/1.jpg"], "another layout"
    assert moved.fingerprint() == with_fields().fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        with_fields(votes=np.array([[1, 2], [3, 5]])),
        with_fields(pixels=[b"ab", b"ce"]),
        survey({"train": rows([0, 1])}, {}),
        survey({"test": with_fields().splits["train"]}, {}),
        survey({"train": rows([0, 1], ["0.jpg", "2.jpg"])}, {}),
        survey({"train": rows([1, 0])}, {}),
    ],
)
def test_fingerprint_tells_names_labels_fields_and_splits_apart(other):
    assert other.fingerprint() != with_fields().fingerprint()


def test_name_in_two_splits_is_refused():
    with pytest.raises(UserError, match=r"here: 'a.jpg' stands in train and in test"):
        check_all_differ({"train": rows([0], ["a.jpg"]), "test": rows([0], ["a.jpg"])}, "here")


def test_name_twice_in_a_split_is_refused():
    with pytest.raises(UserError, match=r"here: 'a.jpg' stands twice in train"):
        check_all_differ({"train": rows([0, 1], ["a.jpg", "a.jpg"])}, "here")


def test_file_that_goes_by_two_names_is_refused():
    train, test = rows([0], ["a.jpg"]), rows([0], ["a.JPG"])
    test.files = train.files
    with pytest.raises(UserError, match=r"here: 'a\.jpg' stands in train and in test"):
        check_all_differ({"train": train, "test": test}, "here")
