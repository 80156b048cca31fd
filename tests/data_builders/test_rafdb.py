"""The RAF-DB builder on tiny files in each form in which people have them."""

import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from data_builders.rafdb import published, rafdb_dataset_builder
from data_builders.rafdb.class_folders import read_class_folders
from data_builders.rafdb.rafdb_dataset_builder import Builder
from tests.data_builders import rafdb_files as tiny
from tests.data_builders.packing import zip_bytes

ONE_TO_SEVEN = [str(n) for n in range(1, 8)]
ZERO_TO_SIX = [str(n) for n in range(7)]


def survey(source: Path, **options: str) -> Survey:
    with SourceFiles(source) as files:
        return Builder.survey(files, **options)


def read_back(source: Path, **options: str) -> dict[str, tuple[str, str, tuple[int, int, int]]]:
    """Returns {key: part (valid counts as train), name of the expression, mean colour}."""
    with SourceFiles(source) as files:
        found = Builder.survey(files, **options)
        assert found.problems == []
        return {
            name.removesuffix(".jpg"): (
                "train" if split == "valid" else split,
                found.class_names[label],
                tiny.mean_colour(files.read(path)),
            )
            for split, rows in found.splits.items()
            for name, path, label in zip(rows.names, rows.files, rows.labels, strict=True)
        }


def check_all_there(read: dict[str, tuple[str, str, tuple[int, int, int]]]) -> None:
    assert set(read) == set(tiny.KEYS)
    for key, (part, expression, colour) in read.items():
        assert (part, expression) == (key.split("_")[0], tiny.expression(key))
        np.testing.assert_allclose(colour, tiny.colour(key), atol=2)  # of a JPEG


# Layouts and packings.


@pytest.mark.parametrize("packing", tiny.PACKINGS)
def test_list_form_is_read_from_every_packing(tmp_path: Path, packing: str):
    check_all_there(read_back(tiny.pack(tmp_path, tiny.list_form(), packing)))


def bare_zip() -> tiny.Files:
    files = {"EmoLabel/list_patition_label.txt": tiny.list_text()}
    images = {f"{key}_aligned.jpg": tiny.encode(tiny.colour(key)) for key in tiny.KEYS}
    return {**files, "Image/aligned.zip": zip_bytes(images)}


def both_spellings() -> tiny.Files:
    return {**tiny.list_form(), "EmoLabel/list_partition_label.txt": tiny.list_text("\r\n")}


def list_as(text: bytes) -> tiny.Files:
    return {**tiny.list_form(), "EmoLabel/list_patition_label.txt": text}


def list_with_folders(suffix: str) -> tiny.Files:
    return {
        "list_patition_label.txt": tiny.list_text(),
        **tiny.folder_form(ONE_TO_SEVEN, suffix=suffix),
    }


def unmarked_in_folder_aligned() -> tiny.Files:
    files = {f"Image/aligned/imgs/{key}.jpg": tiny.encode(tiny.colour(key)) for key in tiny.KEYS}
    return {**files, "EmoLabel/list_patition_label.txt": tiny.list_text()}


def beside_the_compound_set() -> tiny.Files:
    compound = {
        "EmoLabel/list_patition_label.txt": b"train_0001.jpg 11\n",
        "Image/aligned/train_00001_aligned.jpg": tiny.encode((0, 0, 0)),
    }
    return {**tiny.under("compound", compound), **tiny.under("basic", tiny.list_form())}


def csv_with_flat_images() -> tiny.Files:
    """The images of each part lie in one folder, without class folders."""
    return {re.sub(r"/(train|test)/\d/", r"/\1/", path): f for path, f in tiny.csv_form().items()}


def csv_of_windows_paths() -> tiny.Files:
    files = tiny.csv_form()
    for split in ("train", "test"):
        name = f"{split}_labels.csv"
        files[name] = files[name].replace(
            b"%b_" % split.encode(), b"DATASET\\any\\%b_" % split.encode()
        )
    return files


def upper_case_csv() -> tiny.Files:
    files = tiny.csv_form()
    for split in ("train", "test"):
        text = files[f"{split}_labels.csv"].replace(b"image,label", b"\xef\xbb\xbfImage, Label")
        files[f"{split}_labels.csv"] = text.replace(b"\n", b"\r\n")
    return files


@pytest.mark.parametrize(
    ("files", "options"),
    [
        (tiny.list_form(extension="JPG"), {}),
        (tiny.list_form(extension="png"), {}),  # the bytes are still a JPEG's; the name is tested
        (tiny.list_form(list_name="EmoLabel/list_partition_label.txt"), {}),
        (tiny.list_form(list_name="List_Patition_Label.TXT"), {}),
        (tiny.list_form(kinds=("aligned", "original")), {}),
        (tiny.list_form(kinds=("aligned", "original")), {"variant": "aligned"}),
        (list_as(tiny.list_text("\r\n")), {}),
        (list_as(b"\xef\xbb\xbf" + tiny.list_text()), {}),
        (list_as(tiny.list_text().replace(b".jpg", b"_aligned.jpg")), {}),
        (list_as(b"\n" + tiny.list_text("\n\n").replace(b" ", b"\t")), {}),
        (list_with_folders("_aligned"), {}),
        (list_with_folders(""), {"variant": "aligned"}),
        (unmarked_in_folder_aligned(), {}),
        (both_spellings(), {}),
        (bare_zip(), {}),
        (beside_the_compound_set(), {}),
        (tiny.csv_form(), {}),
        (tiny.under("archive/raf", tiny.csv_form()), {}),
        (csv_with_flat_images(), {}),
        (upper_case_csv(), {}),
        (csv_of_windows_paths(), {}),
        (tiny.folder_form(ONE_TO_SEVEN), {}),
        (tiny.folder_form(ONE_TO_SEVEN, suffix=""), {}),
        (tiny.folder_form(ONE_TO_SEVEN, test="valid"), {}),
        (tiny.folder_form(ONE_TO_SEVEN, test="val"), {}),
        (tiny.folder_form(ONE_TO_SEVEN, train="Train", test="Test"), {}),
        (tiny.under("RAF-DB/aligned", tiny.folder_form(ONE_TO_SEVEN, suffix="")), {}),
        (tiny.folder_form(ZERO_TO_SIX), {"folder_order": "raf"}),
        (tiny.folder_form(ZERO_TO_SIX, tiny.MANET_ORDER), {"folder_order": "manet"}),
        (tiny.folder_form(ONE_TO_SEVEN, tiny.MANET_ORDER), {"folder_order": "manet"}),
        (tiny.folder_form(["Surprise", "fear", "DISGUST", "happy", "sad", "angry", "neutral"]), {}),
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_labels(tmp_path: Path, files: tiny.Files, options: dict):
    check_all_there(read_back(tiny.write(tmp_path, files), **options))


@pytest.mark.parametrize("packing", ["zip", "tar.gz"])
@pytest.mark.parametrize("files", [tiny.csv_form(), tiny.folder_form(ONE_TO_SEVEN)])
def test_other_layouts_are_read_packed_too(tmp_path: Path, files: tiny.Files, packing: str):
    check_all_there(read_back(tiny.pack(tmp_path, files, packing)))


@pytest.mark.parametrize(
    "files", [tiny.list_form(), tiny.csv_form(), tiny.folder_form(ONE_TO_SEVEN)]
)
def test_records_keep_the_order_of_the_names_and_the_same_validation_part(
    tmp_path: Path, files: tiny.Files
):
    splits = survey(tiny.write(tmp_path, files)).splits

    train = [key for key in tiny.KEYS if key.startswith("train")]
    of_class = [[key for key in train if tiny.LABELS[key] == label] for label in range(1, 8)]
    # Of the two images of each class, the one whose name has the smaller hash.
    valid = {min(keys, key=lambda key: sha256(key.encode()).digest()) for keys in of_class}
    names = {split: [Path(name).stem for name in rows.names] for split, rows in splits.items()}
    assert names == {
        "train": [key for key in train if key not in valid],
        "valid": [key for key in train if key in valid],
        "test": tiny.KEYS[14:],
    }


def test_validation_part_of_the_source_is_kept(tmp_path: Path):
    files = tiny.folder_form(ONE_TO_SEVEN)
    moved = {path.replace("train/7", "val/7"): content for path, content in files.items()}

    found = survey(tiny.write(tmp_path, moved))

    assert list(found.splits["valid"].names) == ["train_00007.jpg", "train_00008.jpg"]
    assert len(found.splits["train"]) == 12
    assert any("validation part of its own" in note for note in found.notes)


def test_part_called_valid_is_the_test_part_and_a_note_says_so(tmp_path: Path):
    found = survey(tiny.write(tmp_path, tiny.folder_form(ONE_TO_SEVEN, test="valid")))

    assert "the 7 images in 'valid' are taken as the test part" in found.notes[0]


# Full counts.


def full_labels() -> dict[str, int]:
    """Returns a list as long as the owners', with as many names of each of their labels."""
    counts = {
        "train_{:05}": [1290, 281, 717, 4772, 1982, 705, 2524],
        "test_{:04}": [329, 74, 160, 1185, 478, 162, 680],
    }
    return {
        form.format(number): label
        for form, of_split in counts.items()
        for number, label in enumerate(np.repeat(np.arange(1, 8), of_split).tolist(), start=1)
    }


def test_full_list_has_the_published_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = full_labels()
    text = "".join(f"{key}.jpg {label}\n" for key, label in labels.items())
    tiny.write(tmp_path, {"EmoLabel/list_patition_label.txt": text.encode()})
    # Making so many files would take seconds.
    images = [f"Image/aligned/{key}_aligned.jpg" for key in labels]
    monkeypatch.setattr(rafdb_dataset_builder, "find_images", lambda files: images)

    found = survey(tmp_path)

    assert (found.problems, found.mismatches()) == ([], [])
    assert found.class_names == (
        "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear",
    )  # fmt: skip
    assert found.counts("train+valid") == (2524, 4772, 1290, 1982, 705, 717, 281)
    assert found.counts("valid") == (252, 477, 129, 198, 71, 72, 28)
    assert found.counts("test") == (680, 1185, 329, 478, 162, 160, 74)
    assert (len(found.splits["train"]), sum(found.counts("test"))) == (12_271 - 1_227, 3_068)


@pytest.mark.parametrize(
    ("names", "order", "told"),
    [
        (ONE_TO_SEVEN, tiny.RAF_ORDER, "the order 'raf'"),
        (ZERO_TO_SIX, tiny.RAF_ORDER, "the order 'raf'"),
        (ZERO_TO_SIX, tiny.MANET_ORDER, "the order 'manet'"),
        (ONE_TO_SEVEN, tiny.MANET_ORDER, "the order 'manet'"),
    ],
)
@pytest.mark.parametrize("complete", ["train", "test"])
def test_order_of_class_folders_is_told_by_the_published_counts(
    tmp_path: Path, names: list[str], order: list[str], told: str, complete: str
):
    folder_of = dict(zip(order, names, strict=True))
    labels = full_labels()
    # Of the other part an image is missing; it is told by the complete one.
    del labels["test_0001" if complete == "train" else "train_00001"]
    paths = [
        f"{key.split('_')[0]}/{folder_of[tiny.RAF_ORDER[label - 1]]}/{key}_aligned.jpg"
        for key, label in labels.items()
    ]
    with SourceFiles(tmp_path) as files:
        listing = read_class_folders(files, paths)

    assert listing is not None
    assert told in listing.layout
    assert {e.key: e.label.name.lower() for e in listing.entries} == {
        key: tiny.RAF_ORDER[label - 1] for key, label in labels.items()
    }


def test_incomplete_source_differs_from_the_published_counts(tmp_path: Path):
    found = survey(tiny.write(tmp_path, tiny.list_form()))

    assert "test, fear: 1 images; published are 74" in found.mismatches()
    assert len(found.mismatches()) == 14


def test_published_counts_add_up():
    assert (sum(published.TRAIN), sum(published.TEST)) == (12_271, 3_068)
