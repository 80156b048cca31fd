"""A user's own class folders: their classes, splits that are given, and packings."""

from pathlib import Path

import pytest

from dmfer_jax.data.records import class_labels, open_records
from dmfer_jax.errors import UserError
from tests.data_builders.folder_files import (
    built,
    image_bytes,
    pack,
    split_of,
    survey,
    write,
    write_classes,
    write_people,
)

# Classes.


@pytest.mark.parametrize(
    "written",
    [
        ("Happy", "ANGRY", "neutral"),
        ("happiness", "anger", "Neutral"),
        ("happy_", " Angry", "_NEUTRAL"),
    ],
)
def test_expressions_in_any_spelling_stand_in_canonical_order(tmp_path, written):
    found = survey(write_classes(tmp_path, *written))

    assert found.class_names == ("neutral", "happiness", "anger")
    (happy,) = {
        int(label)
        for rows in found.splits.values()
        for name, label in zip(rows.names, rows.labels, strict=True)
        if "happ" in name.lower()
    }
    assert happy == 1


def test_own_classes_are_as_written_and_sorted(tmp_path):
    found = survey(write_classes(tmp_path, "sleepy", "Awake", "bored"))

    assert found.class_names == ("Awake", "bored", "sleepy")


def test_spelling_of_copies_of_fer_plus_is_known(tmp_path):
    assert survey(write_classes(tmp_path, "suprise", "sad")).class_names == ("surprise", "sadness")


def test_accents_are_the_same_whichever_system_wrote_them(tmp_path):
    composed, apart = "fr\u00f6hlich", "fro\u0308hlich"
    names = [f"{s}/{c}/{i}{s}.png" for s in ("train", "test") for c in ("a", "b") for i in "12"]
    names = [name.replace("b/", f"{composed if 'train' in name else apart}/") for name in names]
    found = survey(write(tmp_path / "s", *names), valid_fraction=0)
    assert found.class_names == ("a", composed)


def test_misspelt_expression_makes_own_classes_and_is_said(tmp_path):
    found = survey(write_classes(tmp_path, "hapy", "sad", "0_neutral"))

    assert found.class_names == ("0_neutral", "hapy", "sad")
    assert "0_neutral, hapy are no expression" in " ".join(found.notes)


def test_class_names_travel_with_the_records(tmp_path):
    source = write_classes(tmp_path / "two words", "Sad", "FEAR")

    with built(source, tmp_path / "data") as folder:
        assert folder.parent == tmp_path / "data" / "folder" / "two_words"
        records = open_records(folder, "train")
        assert class_labels(records) == {"label": ("sadness", "fear")}
        name = records[0]["name"].decode()
        assert records[0]["label"] == (0 if name.startswith("Sad/") else 1)
        assert records[0]["image"] == (source / name).read_bytes()  # as it is


# Splits that are given.


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [("train", "valid", "test"), ("Training", "VAL", "Testing"), ("TRAIN", "Validation", "Test")],
)
@pytest.mark.parametrize("above", ["", "faces/", "a/b/"])
def test_split_folders_are_known_by_their_names(tmp_path, train, valid, test, above):
    names = [f"{split}/{c}/{split}1.jpg" for split in (train, valid, test) for c in ("sad", "fear")]
    found = survey(write(tmp_path, *(above + name for name in names)))

    assert {split: sorted(rows.names) for split, rows in found.splits.items()} == {
        "train": [f"{train}/fear/{train}1.jpg", f"{train}/sad/{train}1.jpg"],
        "valid": [f"{valid}/fear/{valid}1.jpg", f"{valid}/sad/{valid}1.jpg"],
        "test": [f"{test}/fear/{test}1.jpg", f"{test}/sad/{test}1.jpg"],
    }
    assert not found.notes
    assert not found.problems


def test_missing_valid_is_taken_from_train_and_test_stays(tmp_path):
    write_classes(tmp_path / "train", "sad", "fear", images=40)
    write(tmp_path, "test/sad/a.png", "test/fear/b.png")
    found = survey(tmp_path)

    assert sorted(found.splits["test"].names) == ["test/fear/b.png", "test/sad/a.png"]
    assert len(found.splits["train"]) + len(found.splits["valid"]) == 80
    assert all(1 <= count <= 10 for count in found.counts("valid"))  # 10 % of 40 is 4
    assert found.notes[0].startswith("valid (about 10 %) is taken by file name")


def test_class_without_images_in_test_is_noted(tmp_path):
    write_classes(tmp_path / "train", "sad", "fear")
    found = survey(write(tmp_path, "test/sad/a.png"))

    assert "test has no image of fear." in found.notes
    assert found.counts("test") == (1, 0)


def test_class_of_test_alone_is_refused(tmp_path):
    write_classes(tmp_path / "train", "sad", "fear")
    write(tmp_path, "test/happy/a.png")

    with pytest.raises(UserError, match=r"test/happy is a class that train has not; it has fear,"):
        survey(tmp_path)


def test_same_name_in_train_and_test_is_a_problem_and_both_are_kept(tmp_path):
    write_classes(tmp_path / "train", "sad", "fear")
    found = survey(write(tmp_path, "test/Sad/1.png", "test/fear/new.png"))

    assert found.problems == [
        "sadness/1.png stands in train and test; if these are different faces, add --allow_mismatch"
    ]
    assert {"train/sad/1.png", "test/Sad/1.png"} <= split_of(found).keys()


def test_same_pixels_in_train_and_test_share_their_first_row(tmp_path):
    source = write(
        tmp_path / "s", *(f"{s}/{c}/{s}.png" for s in ("train", "val", "test") for c in "ab")
    )
    (source / "test/a/test.png").write_bytes((source / "train/b/train.png").read_bytes())

    with built(source, tmp_path / "data") as folder:
        first = {r["name"]: r["first_row"] for r in open_records(folder, "train")}
        test = {r["name"]: r["first_row"] for r in open_records(folder, "test")}
    assert test[b"test/a/test.png"] == first[b"train/b/train.png"]


# Packings.


@pytest.mark.parametrize("name", ["my faces.zip", "my faces.tar.gz", "my faces.TGZ"])
@pytest.mark.parametrize("above", ["", "export/2024/"])
def test_packed_source_gives_the_same_names_and_splits(tmp_path, name, above):
    source = write_people(tmp_path / "source", people=6)
    packed = survey(pack(source, tmp_path / name, above))

    assert split_of(packed) == split_of(survey(source))
    assert packed.variant == "my_faces"


def test_splits_packed_one_by_one_are_put_together(tmp_path):
    source = write(tmp_path / "s", *(f"{s}/{c}/{s}.png" for s in ("train", "val") for c in "ab"))
    packed = tmp_path / "packed"
    packed.mkdir()
    for split in ("train", "val"):
        pack(source / split, packed / f"{split}.zip", f"{split}/")

    assert split_of(survey(packed, test_fraction=0)) == split_of(survey(source, test_fraction=0))


@pytest.mark.parametrize(
    ("source", "variant"), [("faces", "faces"), (".", "faces"), ("faces/groups.csv", "faces")]
)
def test_dataset_is_named_after_its_source(tmp_path, monkeypatch, source, variant):
    folder = write_people(tmp_path / "faces", people=3)
    monkeypatch.chdir(folder if source == "." else tmp_path)

    assert survey(Path(source)).variant == variant
    assert survey(Path(source), "mine-2").variant == "mine-2"


@pytest.mark.parametrize(
    "variant", ["../mine", "..", "/etc", "my faces", "1.0.0", "a\n", "a" * 101]
)
def test_name_that_is_no_single_folder_is_refused(tmp_path, variant):
    with pytest.raises(UserError, match=r"^[^\n]* cannot name a dataset; up to 100 letters"):
        survey(write_classes(tmp_path, "sad", "fear"), variant)


def test_images_of_all_kinds_are_built(tmp_path):
    kinds = {".jpg": "jpeg", ".JPEG": "jpeg", ".Png": "png", ".bmp": "bmp", ".webp": "webp"}
    kinds |= {".tif": "tiff", ".TIFF": "tiff", ".gif": "gif"}
    for split in ("train", "val", "test"):
        for name in "ab":
            (tmp_path / "s" / split / name).mkdir(parents=True)
            for seed, (suffix, kind) in enumerate(kinds.items()):
                path = tmp_path / "s" / split / name / f"{split}{suffix}"
                path.write_bytes(image_bytes(seed, kind))

    with built(tmp_path / "s", tmp_path / "data") as folder:
        assert len(open_records(folder, "train")) == 2 * len(kinds)
