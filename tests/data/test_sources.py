"""Splits of built records: which rows count under which protocol, and their images and targets."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from dmfer_jax.config import get_config
from dmfer_jax.data import sources
from dmfer_jax.data.records import open_records, split_names
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


class Pets(tfds.core.GeneratorBasedBuilder):
    """Six images of the user's own classes, with what is known of each animal."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = epath.Path(__file__).parent  # TFDS expects a builder in a package
    LABELS = (1, 0, 2, 1, -1, 2)  # one without a label
    SEXES = (0, 1, -1, 0, 1, 1)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(16, 16, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["owl", "cat", "dog"]),
            "sex": tfds.features.ClassLabel(names=["female", "male"]),
            "weight": np.float32,
            "name": tfds.features.Text(),
            "row": np.int64,
            "first_row": np.int64,
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for row, (label, sex) in enumerate(zip(self.LABELS, self.SEXES, strict=True)):
            png = io.BytesIO()
            Image.new("L", (16, 16), row).save(png, "png")
            fields = {
                "image": io.BytesIO(png.getvalue()),
                "label": label,
                "sex": sex,
                "weight": 2.5,
            }
            yield row, {**fields, "name": f"Tür{row}.png", "row": row, "first_row": row}


@pytest.fixture(scope="session")
def pets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pets")
    builder = Pets(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


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
    options.vote_power = 2.0
    squared = load_split(ferplus_dir, "train", options, train=True)
    np.testing.assert_allclose(squared.targets[0], np.array([16, 0, 0, 0, 9, 4, 0, 0]) / 29)


def test_a_joined_split_of_which_a_part_lacks_label_csv_is_refused():
    votes = np.array([[8, 2, *[0] * 8]] * 4)
    fields = {"votes_new": votes, "votes_label_csv": votes.copy()}
    keep, labels, targets = sources._labels(fields, [2, 2], "majority", 1.0, 8)
    assert (keep.tolist(), labels.tolist(), targets.shape) == ([True] * 4, [0] * 4, (4, 8))
    fields["votes_label_csv"][2:] = -1
    with pytest.raises(UserError, match="built without it"):
        sources._labels(fields, [2, 2], "majority", 1.0, 8)


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


def test_limit_is_that_of_each_split_where_two_are_trained_on(faces_dir):
    options = data(image_size=24, channels=3, limit=3)
    alone = [load_split(faces_dir, name, options, train=True) for name in ("train", "valid")]
    both = load_split(faces_dir, "train+valid", options, train=True)
    assert len(both) == 6
    np.testing.assert_array_equal(both.rows, np.concatenate([split.rows for split in alone]))
    pixels = np.concatenate([np.asarray(split.images) for split in alone])
    np.testing.assert_array_equal(np.asarray(both.images), pixels)


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


def test_classes_names_and_attributes_are_those_of_the_build(pets_dir):
    split = load_split(pets_dir, "train", data(), train=True)
    assert split.class_names == ("owl", "cat", "dog")
    # Row 4 has no label, so it does not take part.
    assert split.rows.tolist() == [0, 1, 2, 3, 5]
    assert split.labels.tolist() == [1, 0, 2, 1, 2]
    np.testing.assert_array_equal(split.targets, np.eye(3)[split.labels])
    assert split.names.tolist() == ["Tür0.png", "Tür1.png", "Tür2.png", "Tür3.png", "Tür5.png"]
    assert list(split.groups) == ["sex"]
    assert split.groups["sex"].tolist() == ["female", "male", "unknown", "female", "male"]


def test_dataset_without_attributes_has_no_groups(ferplus_dir):
    split = load_split(ferplus_dir, "train", data(), train=True)
    assert split.groups == {}
    assert split.names.shape == (len(split),)


def test_classes_left_out_take_their_rows_with_them_and_the_others_are_counted_anew(pets_dir):
    split = load_split(pets_dir, "train", data(drop_classes=("owl",)), train=True)
    assert split.class_names == ("cat", "dog")
    assert split.rows.tolist() == [0, 2, 3, 5]
    assert split.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(split.targets, np.eye(2)[split.labels])
    assert split.images[1].max() == 2  # the pixels of row 2
    assert split.groups["sex"].tolist() == ["female", "unknown", "female", "male"]
    assert split.labels.dtype == np.int32
    assert split.targets.dtype == np.float32


def test_votes_for_a_class_left_out_go_to_the_others(ferplus_dir):
    options = data(train_protocol="votes", drop_classes=("neutral",))
    split = load_split(ferplus_dir, "train", options, train=True)
    # Of row 0's votes 4 neutral, 3 anger, 2 disgust, the last two remain.
    assert split.rows[0] == 0
    np.testing.assert_allclose(split.targets[0], np.array([0, 0, 0, 3, 2, 0, 0]) / 5)
    assert split.class_names[split.labels[0]] == "anger"
    np.testing.assert_allclose(split.targets.sum(axis=1), 1, rtol=1e-6)


def test_row_whose_votes_are_all_for_classes_left_out_does_not_count(ferplus_dir):
    options = data(train_protocol="votes", drop_classes=("neutral", "anger", "disgust"))
    split = load_split(ferplus_dir, "train", options, train=True)
    assert 0 not in split.rows
    assert np.isfinite(split.targets).all()


def test_row_whose_label_is_left_out_does_not_count_under_a_protocol(ferplus_dir):
    split = load_split(ferplus_dir, "train", data(drop_classes=("neutral",)), train=True)
    labels = dict(zip(split.rows.tolist(), split.labels.tolist(), strict=True))
    assert labels == {2: 0, 5: 1}  # happiness and surprise, one place nearer to the front


def test_unknown_class_to_leave_out_is_an_error_that_names_those_there_are(pets_dir):
    with pytest.raises(UserError, match=r"names 'cow', .* its classes are owl, cat, dog"):
        load_split(pets_dir, "train", data(drop_classes=("owl", "cow")), train=True)


def test_one_class_alone_is_an_error(pets_dir):
    with pytest.raises(UserError, match="leaves 1 of the classes owl, cat, dog; at least two"):
        load_split(pets_dir, "train", data(drop_classes=("owl", "cat")), train=True)


def test_names_of_splits_are_those_built(ferplus_dir, faces_dir):
    assert sorted(split_names(ferplus_dir)) == ["test", "train", "valid"]
    assert len(split_names(faces_dir)) == 5


def test_unknown_split_is_an_error_that_names_those_there_are(faces_dir):
    names = "train, valid, test, test_occlusion, test_pose"
    with pytest.raises(UserError, match=f"has no split 'validation'; it has {names}"):
        load_split(faces_dir, "validation", data(), train=False)


def test_protocol_that_keeps_nothing_is_an_error(ferplus_dir, monkeypatch):
    monkeypatch.setattr(sources, "_labels", lambda *_: (np.zeros(3, bool), np.zeros(3), None))
    with pytest.raises(UserError, match=r"split 'valid' of .* has no image under 'plurality'$"):
        load_split(ferplus_dir, "valid", data(protocol="plurality"), train=False)


def test_split_of_classes_left_out_alone_is_an_error_that_names_them(ferplus_dir):
    everything_there = ("neutral", "happiness", "surprise")
    with pytest.raises(UserError, match=r"under 'majority' without neutral, happiness, surprise$"):
        load_split(ferplus_dir, "train", data(drop_classes=everything_there), train=True)


def encode(value: int) -> bytes:
    """A grey PNG of 8 pixels a side."""
    png = io.BytesIO()
    Image.new("L", (8, 8), value).save(png, "png")
    return png.getvalue()


class Listed(list[dict[str, Any]]):
    """Records that were not built."""

    def read(self, position: int, names: Any) -> dict[str, Any]:
        return {name: self[position][name] for name in names}


@pytest.mark.parametrize("number", [3, 300])
def test_images_are_the_same_singly_together_and_all_at_once(number):
    values = np.arange(number) % 256
    records: Any = Listed(
        {"image": encode(int(value)), "name": b"%d.png" % row, "row": row}
        for row, value in enumerate(values)
    )
    positions = np.arange(number)[::-1]
    images = RecordImages(records, positions, 8, 1, workers=2)
    expected = np.broadcast_to(values[::-1, None, None, None], (number, 8, 8, 1)).astype(np.uint8)
    np.testing.assert_array_equal(images.decode_all(), expected)
    np.testing.assert_array_equal(images[np.array([2, 0, 2])], expected[[2, 0, 2]])
    np.testing.assert_array_equal(images[1], expected[1])


def test_labels_become_positions_among_the_classes_of_a_model(pets_dir):
    split = load_split(pets_dir, "train", data(), train=True)
    names = ("dog", "bird", "owl", "cat")
    wider = sources.with_classes(split, names)
    assert wider.class_names == names
    said = [[one.class_names[label] for label in one.labels] for one in (split, wider)]
    assert said[0] == said[1]
    np.testing.assert_array_equal(wider.targets, np.eye(4)[wider.labels])
    with pytest.raises(UserError, match=r"does not know dog\. Leave .* with --drop_classes=dog"):
        sources.with_classes(split, ("owl", "cat"))


def test_damaged_record_is_an_error_that_names_it(pets_dir, tmp_path):
    folder = tmp_path / "pets" / "1.0.0"
    shutil.copytree(pets_dir, folder)
    (shard,) = folder.glob("*.array_record*")
    content = bytearray(shard.read_bytes())
    content[150] ^= 1  # in the first record; compression may have cut "IHDR" there
    shard.write_bytes(content)
    records = open_records(folder, "train")  # not before: a reader may have read ahead
    images = RecordImages(records, np.arange(len(records)), 48, 1, workers=1)
    with pytest.raises(UserError, match=r"cannot be read as a dataset \(record 0: .* build again"):
        images[0]


@pytest.mark.parametrize("number", [1, 300])
def test_damaged_image_is_an_error_that_names_its_row(number):
    png = encode(0)
    records: Any = Listed({"image": png, "name": b"0.png", "row": 0} for _ in range(number))
    records[-1] = {"image": b"\x89PNG", "name": b"fer0000007.png", "row": 12}
    images = RecordImages(records, np.arange(number), 48, 1, workers=2)
    last = number - 1
    for read in (lambda: images[last], lambda: images[np.array([last])], images.decode_all):
        with pytest.raises(UserError, match=r"'fer0000007\.png \(row 12\)' cannot be decoded"):
            read()
