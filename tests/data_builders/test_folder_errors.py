"""What is said of trees that are not understood, and of files that cannot be used."""

import os
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from data_builders.common.source_files import SourceFiles
from data_builders.folder.folder_dataset_builder import Builder
from dmfer_jax.errors import UserError
from tests.data_builders.folder_files import (
    built,
    split_of,
    survey,
    write,
    write_classes,
    write_people,
)

# What is refused.


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt/"], r"holds no images; it holds no file.*Expected class folders"),
        (["1.png", "2.png"], "in no class folder; they lie in the source itself"),
        (["train/1.png", "test/1.png"], "in no class folder; they lie in test, train"),
        (["happy/1.png", "happy/2.png"], "one class only, 'happiness'"),
        (["train/1/a.png", "train/2/a.png"], r"numbers \(1, 2\).*--dataset=rafdb"),
        (["0/a.png", "happy/a.png"], r"numbers \(0\).*AffectNet.*0 neutral"),
        (["happy/1.png", "sad/1.png"], r"too few images of 'happiness' \(1\)"),
        (["test/sad/1.png", "test/fear/1.png"], "has test and no train"),
        (["a/happy/1.png", "b/sad/1.png"], "in 2 places, such as a/happy, b/sad"),
        (["x/train/sad/1.png", "y/train/sad/1.png"], "class folders of train lie in 2 places"),
        (
            ["train/sad/1.png", "train/Sad/2.png", "train/fear/3.png"],
            "train/Sad and train/sad name the same class",
        ),
        (["EmoLabel/list_patition_label.txt", "Image/aligned/1.jpg"], "--dataset=rafdb"),
        (["Manually_Annotated_Images/1/a.jpg"], "--dataset=affectnet"),
        (["train_set/images/0.jpg", "train_set/annotations/0_exp.npy"], "--dataset=affectnet"),
    ],
)
def test_tree_that_is_not_understood_is_refused_with_advice(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        survey(write(tmp_path, *names))


@pytest.mark.parametrize("fractions", [(1.0, 0.0), (0.6, 0.4), (-0.1, 0.1), (0.2, -0.1)])
def test_fractions_that_leave_nothing_are_refused(tmp_path, fractions):
    with pytest.raises(UserError, match="leave nothing to train on"):
        survey(tmp_path, test_fraction=fractions[0], valid_fraction=fractions[1])


def test_too_few_groups_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"too few groups \(2\) to be divided into train, valid and"
    ):
        survey(write_people(tmp_path, people=2))


def test_empty_class_folder_is_a_problem(tmp_path):
    source = write_classes(tmp_path, "sad", "fear")
    write(source, "happy/")
    (source / "anger").mkdir()
    (source / "anger" / "1.heic").write_bytes(b"not read")
    found = survey(source)

    assert found.class_names == ("sadness", "fear")
    assert [problem.split(" of a kind")[0] for problem in found.problems] == [
        "class folder anger holds no image",
        "class folder happy holds no image",
    ]


def test_image_outside_the_class_folders_is_a_problem_and_left_out(tmp_path):
    source = write_classes(tmp_path, "train/sad", "train/fear", images=3)
    write(source, "sample.png", "train/loose.jpg", "train/sad/deeper/1.png")
    found = survey(source)

    (problem,) = found.problems
    assert "(sample.png, train/loose.jpg, train/sad/deeper/1.png)" in problem
    assert len(split_of(found)) == 6


def test_files_that_are_no_images_are_noted(tmp_path):
    source = write_classes(tmp_path, "sad", "fear")
    for name in ("sad/read me.txt", "sad/a.mp4", "fear/b.MP4", "fear/Thumbs.db", "fear/.hidden"):
        (source / name).write_bytes(b"x")
    found = survey(source)

    assert "left out: .mp4 2, .txt 1." in found.notes[0]
    assert not found.problems


def test_text_named_jpg_stops_the_build_and_leaves_nothing(tmp_path):
    source = write_classes(tmp_path / "source", "sad", "fear")
    (source / "sad" / "1.jpg").write_text("<html>Not found</html>")

    with (
        pytest.raises(UserError, match=r"sad/1\.jpg.*no image; it begins with b'<html>"),
        built(source, tmp_path / "data"),
    ):
        pass
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("unreadable", ["sad", "sad/1.png"])
def test_folder_or_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, unreadable):
    source = write_classes(tmp_path / "source", "sad", "fear")
    wanted = source / unreadable

    def refuse(real):
        def call(path, *arguments, **keywords):
            if str(path) == str(wanted):  # not every caller has a path
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments, **keywords)

        return call

    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    monkeypatch.setattr(os, "open", refuse(os.open))
    monkeypatch.setattr(Path, "open", refuse(Path.open))
    with (
        pytest.raises(UserError, match=f"{unreadable} cannot be read: Permission denied"),
        built(source, tmp_path / "data"),
    ):
        pass
    assert not (tmp_path / "data").exists()


def test_builder_without_a_survey_says_how_it_is_made(tmp_path):
    with pytest.raises(UserError, match="has to know its classes"):
        Builder(data_dir=tmp_path)


def test_source_with_other_classes_than_the_builder_is_refused(tmp_path):
    source = write_classes(tmp_path / "s", "sad", "fear")
    with SourceFiles(source) as files:
        builder = Builder.from_survey(files, Builder.survey(files), tmp_path / "data")
    builder._found = None
    config = tfds.download.DownloadConfig(manual_dir=write_classes(tmp_path / "t", "x", "y"))

    with pytest.raises(UserError, match=r"classes x, y, and .* for sadness, fear"):
        builder.download_and_prepare(download_config=config)


def test_links_that_lead_to_no_image_are_a_problem(tmp_path):
    source = write_classes(tmp_path, "sad", "fear")
    assert survey(source).problems == []
    (source / "sad" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (source / "sad" / "lost.txt").symlink_to(tmp_path / "nowhere.txt")
    assert survey(source).problems == ["links that lead to no image, left out: sad/lost.png"]
