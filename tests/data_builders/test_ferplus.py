"""The FERPlus builder on tiny files in the owners' form: every trap and every form."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import dataset_metadata

from data_builders.ferplus import votes_files
from data_builders.ferplus.ferplus_dataset_builder import Builder
from dmfer_jax.data.protocols import apply_protocol
from dmfer_jax.labels import EXPRESSION_NAMES
from tests.data_builders import ferplus_files as tiny
from tests.data_builders.ferplus_files import FORMS


def records(builder: Builder, split: str) -> list[dict]:
    skip = {"image": tfds.decode.SkipDecoding()}
    source: Any = builder.as_data_source(split, decoders=skip)  # pyright: ignore[reportCallIssue]
    return [source[index] for index in range(len(source))]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Builder:
    folder = tmp_path_factory.mktemp("ferplus")
    return tiny.build(tiny.write_source(folder / "source"), folder / "data")


# What is built.


def test_splits_follow_usage_and_rows_keep_their_order(built: Builder):
    rows = {split: [r["row"] for r in records(built, split)] for split in built.info.splits}

    assert rows == {"train": [0, 1, 2, 3, 4, 5], "valid": [6, 7, 8], "test": [9, 10, 11]}


def test_image_is_a_png_of_the_same_pixels(built: Builder):
    images = [Image.open(io.BytesIO(r["image"])) for r in records(built, "train")]

    assert {(image.format, image.mode, image.size) for image in images} == {("PNG", "L", (48, 48))}
    pixels = np.stack([np.asarray(image).reshape(-1) for image in images])
    np.testing.assert_array_equal(pixels, tiny.draw_pixels()[:6])


def test_label_is_fer2013s_own_in_canonical_order(built: Builder):
    # FER2013 counts angry, disgust, fear, happy, sad, surprise, neutral; rows 0 to 5 are 0 to 5.
    assert [EXPRESSION_NAMES[r["label"]] for r in records(built, "train")] == [
        "anger", "disgust", "fear", "happiness", "sadness", "surprise",
    ]  # fmt: skip


def test_record_holds_the_votes_of_both_files(built: Builder):
    train = records(built, "train")

    assert train[4]["votes_new"].tolist() == [5, 0, 0, 5, 0, 0, 0, 0, 0, 0]
    assert train[4]["votes_label_csv"].tolist() == [7, 0, 0, 3, 0, 0, 0, 0, 0, 0]
    assert train[4]["votes_new"].dtype == np.int32


def test_votes_are_joined_by_row_and_not_by_the_number_in_the_name(built: Builder):
    record = records(built, "train")[4]

    assert record["name"] == b"fer0000003.png"  # row 3 has no name, so row 4 has number 3
    assert record["votes_new"].tolist() == tiny.VOTES[4]


def test_row_without_a_name_has_no_votes_of_label_csv(built: Builder):
    record = records(built, "train")[3]

    assert record["name"] == b""
    assert record["votes_new"].tolist() == [0] * 9 + [10]
    assert record["votes_label_csv"].tolist() == [-1] * 10


def test_name_in_two_rows_belongs_to_the_one_where_it_fits(built: Builder):
    repeats, owns = (records(built, "train")[row] for row in (1, 5))

    assert (repeats["name"], owns["name"]) == (b"", b"fer0000004.png")
    assert repeats["votes_label_csv"].tolist() == [-1] * 10
    assert owns["votes_label_csv"].tolist() == tiny.VOTES[5]


@pytest.mark.parametrize(
    ("numbers", "owner"),
    [
        # The four of the real file, with their real neighbours.
        ([5264, 6953, 5265, 6952, 6953, 6954], 4),  # rows 5274, 6968
        ([5337, 11785, 5339, 11784, 11785, 11786], 4),  # rows 5348, 11817
        ([8402, 8403, 8404, 15792, 8403, 15793], 1),  # rows 8423, 15835
        ([33119, 33120, 33121, 34253, 33120, 34254], 1),  # rows 33200, 34334
        ([1, 2, 2, 3], 1),  # fits nowhere: the first
    ],
)
def test_owner_of_a_repeated_name(numbers: list[int], owner: int):
    votes = [votes_files.VoteRow("Training", f"fer{n:07}.png", (0,) * 10) for n in numbers]

    assert votes_files.name_owners(votes)[f"fer{numbers[owner]:07}.png"] == owner


def test_identical_faces_share_their_first_row_across_splits(built: Builder):
    first = [r["first_row"] for split in built.info.splits for r in records(built, split)]

    assert first == [0, 1, 2, 3, 0, 5, 6, 2, 8, 9, 10, 2]


def test_protocols_count_from_one_build(built: Builder):
    train = records(built, "train")
    new = np.stack([r["votes_new"] for r in train])
    label_csv = np.stack([r["votes_label_csv"] for r in train])

    # Row 0 has no majority; 1 has in fer2013new.csv only; 3 is no face; 4 is a tie there.
    kept = {
        protocol: apply_protocol(protocol, new, label_csv).keep.nonzero()[0].tolist()
        for protocol in ("majority", "majority_new", "plurality", "plurality_first")
    }
    assert kept == {
        "majority": [2, 4, 5],
        "majority_new": [1, 2, 5],
        "plurality": [0, 1, 2, 5],
        "plurality_first": [0, 1, 2, 4, 5],
    }


def test_metadata_stands_beside_the_builder(built: Builder):
    assert "FERPlus" in built.info.description
    assert "Goodfellow" in built.info.citation
    assert "Barsoum" in built.info.citation
    assert set(built.get_metadata().tags) <= set(dataset_metadata.valid_tags())


def test_building_needs_no_tensorflow_and_no_jax():
    code = (
        "import sys; import data_builders.ferplus.ferplus_dataset_builder;"
        "assert not {'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Forms of the files.


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str):
    tiny.write_faces(tmp_path, form)
    faces = tiny.read_faces(tmp_path)

    pixels = np.array([list(face.pixels) for face in faces])
    np.testing.assert_array_equal(pixels, tiny.draw_pixels())
    assert [face.emotion for face in faces] == tiny.EMOTIONS
    assert [face.usage for face in faces] == tiny.USAGES


EVERY_ROW = {"pixels": [face.tobytes() for face in tiny.draw_pixels()], "votes_new": tiny.VOTES}


def assert_complete(source: Path, labels: bool = True) -> None:
    found = tiny.survey(source)
    assert {field: tiny.column(found, field) for field in EVERY_ROW} == EVERY_ROW
    joined = [
        tiny.LABEL_VOTES[name] if labels and owned else [-1] * 10
        for name, owned in zip(tiny.NAMES, tiny.OWNED, strict=True)
    ]
    assert tiny.column(found, "votes_label_csv") == joined
    assert not found.problems
    assert not found.notes or not labels


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_in_the_folder_one_below_and_by_itself(tmp_path: Path, form: str):
    source = tiny.write_source(tmp_path / "source", form)

    assert_complete(source)
    assert_complete(tmp_path)
    assert_complete(source / form.partition(":")[0])  # the votes lie beside it


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("above", ["", "export/fer/"])
@pytest.mark.parametrize("pack", [tiny.pack_tar_gz, tiny.pack_zip])
def test_everything_may_be_in_one_archive(tmp_path: Path, form: str, above: str, pack):
    source = tiny.write_source(tmp_path / "source", form)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    path = tmp_path / "packed" / ("all.zip" if pack is tiny.pack_zip else "all.tgz")
    path.parent.mkdir()
    pack(path, {above + str(file.relative_to(source)): file.read_bytes() for file in files})

    assert_complete(path)
    if form.endswith("csv") and ":" not in form:  # archives are looked into one level deep
        assert_complete(path.parent)


@pytest.mark.parametrize("form", FORMS)
def test_ferplus_project_may_lie_beside_the_faces_as_its_zip(tmp_path: Path, form: str):
    project = tiny.write_source(tmp_path / "project")
    (tmp_path / "source").mkdir()
    faces = tiny.write_faces(tmp_path / "source", form)
    members = {"FERPlus-master/README.md": b"FER+"}
    for path in [project / "fer2013new.csv", *project.rglob("label.csv")]:
        place = "data/" if path.name == "label.csv" else ""
        members[f"FERPlus-master/{place}{path.relative_to(project)}"] = path.read_bytes()
    tiny.pack_zip(tmp_path / "source" / "FERPlus-master.zip", members)

    assert_complete(tmp_path / "source")
    assert_complete(faces)


def test_csv_of_any_name_can_be_given_instead_of_its_folder(tmp_path: Path):
    source = tiny.write_source(tmp_path)
    (source / "fer2013.csv").rename(source / "the faces.csv")

    assert_complete(source / "the faces.csv")


def test_votes_can_be_given_instead_of_their_folder(tmp_path: Path):
    assert_complete(tiny.write_source(tmp_path) / "fer2013new.csv")


def test_of_two_files_with_faces_the_nearest_is_taken(tmp_path: Path):
    source = tiny.write_source(tmp_path)
    (source / "old").mkdir()
    (source / "old" / "fer2013.csv").write_text("something else")
    (source / "icml_face_data.csv").write_text("something else")

    assert_complete(source)


def test_votes_are_found_where_the_ferplus_project_keeps_them(tmp_path: Path):
    tiny.write_faces(tmp_path)
    (tmp_path / "FERPlus-master" / "data").mkdir(parents=True)
    tiny.write_votes(tmp_path / "FERPlus-master")
    tiny.write_labels(tmp_path / "FERPlus-master" / "data")

    assert_complete(tmp_path)


def test_windows_line_ends_quotes_and_byte_order_marks_are_taken(tmp_path: Path):
    source = tiny.write_source(tmp_path)
    lines = (source / "fer2013.csv").read_text().splitlines()
    quoted = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    (source / "fer2013.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(quoted).encode())
    votes = (source / "fer2013new.csv").read_text()
    (source / "fer2013new.csv").write_bytes(
        b"\xef\xbb\xbf" + votes.replace("\n", "\r\n").encode() + b"\r\n"
    )

    assert_complete(source)


@pytest.mark.parametrize(
    ("rows", "splits"),
    [
        (range(9), {"train": 6, "valid": 3}),  # PrivateTest is held back
        (range(9, 12), {"test": 3}),
        ([*range(6), *range(9, 12)], {"train": 6, "test": 3}),
    ],
)
def test_file_that_lacks_a_split_builds_the_others_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows, splits: dict[str, int]
):
    source = tiny.write_source(tmp_path / "source", rows=list(rows))

    builder = tiny.build(source, tmp_path / "data")

    assert {name: info.num_examples for name, info in builder.info.splits.items()} == splits
    for lacking in {"train", "valid", "test"} - set(splits):
        assert f"split '{lacking}' is not built" in caplog.text
    every = [r for split in splits for r in records(builder, split)]
    # Rows keep their numbers, so that votes stay with their faces.
    assert [r["row"] for r in every] == list(rows)
    assert [r["votes_new"].tolist() for r in every] == [tiny.VOTES[row] for row in rows]


def test_without_label_csv_all_its_votes_are_minus_one(tmp_path: Path):
    source = tiny.write_source(tmp_path, labels=False)

    assert_complete(source, labels=False)
    assert tiny.survey(source).notes == [
        "No FER2013Train/label.csv, so protocol 'majority' has no rows of Training.",
        "No FER2013Valid/label.csv, so protocol 'majority' has no rows of PublicTest.",
        "No FER2013Test/label.csv, so protocol 'majority' has no rows of PrivateTest.",
    ]
