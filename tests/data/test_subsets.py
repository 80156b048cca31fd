"""A list's images among records: exact names, records' labels, nothing lost on the way."""

from typing import Any

import numpy as np
import pytest

from dmfer_jax.data import pipeline
from dmfer_jax.data.lists import Entry, NamedList
from dmfer_jax.data.sources import Split
from dmfer_jax.data.subsets import explain_nothing_found, record_key, select
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.labels import Expression as E

HASHES = ["bc9ad400db82eca1882b11c9603348fb3e92f5b0d67391ac22a1bc79", 7 * "83dac9d7"]


class DecodedOnDemand:
    """Images by position or positions alone, as of a split too large for the memory."""

    def __init__(self, images: np.ndarray):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> np.ndarray:
        assert isinstance(index, int) or index.dtype.kind == "i"
        return self._images[index]


def make_split(names: list[str], labels: list[E], name: str = "test", first_row: int = 0) -> Split:
    """A split whose images are filled with their row's number."""
    rows = first_row + np.arange(len(names))
    return Split(
        name=name,
        images=np.tile(rows.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1)),
        labels=np.array(labels, np.int32),
        targets=np.eye(8, dtype=np.float32)[np.array(labels, int)],
        rows=rows,
        repeated=rows % 2 == 1,
        names=np.array(names, str),
        groups={"gender": np.array([f"gender {row}" for row in rows])},
        class_names=EXPRESSION_NAMES,
    )


def make_list(*entries: tuple[str, E], dataset: str = "rafdb") -> NamedList:
    return NamedList(
        dataset, "pose_30", tuple(Entry(key, label, None) for key, label in entries), 9, ()
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("fer0034656.png", "fer0034656"),
        ("test_0004.jpg", "test_0004"),
        ("test_0004_aligned.jpg", "test_0004"),
        ("DATASET/test/1/TEST_0004_ALIGNED.JPG", "test_0004"),
        (f"103/{HASHES[0]}.jpg", HASHES[0]),
        ("", ""),
    ],
)
def test_record_is_known_by_the_name_that_the_lists_have_for_it(name, key):
    assert record_key(name) == key


@pytest.mark.parametrize("on_demand", [False, True])
def test_selection_holds_the_lists_images_with_the_records_labels(on_demand):
    split = make_split(
        ["test_0001.jpg", "test_0002.jpg", "", "test_0003.jpg"],
        [E.FEAR, E.ANGER, E.FEAR, E.SADNESS],
    )
    if on_demand:
        split = Split(**{**vars(split), "images": DecodedOnDemand(np.asarray(split.images))})
    found = make_list(
        ("test_0003", E.SADNESS),
        ("test_0009", E.FEAR),
        ("test_0001", E.DISGUST),
        ("test_00", E.FEAR),
    )
    selection = select([split], found, "rafdb/aligned")
    assert selection.missing == ("test_0009", "test_00")
    assert selection.relabelled == 1
    chosen = selection.split
    assert chosen.name == "pose_30"
    assert chosen.labels.tolist() == [E.SADNESS, E.FEAR]
    assert chosen.targets.argmax(axis=1).tolist() == [E.SADNESS, E.FEAR]
    assert chosen.rows.tolist() == [3, 0]
    assert chosen.repeated.tolist() == [True, False]
    assert chosen.names.tolist() == ["test_0003.jpg", "test_0001.jpg"]
    assert chosen.groups["gender"].tolist() == ["gender 3", "gender 0"]
    (batch,) = pipeline.eval_batches(chosen, 4)
    assert batch["image"][:, 0, 0, 0].tolist() == [3, 0, 0, 0]
    assert batch["mask"].tolist() == [1, 1, 0, 0]


def test_names_are_looked_for_in_several_splits_and_counted_once():
    valid = make_split(["test_0001.jpg", "test_0002.jpg"], [E.FEAR, E.ANGER], "valid")
    test = make_split(["test_0002.jpg", "test_0003.jpg"], [E.FEAR, E.SADNESS], "test", 10)
    found = make_list(("test_0003", E.SADNESS), ("test_0002", E.ANGER), ("test_0001", E.FEAR))
    selection = select([valid, test], found, "rafdb")
    assert selection.split.rows.tolist() == [11, 1, 0]
    assert [image[0, 0, 0] for image in map(selection.split.images.__getitem__, range(3))] == [
        11,
        1,
        0,
    ]
    together = selection.split.images[np.array([2, 0, 1])]
    assert together[:, 0, 0, 0].tolist() == [0, 11, 1]
    assert (selection.missing, selection.relabelled) == ((), 0)


def test_labels_are_compared_by_name_where_classes_were_left_out():
    split = make_split(["test_0001.jpg"], [E.NEUTRAL])
    split = Split(**{**vars(split), "class_names": ("fear", "surprise")})
    assert select([split], make_list(("test_0001", E.FEAR)), "rafdb").relabelled == 0
    assert select([split], make_list(("test_0001", E.NEUTRAL)), "rafdb").relabelled == 1


def test_list_of_which_nothing_is_there_selects_nothing_and_says_where_it_looked():
    split = make_split(["", "train_0001.jpg"], [E.FEAR, E.FEAR], "train")
    found = make_list(("test_0003", E.SADNESS))
    selection = select([split], found, "rafdb")
    assert len(selection.split) == len(selection.split.images) == 0
    assert selection.missing == ("test_0003",)
    said = explain_nothing_found([split], found)
    assert "'test_0003', is in train, whose records have names such as 'train_0001'" in said


def test_numbered_files_of_affectnets_new_release_are_told_from_the_old():
    found = make_list((HASHES[0], E.FEAR), dataset="affectnet")
    new = make_split(["12.jpg", "val_set/images/3907.jpg"], [E.FEAR, E.FEAR])
    assert not len(select([new], found, "affectnet").split)
    assert "only records built from the old release" in explain_nothing_found([new], found)
    old = make_split([f"103/{HASHES[1]}.jpg"], [E.FEAR])
    assert "None of its 1 names" in explain_nothing_found([old], found)


def test_list_of_another_dataset_is_refused():
    split = make_split(["fer0034656.png"], [E.FEAR])
    with pytest.raises(UserError, match="pose_30 list is of rafdb, the records of 'ferplus'"):
        select([split], make_list(("test_0003", E.SADNESS)), "ferplus")
