"""The AffectNet builder on tiny files of both releases, in each form in which people have them."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_builders.affectnet import affectnet_dataset_builder
from data_builders.affectnet.affectnet_dataset_builder import Builder, valid_count
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from dmfer_jax.data.records import open_records
from tests.data_builders import affectnet_files as tiny
from tests.data_builders.packing import PACKINGS, pack, tar_bytes, write_folder, zip_bytes

NEW = {
    f"{name}/{number}.jpg": label
    for name, labels in (
        ("train_set", tiny.NEW_TRAIN_LABELS),
        ("val_set", tiny.NEW_VALIDATION_LABELS),
    )
    for number, label in enumerate(labels)
}
OLD = {name: label for name, label in (tiny.TRAIN | tiny.VALIDATION).items() if label < 8}


def survey(source: Path, variant: str = "") -> Survey:
    with SourceFiles(source) as files:
        return Builder.survey(files, variant)


def build(source: Path, place: Path, variant: str = "") -> dict[str, dict[str, Any]]:
    """Builds records whatever their number; returns them by name, with their split."""
    with SourceFiles(source) as files:
        found = Builder.survey(files, variant)
        assert found.problems == []
        builder = Builder.from_survey(files, found, place)
        builder.download_and_prepare()
        return {
            record["name"].decode(): {**record, "split": split}
            for split in found.splits
            for record in open_records(Path(builder.data_dir), split)
        }


def check(records: dict[str, dict[str, Any]], labels: dict[str, int]) -> None:
    """Checks that each image has its own label, pixels and affect."""
    assert set(records) == set(labels)
    for name, label in labels.items():
        record = records[name]
        assert sources_label(record) == tiny.NAMES[label]
        np.testing.assert_allclose(tiny.mean_colour(record["image"]), tiny.colour(name), atol=3)
        affect = record["valence"], record["arousal"]
        np.testing.assert_allclose(affect, tiny.affect(name), atol=1e-3)


def sources_label(record: dict[str, Any]) -> str:
    """Returns a record's expression, by the order that METHOD calls canonical."""
    canonical = "neutral happiness surprise sadness anger disgust fear contempt"
    return canonical.split()[record["label"]]


# Layouts and packings.


@pytest.mark.parametrize("packing", PACKINGS)
def test_new_release_is_read_from_every_packing(packing: str, tmp_path: Path):
    source = pack(tiny.new_release(), packing, tmp_path / "in")
    check(build(source, tmp_path / "out"), NEW)


@pytest.mark.parametrize("packing", PACKINGS)
def test_old_release_is_read_from_every_packing(packing: str, tmp_path: Path):
    source = pack(tiny.old_release(), packing, tmp_path / "in")
    check(build(source, tmp_path / "out"), OLD)


@pytest.mark.parametrize("encoding", tiny.ENCODINGS)
def test_annotations_are_numbers_however_they_are_stored(encoding: str, tmp_path: Path):
    write_folder(tiny.new_release(encoding), tmp_path / "in")
    check(build(tmp_path / "in", tmp_path / "out"), NEW)


def nested(pack_set: Any, suffix: str) -> tiny.Files:
    """Returns train_set and val_set packed one by one, as a download of two parts."""
    return {
        f"{name}.{suffix}": pack_set(tiny.new_release(sets=(name,)))
        for name in ("train_set", "val_set")
    }


def renamed(files: tiny.Files, old: str, new: str) -> tiny.Files:
    return {path.replace(old, new): content for path, content in files.items()}


def changed(files: tiny.Files, change: Any, *paths: str) -> tiny.Files:
    return {**files, **{path: change(files[path]) for path in paths}}


LISTS = ("training.csv", "validation.csv")
FORMS = {
    "a zip for each set": (nested(zip_bytes, "zip"), NEW),
    "a tar.gz for each set": (nested(lambda files: tar_bytes(files, "gz"), "tar.gz"), NEW),
    "folders in capitals": (renamed(tiny.new_release(), "_set/", "_SET/"), NEW),
    "lists in a folder": (
        renamed(tiny.old_release(), "training", "Manually_Annotated_file_lists/training"),
        OLD,
    ),
    "images deeper": (tiny.old_release("AffectNet/Manually_Annotated_Images/all"), OLD),
    "images beside the lists": (renamed(tiny.old_release("x"), "x/", ""), OLD),
    "CRLF": (changed(tiny.old_release(), lambda c: c.replace(b"\n", b"\r\n"), *LISTS), OLD),
    "byte order mark": (changed(tiny.old_release(), lambda c: b"\xef\xbb\xbf" + c, *LISTS), OLD),
    "no header": (
        changed(tiny.old_release(), lambda c: c.partition(b"\n")[2], "validation.csv"),
        OLD,
    ),
    "backslashes": (
        changed(tiny.old_release(), lambda c: c.replace(b"/", b"\\"), *LISTS),
        OLD,
    ),
    "png on disk": (renamed(tiny.old_release(), ".jpg", ".png"), OLD),
    "paths from a folder": (
        changed(tiny.old_release(), lambda c: re.sub(rb"\n(?=\d)", b"\n./", c), *LISTS),
        OLD,
    ),
    ".JPG on disk only": (
        {path.replace(".jpg", ".JPG"): content for path, content in tiny.old_release().items()},
        OLD,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_met_in_the_wild_is_read(form: str, tmp_path: Path):
    files, labels = FORMS[form]
    write_folder(files, tmp_path / "in")
    check(build(tmp_path / "in", tmp_path / "out"), labels)


def test_new_release_in_capital_suffixes_is_read(tmp_path: Path):
    write_folder(tiny.new_release(suffix="JPG"), tmp_path / "in")
    labels = {name.replace(".jpg", ".JPG"): label for name, label in NEW.items()}
    check(build(tmp_path / "in", tmp_path / "out"), labels)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [("train_set", {"train"}), ("val_set", {"test"})],
)
def test_one_set_alone_is_enough(inside: str, expected: set[str], tmp_path: Path):
    write_folder(tiny.new_release(), tmp_path)
    assert set(survey(tmp_path / inside).splits) == expected


@pytest.mark.parametrize(
    ("gone", "expected"), [("validation.csv", {"train"}), ("training.csv", {"test"})]
)
def test_one_list_alone_is_enough(gone: str, expected: set[str], tmp_path: Path):
    files = tiny.old_release()
    del files[gone]
    found = survey(write_folder(files, tmp_path))
    assert set(found.splits) == expected
    assert found.problems == []
    assert any("images that it does not list are left alone" in note for note in found.notes)


def test_releases_are_told_apart_and_named(tmp_path: Path):
    new = survey(write_folder(tiny.new_release(), tmp_path / "new"))
    old = survey(write_folder(tiny.old_release(), tmp_path / "old"))
    assert (new.variant, old.variant) == ("new", "old")
    assert new.layout == "the new release of AffectNet (2021): train_set, val_set"
    assert old.layout == "the old release of AffectNet (2017): training.csv, validation.csv"


def test_source_with_both_releases_gives_the_one_that_is_asked_for(tmp_path: Path):
    write_folder({**tiny.new_release(), **tiny.old_release()}, tmp_path)
    assert survey(tmp_path, "new").layout.startswith("the new release")
    assert survey(tmp_path, "old").layout.startswith("the old release")


# Splits and counts.


def test_owners_validation_set_is_the_test_split(tmp_path: Path):
    found = survey(write_folder(tiny.new_release(), tmp_path))
    assert list(found.splits["test"].names) == [f"val_set/{number}.jpg" for number in range(8)]
    assert list(found.splits["train"].names) == [f"train_set/{number}.jpg" for number in range(12)]
    assert any("Its validation set, on which papers report" in note for note in found.notes)


def test_images_to_train_on_come_first_wherever_the_sets_lie(tmp_path: Path):
    files = renamed(tiny.new_release(), "val_set/", "AffectNet_val/val_set/")
    assert list(survey(write_folder(files, tmp_path)).splits) == ["train", "test"]


def test_valid_is_500_of_a_large_class_and_a_tenth_of_a_small_one():
    assert [valid_count(images) for images in (6_000, 5_000, 4_999, 9)] == [500, 500, 499, 0]


def test_valid_and_train_share_out_the_training_set(tmp_path: Path):
    files: tiny.Files = {}
    for number in range(40):
        files |= tiny.annotations("train_set", number, number % 2)
        files[f"train_set/images/{number}.jpg"] = b"not looked at"
    found = survey(write_folder(files, tmp_path))
    assert found.counts("valid") == (2, 2, 0, 0, 0, 0, 0, 0)
    assert found.counts("train+valid") == (20, 20, 0, 0, 0, 0, 0, 0)
    assert not set(found.splits["train"].names) & set(found.splits["valid"].names)


def test_published_counts_are_those_of_the_papers_in_our_order(tmp_path: Path):
    found = survey(write_folder(tiny.old_release(), tmp_path))
    counts = found.published["train+valid"]
    by_name = dict(zip(found.class_names, counts, strict=True))
    assert by_name == {
        "neutral": 74_874,
        "happiness": 134_415,
        "sadness": 25_459,
        "surprise": 14_090,
        "fear": 6_378,
        "disgust": 3_803,
        "anger": 24_882,
        "contempt": 3_750,
    }
    assert sum(counts) == 287_651
    assert found.published["test"] == (500,) * 8
    assert len(found.mismatches()) == 16


@pytest.mark.parametrize(
    ("numbers", "differs"),
    [((3,) * 8, 0), ((3, 3, 3, 3, 2, 3, 3, 3), 0), ((3, 2, 3, 2, 3, 3, 3, 3), 2), ((3,) * 7, 1)],
)
def test_new_validation_set_may_be_one_image_short(
    numbers: tuple[int, ...], differs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(affectnet_dataset_builder, "VALIDATION_COUNT", 3)
    labels = np.repeat(np.arange(len(numbers)), numbers)
    files: tiny.Files = {}
    for number, label in enumerate(labels.tolist()):
        files |= tiny.annotations("val_set", number, label)
        files[f"val_set/images/{number}.jpg"] = b"not looked at"
    found = survey(write_folder(files, tmp_path))
    assert len(found.mismatches()) == differs


def test_rows_without_an_expression_are_dropped_and_counted(tmp_path: Path):
    found = survey(write_folder(tiny.old_release(), tmp_path))
    assert len(found.splits["train"]) == 10
    assert (
        "training.csv: rows without an expression are left out: 1 8 (none), 1 9 (uncertain), "
        "1 10 (no face)." in found.notes
    )
    assert found.problems == []  # their images are listed


# Images and affect.


def test_small_images_are_copied_byte_for_byte(tmp_path: Path):
    files = tiny.new_release()
    records = build(write_folder(files, tmp_path / "in"), tmp_path / "out")
    for name, record in records.items():
        assert record["image"] == files[name.replace("_set/", "_set/images/")]


def test_large_images_are_shrunk(tmp_path: Path):
    files = tiny.new_release()
    red = Image.new("RGB", (600, 300), (250, 20, 20))
    files["train_set/images/4.jpg"] = tiny.jpeg(red)
    records = build(write_folder(files, tmp_path / "in"), tmp_path / "out")
    stored = records["train_set/4.jpg"]["image"]
    assert size(stored) == (256, 128)
    np.testing.assert_allclose(tiny.mean_colour(stored), (250, 20, 20), atol=3)


def test_faces_of_the_old_release_are_cropped_to_their_boxes(tmp_path: Path):
    source = write_folder(tiny.old_release(), tmp_path / "in")
    records = build(source, tmp_path / "out", "old_cropped")
    check(records, OLD)
    for name, record in records.items():
        assert size(record["image"]) == tiny.BOX[2:]
        with Image.open(io.BytesIO(record["image"])) as face:
            pixels = np.asarray(face).astype(np.float64)
        assert np.abs(pixels - tiny.colour(name)).max() < 12  # none of the black around it


def test_photos_of_the_old_release_stay_whole_and_unchanged(tmp_path: Path):
    source = write_folder(tiny.old_release(), tmp_path / "in")
    for name, record in build(source, tmp_path / "out", "old").items():
        assert record["image"] == tiny.photo(name)


def test_affect_is_nan_where_the_owners_have_none(tmp_path: Path):
    files = tiny.new_release()
    files["train_set/annotations/2_val.npy"] = tiny.npy("-2")
    del files["train_set/annotations/3_aro.npy"]
    write_folder(files, tmp_path / "in")
    records = build(tmp_path / "in", tmp_path / "out")
    assert np.isnan(records["train_set/2.jpg"]["valence"])
    assert np.isnan(records["train_set/3.jpg"]["arousal"])
    assert sum(np.isnan(r["valence"]) + np.isnan(r["arousal"]) for r in records.values()) == 2
    notes = survey(tmp_path / "in").notes
    assert "train_set: 1 images have no file N_aro.npy; what it would hold is NaN." in notes


def size(encoded: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(encoded)) as image:
        return image.size
