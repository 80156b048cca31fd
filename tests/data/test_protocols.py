"""The five vote protocols, on votes small enough to count by hand."""

import numpy as np
import pytest

from dmfer_jax.data.protocols import PROTOCOLS, PUBLISHED_COUNTS, apply_protocol
from dmfer_jax.errors import UserError
from dmfer_jax.labels import Expression

# What stands in a row (columns: the 8 expressions, unknown, no face), and the label that each
# protocol gives it: (majority rule, plurality, plurality_first, votes); -1 is dropped.
CASES = {
    "six of ten": ([6, 0, 0, 4, 0, 0, 0, 0, 0, 0], (0, 0, 0, 0)),
    "half is not a majority": ([5, 0, 0, 2, 3, 0, 0, 0, 0, 0], (-1, 0, 0, 0)),
    "single votes do not count: 5 of 8": ([1, 0, 0, 1, 0, 5, 3, 0, 0, 0], (5, 5, 5, 5)),
    "4 of 9 after a single vote": ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], (-1, 0, 0, 0)),
    "tie": ([0, 5, 0, 5, 0, 0, 0, 0, 0, 0], (-1, -1, 1, 1)),
    "tie that unknown comes last in": ([0, 0, 5, 0, 0, 0, 0, 0, 5, 0], (-1, -1, 2, 2)),
    "unknown wins": ([0, 0, 3, 0, 0, 0, 0, 0, 7, 0], (-1, -1, -1, 2)),
    "no face": ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], (-1, -1, -1, -1)),
    "unknown wins by single expressions": ([1, 1, 1, 1, 1, 1, 1, 0, 3, 0], (-1, -1, -1, -1)),
    "ten single votes": ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], (-1, -1, -1, -1)),
    "nine votes": ([0, 0, 0, 0, 0, 0, 0, 9, 0, 0], (7, 7, 7, 7)),
}
VOTES = np.array([votes for votes, _ in CASES.values()], dtype=np.int32)


@pytest.mark.parametrize(
    ("protocol", "column"),
    [("majority", 0), ("majority_new", 0), ("plurality", 1), ("plurality_first", 2), ("votes", 3)],
)
def test_label_of_each_case(protocol: str, column: int):
    expected = {case: labels[column] for case, (_, labels) in CASES.items()}

    targets = apply_protocol(protocol, VOTES, VOTES)

    assert dict(zip(CASES, targets.label.tolist(), strict=True)) == expected
    assert targets.keep.tolist() == [label >= 0 for label in expected.values()]


def test_distribution_is_over_expressions_without_single_votes():
    votes = np.array([[4, 0, 0, 1, 3, 0, 0, 0, 2, 0]])

    targets = apply_protocol("votes", votes)

    # 1 is a slip, unknown is no expression: 4 and 3 of 7 are left.
    np.testing.assert_allclose(targets.distribution, [[4 / 7, 0, 0, 0, 3 / 7, 0, 0, 0]], rtol=1e-6)


def test_power_of_the_votes_brings_the_distribution_nearer_to_the_winner():
    votes = np.array([[6, 4, 0, 1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0, 9, 0]])

    plain = apply_protocol("votes", votes)
    squared = apply_protocol("votes", votes, vote_power=2.0)
    single = apply_protocol("votes", votes, vote_power=100.0)

    np.testing.assert_allclose(squared.distribution[0, :4], [36 / 52, 16 / 52, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(single.distribution[0], np.eye(8)[0], atol=1e-6)
    for of_power in (squared, single):
        np.testing.assert_array_equal(of_power.keep, plain.keep)
        np.testing.assert_array_equal(of_power.label, plain.label)
        assert not of_power.distribution[1].any()  # not kept


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_distribution_sums_to_one_exactly_where_kept(protocol: str):
    targets = apply_protocol(protocol, VOTES, VOTES)

    np.testing.assert_allclose(targets.distribution.sum(axis=1), targets.keep, rtol=1e-6)
    assert (targets.distribution.dtype, targets.label.dtype) == (np.float32, np.int32)
    assert targets.distribution.shape == (len(VOTES), len(Expression))


def test_majority_takes_label_and_distribution_from_label_csv():
    new = np.array([[6, 4, 0, 0, 0, 0, 0, 0, 0, 0], [10, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    label_csv = np.array([[0, 0, 8, 2, 0, 0, 0, 0, 0, 0], [-1] * 10])

    targets = apply_protocol("majority", new, label_csv)

    assert targets.label.tolist() == [Expression.SURPRISE, -1]  # the second row is not in label.csv
    np.testing.assert_allclose(targets.distribution[0], [0, 0, 0.8, 0.2, 0, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("missing", [None, np.full((2, 10), -1)])
def test_majority_without_label_csv_says_what_to_do(missing):
    with pytest.raises(UserError, match=r"label\.csv.*majority_new"):
        apply_protocol("majority", np.ones((2, 10)), missing)


def test_only_majority_needs_label_csv():
    for protocol in set(PROTOCOLS) - {"majority"}:
        assert apply_protocol(protocol, VOTES).keep[0]


def test_unknown_protocol_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'major' is unknown.*plurality_first"):
        apply_protocol("major", VOTES)


def test_no_rows_give_no_targets():
    empty = np.zeros((0, 10), dtype=np.int32)

    for protocol in PROTOCOLS:
        assert apply_protocol(protocol, empty, empty).distribution.shape == (0, 8)


def test_input_is_left_as_it_was():
    votes = VOTES.copy()

    apply_protocol("majority", votes, votes)

    np.testing.assert_array_equal(votes, VOTES)


def test_papers_train_on_28236_faces():
    # Training and PublicTest together, as most papers train.
    assert PUBLISHED_COUNTS["majority"]["train"] + PUBLISHED_COUNTS["majority"]["valid"] == 28_236
