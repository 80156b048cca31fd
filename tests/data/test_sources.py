"""Splits of built records: which rows count under which protocol, and their images and targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmfer_jax.config import get_config
from dmfer_jax.data import sources
from dmfer_jax.data.sources import RecordImages, load_split
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES
from tests.data_builders import ferplus_files


@pytest.fixture(scope="session")
def ferplus_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve FERPlus rows: 6 of train, 3 of valid, 3 of test; see tests/data_builders."""
    folder = tmp_path_factory.mktemp("ferplus")
    source = ferplus_files.write_source(folder / "source")
    return Path(ferplus_files.build(source, folder / "records").data_dir)


@pytest.fixture
def faces_dir(data_dir: Path) -> Path:
    """The tiny embedded faces: 48 to train on, 16 in each other split."""
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    return folder


def data(**changes: Any) -> Any:
    options: Any = get_config().data
    options.update({"image_size": 48, "channels": 1, "workers": 2, **changes})
    return options


# Rows of train with their labels (0 neutral, 1 happiness, 2 surprise), by hand from the votes.
PROTOCOLS = {
    # label.csv has no votes for rows 1 and 3, and 7 of 10 for neutral in row 4.
    "majority": {2: 1, 4: 0, 5: 2},
    # Row 0 has 4 of 9, row 4 a tie, row 3 no face.
    "majority_new": {1: 1, 2: 1, 5: 2},
    "plurality": {0: 0, 1: 1, 2: 1, 5: 2},
    "plurality_first": {0: 0, 1: 1, 2: 1, 4: 0, 5: 2},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocol_chooses_rows_and_labels(ferplus_dir, protocol):
    split = load_split(ferplus_dir, "train", data(protocol=protocol), train=True)
    assert dict(zip(split.rows.tolist(), split.labels.tolist(), strict=True)) == PROTOCOLS[protocol]
    np.testing.assert_array_equal(split.targets, np.eye(8)[split.labels])
    assert len(split) == len(split.images) == len(PROTOCOLS[protocol])
    assert split.class_names == EXPRESSION_NAMES


def test_votes_are_soft_targets_for_training_only(ferplus_dir):
    options = data(protocol="majority", train_protocol="votes")
    split = load_split(ferplus_dir, "train", options, train=True)
    assert split.rows.tolist() == [0, 1, 2, 4, 5]
    # Row 0 has 4 neutral, 3 anger, 2 disgust, and a single vote that does not count.
    np.testing.assert_allclose(split.targets[0], np.array([4, 0, 0, 0, 3, 2, 0, 0]) / 9)
    np.testing.assert_allclose(split.targets.sum(axis=1), 1, rtol=1e-6)
    assert split.targets.dtype == np.float32
    scored = load_split(ferplus_dir, "train", options, train=False)
    assert scored.rows.tolist() == list(PROTOCOLS["majority"])
    np.testing.assert_array_equal(scored.targets, np.eye(8)[scored.labels])


def test_rows_with_the_pixels_of_an_earlier_row_are_marked_across_splits(ferplus_dir):
    options = data(protocol="plurality_first")
    train = load_split(ferplus_dir, "train", options, train=False)
    assert train.rows[train.repeated].tolist() == [4]  # as row 0
    test = load_split(ferplus_dir, "test", options, train=False)
    assert test.rows.tolist() == [9, 11]
    assert test.rows[test.repeated].tolist() == [11]  # as row 2, of train


def test_images_are_the_pixels_of_their_rows(ferplus_dir):
    split = load_split(ferplus_dir, "train", data(protocol="plurality"), train=True)
    pixels = ferplus_files.draw_pixels()[split.rows].reshape(-1, 48, 48, 1)
    np.testing.assert_array_equal(np.asarray(split.images), pixels)
    rgb = load_split(ferplus_dir, "train", data(protocol="plurality", channels=3), train=True)
    np.testing.assert_array_equal(np.asarray(rgb.images), np.repeat(pixels, 3, axis=-1))


@pytest.mark.parametrize("limit", [0, 2, 100])
def test_limit_takes_the_first_examples_that_the_protocol_keeps(ferplus_dir, limit):
    split = load_split(ferplus_dir, "train", data(limit=limit), train=True)
    kept = list(PROTOCOLS["majority"])
    assert split.rows.tolist() == (kept[:limit] if limit else kept)
    assert len(split) == len(split.images) == len(split.targets) == len(split.repeated)


def test_split_that_does_not_fit_in_memory_gives_the_same_images(faces_dir):
    in_memory = load_split(faces_dir, "valid", data(image_size=24, channels=3), train=False)
    options = data(image_size=24, channels=3, memory_gib=0.0)
    streamed = load_split(faces_dir, "valid", options, train=False)
    assert isinstance(in_memory.images, np.ndarray)
    assert in_memory.images.shape == (16, 24, 24, 3)
    assert in_memory.images.dtype == np.uint8
    assert isinstance(streamed.images, RecordImages)
    for position in range(16):
        np.testing.assert_array_equal(streamed.images[position], in_memory.images[position])


def test_memory_is_counted_in_decoded_bytes(faces_dir):
    exactly = 16 * 24 * 24 * 3 / 2**30
    fits = data(image_size=24, channels=3, memory_gib=exactly)
    does_not = data(image_size=24, channels=3, memory_gib=exactly * 0.99)
    assert isinstance(load_split(faces_dir, "valid", fits, train=False).images, np.ndarray)
    assert isinstance(load_split(faces_dir, "valid", does_not, train=False).images, RecordImages)


def test_dataset_without_votes_has_one_label_for_each_row(faces_dir):
    split = load_split(faces_dir, "test_pose", data(train_protocol="votes"), train=True)
    assert split.rows.tolist() == list(range(16))
    assert np.bincount(split.labels).tolist() == [2] * 8  # the builder balances the classes
    np.testing.assert_array_equal(split.targets, np.eye(8)[split.labels])
    assert not split.repeated.any()


def test_names_of_splits_are_those_built(ferplus_dir, faces_dir):
    assert sorted(sources.split_names(ferplus_dir)) == ["test", "train", "valid"]
    assert len(sources.split_names(faces_dir)) == 5


def test_unknown_split_is_an_error_that_names_those_there_are(faces_dir):
    names = "train, valid, test, test_occlusion, test_pose"
    with pytest.raises(UserError, match=f"has no split 'validation'; it has {names}"):
        load_split(faces_dir, "validation", data(), train=False)


def test_protocol_that_keeps_nothing_is_an_error(ferplus_dir, monkeypatch):
    monkeypatch.setattr(sources, "_labels", lambda *_: (np.zeros(3, bool), np.zeros(3), None))
    with pytest.raises(UserError, match=r"split 'valid' of .* has no image under 'plurality'"):
        load_split(ferplus_dir, "valid", data(protocol="plurality"), train=False)


@pytest.mark.parametrize("threads", [1, 3])
def test_damaged_image_is_an_error_that_names_its_row(threads):
    records = [{"image": b"\x89PNG", "name": b"fer0000007.png", "row": 12}]
    images = RecordImages(records, np.array([0]), 48, 1)
    for read in (lambda: images[0], lambda: images.decode_all(threads)):
        with pytest.raises(UserError, match=r"'fer0000007\.png \(row 12\)' cannot be decoded"):
            read()
