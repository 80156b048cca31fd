"""What records of RAF-DB hold: the owners' bytes, names, labels and annotations."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from data_builders.rafdb.rafdb_dataset_builder import Builder
from tests.data_builders import rafdb_files as tiny


def survey(source: Path) -> Survey:
    with SourceFiles(source) as files:
        return Builder.survey(files)


def test_attributes_are_joined_by_name(tmp_path: Path):
    files = {**tiny.list_form(), **tiny.annotations()}
    rows = survey(tiny.pack(tmp_path, files, "zips inside")).splits["test"]

    # The first of test is image 14: its numbers are 14 % 3, 15 % 3 and 14 % 5.
    assert rows.names[0] == "test_0001.jpg"
    assert [rows.fields[name][0] for name in ("gender", "race", "age_group")] == [2, 0, 4]
    assert [rows.fields[name][1] for name in ("gender", "race", "age_group")] == [0, 1, 0]
    np.testing.assert_array_equal(
        rows.fields["landmarks"][0],
        np.array([[14.25, 10], [14.25, 20], [14.25, 30], [14.25, 40], [14.25, 50]], np.float32),
    )


def test_attributes_on_one_line_are_read_and_missing_ones_are_unknown(tmp_path: Path):
    files = {**tiny.list_form(), **tiny.annotations()}
    path = "Annotation/manual/test_0001_manu_attri.txt"
    files[path] = b"1 2\r\n3 4\r\n5 6\r\n7 8\r\n9 10\r\n1 2 3"
    del files["Annotation/manual/test_0002_manu_attri.txt"]

    found = survey(tiny.write(tmp_path, files))

    fields = found.splits["test"].fields
    assert [fields[name][0] for name in ("gender", "race", "age_group")] == [1, 2, 3]
    assert [fields[name][1] for name in ("gender", "race", "age_group")] == [-1, -1, -1]
    assert np.isnan(fields["landmarks"][1]).all()
    assert any("No *_manu_attri.txt for test_0002" in note for note in found.notes)


def records(builder: Builder, split: str) -> list[dict]:
    skip = {"image": tfds.decode.SkipDecoding()}
    source: Any = builder.as_data_source(split, decoders=skip)  # pyright: ignore[reportCallIssue]
    return [source[index] for index in range(len(source))]


def build(source: Path, data_dir: Path, variant: str) -> Builder:
    with SourceFiles(source) as files:
        builder = Builder.from_survey(files, Builder.survey(files, variant), data_dir)
        builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {**tiny.list_form(kinds=("aligned", "original")), **tiny.annotations()}
    return tiny.pack(tmp_path_factory.mktemp("rafdb"), files, "zips in a zip")


def test_record_holds_the_owners_bytes_name_label_and_attributes(complete: Path, tmp_path: Path):
    builder = build(complete, tmp_path, "aligned")
    record = records(builder, "test")[0]

    assert record["image"] == tiny.encode(tiny.colour("test_0001"))
    assert record["name"] == b"test_0001.jpg"
    features: Any = builder.info.features
    assert features["label"].names[record["label"]] == "neutral"
    assert features["gender"].names[record["gender"]] == "unsure"
    assert features["race"].names[record["race"]] == "Caucasian"
    assert features["age_group"].names[record["age_group"]] == "70+"
    assert record["landmarks"].shape == (5, 2)
    assert [r["row"] for r in records(builder, "test")] == [14, 15, 16, 17, 18, 19, 20]


def test_unknown_attributes_are_minus_one(tmp_path: Path):
    builder = build(tiny.write(tmp_path / "in", tiny.list_form()), tmp_path / "out", "aligned")

    record = records(builder, "valid")[0]

    assert [record[name] for name in ("gender", "race", "age_group")] == [-1, -1, -1]
    assert np.isnan(record["landmarks"]).all()


def test_original_images_are_whole_or_cropped_to_their_box(complete: Path, tmp_path: Path):
    whole = records(build(complete, tmp_path, "original"), "test")[0]["image"]
    cropped = records(build(complete, tmp_path, "original_cropped"), "test")[0]["image"]

    assert whole == tiny.draw_original("test_0001")
    assert Image.open(io.BytesIO(cropped)).size == (16, 24)
    colour = tiny.colour("test_0001", "original")
    np.testing.assert_allclose(tiny.mean_colour(cropped), colour, atol=4)
