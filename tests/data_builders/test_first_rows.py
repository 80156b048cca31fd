"""The first row of each content is remembered, whatever the digests."""

import hashlib

import numpy as np

from data_builders.common.first_rows import FirstRows


def test_first_row_of_each_content_is_returned():
    contents = np.random.default_rng(0).integers(0, 700, 2_000).tolist()
    remembered, expected = FirstRows(len(contents)), {}
    for row, content in enumerate(contents):
        digest = hashlib.sha256(str(content).encode()).digest()
        assert remembered.first(digest, row) == expected.setdefault(content, row)


def test_digests_that_meet_in_one_slot_are_told_apart():
    remembered = FirstRows(4)  # 16 slots
    same_slot = [(5 + 16 * number).to_bytes(8, "little") for number in range(4)]
    assert [remembered.first(digest, row) for row, digest in enumerate(same_slot)] == [0, 1, 2, 3]
    assert [remembered.first(digest, 9) for digest in same_slot] == [0, 1, 2, 3]


def test_digest_of_zeros_is_one_like_others():
    remembered = FirstRows(2)
    assert remembered.first(bytes(8), 7) == 7
    assert remembered.first(bytes(8), 8) == 7
