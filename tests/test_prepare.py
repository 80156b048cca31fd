"""Preparing a dataset: what is said of a source, when it is refused, and what is there then."""

import contextlib
import io
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from absl import flags
from rich.console import Console

from data_builders.common import record_builder
from dmfer_jax import prepare as prepare_command
from dmfer_jax import subjects
from dmfer_jax.building import dry_run, ensure_built, prepare, print_counts, verify
from dmfer_jax.data import builds, protocols, records
from dmfer_jax.errors import UserError
from dmfer_jax.evaluate import evaluate
from dmfer_jax.labels import EXPRESSION_NAMES
from tests.conftest import make_tiny_config, save_random_run
from tests.data_builders import affectnet_files, ferplus_files, rafdb_files
from tests.data_builders.folder_files import image_bytes, write, write_classes
from tests.data_builders.packing import write_folder

RAFDB_NAMES = [name for name in EXPRESSION_NAMES if name != "contempt"]


def said(function: Any, *arguments: Any, **options: Any) -> str:
    """Runs a function that prints, and returns what it printed, on wide paper."""
    file = io.StringIO()
    function(*arguments, **options, console=Console(file=file, width=200))
    return file.getvalue()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Class folders of a user's own: 2 classes of 12 images."""
    return write_classes(tmp_path / "my faces", "Happy", "sad", images=12)


@pytest.fixture
def rafdb(tmp_path: Path) -> Path:
    """A tiny RAF-DB, whose counts are not the published ones; with attributes."""
    files = rafdb_files.list_form() | rafdb_files.annotations()
    return write_folder(files, tmp_path / "RAF-DB")


def test_source_is_named_counted_and_built(faces, tmp_path):
    text = said(prepare, "folder", str(faces), str(tmp_path / "data"))
    assert "Found: class folders\n" in text
    assert "Note: test (about 20 %) and valid" in text
    assert "class      train  valid  test" in text
    assert "... 24 images, built in 0:00:0" in text
    folder = builds.find_build("folder", tmp_path / "data")
    assert folder is not None
    assert folder == tmp_path / "data" / "folder" / "my_faces" / "1.0.0"
    assert builds.dataset_name(folder) == "folder/my_faces"
    assert builds.verify(folder) == 24


def test_dry_run_says_the_same_and_writes_nothing(faces, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    text = said(dry_run, "folder", str(faces))
    assert "Found: class folders\n" in text
    assert "Nothing was built (--dry_run)" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_counts_that_differ_stop_the_build_with_the_rows_that_differ(rafdb, tmp_path):
    with pytest.raises(UserError) as caught:
        said(prepare, "rafdb", str(rafdb), str(tmp_path / "data"))
    message = str(caught.value)
    # One image of each class to test; RAF-DB has 680 neutral, 74 fear.
    assert "test, neutral: 1 images; published are 680" in message
    assert "test, fear: 1 images; published are 74" in message
    assert "train+valid, happiness: 2 images; published are 4,772" in message
    assert "--allow_mismatch" in message
    assert not (tmp_path / "data").exists()


def test_allowed_differences_are_built_and_remembered(rafdb, tmp_path):
    text = said(prepare, "rafdb", str(rafdb), str(tmp_path / "data"), allow_mismatch=True)
    assert "Not as published, built all the same:\n  train+valid, neutral: 2 images" in text
    folder = builds.find_build("rafdb", tmp_path / "data")
    assert folder is not None
    assert builds.dataset_name(folder) == "rafdb/aligned"
    assert "test, fear: 1 images; published are 74" in builds.facts(folder)["differs"]
    text = said(print_counts, folder)
    assert "rafdb/aligned in " in text
    assert "Built from: " in text
    assert "Differs: test, fear: 1 images; published are 74" in text


def test_published_counts_stand_beside_those_found(rafdb, tmp_path):
    text = said(prepare, "rafdb", str(rafdb), str(tmp_path / "data"), allow_mismatch=True)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["class"] == ["train", "valid", "test", "train+valid", "published", "published"]
    # Two images of each class to train, of which one goes to valid, and one to test.
    assert rows["fear"] == ["1", "1", "1", "2", "281", "74"]
    assert rows["all"] == ["7", "7", "7", "14", "12,271", "3,068"]


def test_ferplus_is_compared_under_every_protocol(tmp_path):
    source = ferplus_files.write_source(tmp_path / "source")
    with pytest.raises(UserError, match="valid, protocol plurality: 1 images; published are 3,396"):
        said(prepare, "ferplus", str(source), str(tmp_path / "data"))


def test_ferplus_without_label_csv_is_no_mismatch_of_majority(tmp_path):
    source = ferplus_files.write_source(tmp_path / "source", labels=False)
    with pytest.raises(UserError) as caught:
        said(prepare, "ferplus", str(source), str(tmp_path / "data"))
    assert "protocol majority_new" in str(caught.value)
    assert "protocol majority:" not in str(caught.value)
    assert "protocol majority, " not in str(caught.value)


def test_published_classes_of_ferplus_add_up_to_the_published_splits():
    classes, splits = protocols.PUBLISHED_MAJORITY_CLASSES, protocols.PUBLISHED_COUNTS["majority"]
    assert sum(classes["test"]) == splits["test"]
    assert sum(classes["train+valid"]) == splits["train"] + splits["valid"]


def test_what_is_there_is_not_built_again(faces, tmp_path, monkeypatch):
    data_dir = str(tmp_path / "data")
    folder = prepare("folder/mine", str(faces), data_dir)
    monkeypatch.setattr(record_builder.RecordBuilder, "_download_and_prepare", None)
    assert "The records are there already" in said(prepare, "folder/mine", str(faces), data_dir)
    shutil.rmtree(faces)
    assert ensure_built("folder/mine", str(faces), data_dir) == folder
    assert ensure_built("folder", "", data_dir) == folder


def test_records_of_another_source_are_not_taken_for_those_of_this_one(faces, tmp_path):
    data_dir = str(tmp_path / "data")
    prepare("folder/mine", str(faces), data_dir)
    write(faces, *(f"sad/more{i}.png" for i in range(9)))
    with pytest.raises(UserError, match=r"was built from something else.*--data_dir"):
        prepare("folder/mine", str(faces), data_dir)


def test_images_that_were_replaced_under_their_names_are_noticed(faces, tmp_path):
    data_dir = str(tmp_path / "data")
    prepare("folder/mine", str(faces), data_dir)
    cropped = faces / "sad" / "3.png"
    cropped.write_bytes(image_bytes(size=9))
    with pytest.raises(UserError, match=r"else.*with images in files of other sizes\. Remove"):
        prepare("folder/mine", str(faces), data_dir)


def test_an_incomplete_source_is_the_same_one_in_another_place(tmp_path):
    data_dir, files = str(tmp_path / "data"), affectnet_files.old_release()
    lost = next(path for path in files if path.endswith(".jpg"))
    files.pop(lost)
    for place in ("first", "second"):
        source = str(write_folder(files, tmp_path / place))
        prepare("affectnet", source, data_dir, allow_mismatch=True)


def test_annotations_that_were_added_are_not_passed_over(tmp_path):
    source = ferplus_files.write_source(tmp_path / "source", labels=False)
    data_dir = str(tmp_path / "data")
    prepare("ferplus", str(source), data_dir, allow_mismatch=True)
    ferplus_files.write_labels(source)
    with pytest.raises(UserError, match=r"was built from something else.*test 3.*Remove that"):
        prepare("ferplus", str(source), data_dir, allow_mismatch=True)


@pytest.mark.parametrize("same", [True, False])
def test_records_that_another_process_makes_meanwhile_are_taken_if_they_are_the_same(
    same, faces, tmp_path, monkeypatch
):
    other = faces if same else write_classes(tmp_path / "others", "Happy", "sad", images=15)
    made = prepare("folder/mine", str(other), str(tmp_path / "elsewhere"))
    alone = record_builder.building_alone

    @contextlib.contextmanager
    def wait(folder: Path) -> Iterator[None]:
        with alone(folder):
            shutil.copytree(made, folder)
            yield

    monkeypatch.setattr(record_builder, "building_alone", wait)
    if same:
        text = said(prepare, "folder/mine", str(faces), str(tmp_path / "data"))
        assert "another process has built them meanwhile" in text
    else:
        with pytest.raises(UserError, match="was built from something else"):
            prepare("folder/mine", str(faces), str(tmp_path / "data"))


def test_folder_that_is_no_build_is_not_taken_for_one(faces, tmp_path):
    (tmp_path / "data" / "folder" / "mine" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"mine/1\.0\.0 cannot be read as a dataset .*Remove that"):
        prepare("folder/mine", str(faces), str(tmp_path / "data"))


def test_names_are_printed_as_they_are_written(tmp_path):
    source = write_classes(tmp_path / "[/x]", "[red]angry", "[bold]sad", images=6)
    text = said(prepare, "folder", str(source), str(tmp_path / "[/y]"))
    assert "\n[red]angry " in text
    assert "[/y]/folder/x/1.0.0 ..." in text
    folder = builds.find_build("folder", tmp_path / "[/y]")
    assert folder is not None
    assert f"folder/x in {folder}" in said(print_counts, folder)


def test_archive_that_cannot_be_read_is_noted(faces, tmp_path):
    (faces / "more.zip").write_bytes(b"<html>404</html>")
    text = said(dry_run, "folder", str(faces))
    assert "Note: Archives that cannot be read here and are left out: more.zip." in text


def test_signal_that_ends_a_process_leaves_nothing_of_a_build(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(
        record_builder.RecordBuilder,
        "_write_split",
        lambda self, split, examples: os.kill(os.getpid(), signal.SIGTERM),
    )
    with pytest.raises(SystemExit) as caught:
        prepare("folder", str(faces), str(tmp_path / "data"))
    assert caught.value.code == 128 + 15
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / "data").exists()


def test_one_of_several_builds_has_to_be_named(faces, tmp_path):
    data_dir = tmp_path / "data"
    one, two = (prepare(f"folder/{name}", str(faces), str(data_dir)) for name in ("one", "two"))
    assert builds.find_build("folder/one", data_dir) == one
    assert builds.find_build("folder/two", data_dir) == two
    assert builds.find_build("folder/three", data_dir) is None
    with pytest.raises(UserError, match=r"several builds of folder .*folder/one, folder/two"):
        builds.find_build("folder", data_dir)


def test_newest_version_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        folder = tmp_path / "toy" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "toy" / "2.0.0").mkdir()  # no build: it has no dataset_info.json
    incomplete = tmp_path / "toy" / "incomplete.XYZ_3.0.0"
    incomplete.mkdir()
    (incomplete / "dataset_info.json").write_text("{}")
    assert builds.find_build("toy", tmp_path) == tmp_path / "toy" / "1.10.0"


@pytest.mark.parametrize(
    ("dataset", "source", "options", "message"),
    [
        (
            "affectnot",
            "x",
            {},
            "there is no dataset 'affectnot'; there are synthetic_faces, ferplus",
        ),
        ("rafdb/small", "", {}, "rafdb has no variant 'small'; it has aligned, original, orig"),
        ("ferplus/x", "", {}, "ferplus has no variant 'x'; it has one form only"),
        ("rafdb", "", {}, r"no source .*--source=path.*docs/datasets/rafdb\.md"),
        ("affectnet", "nowhere", {}, "nowhere does not exist"),
        ("folder", ".", {"folder_order": "raf"}, "--folder_order makes no sense for folder"),
    ],
)
def test_what_cannot_be_prepared_is_said(dataset, source, options, message, tmp_path):
    place = str(tmp_path) if source == "." else source
    with pytest.raises(UserError, match=message):
        prepare(dataset, place, str(tmp_path / "data"), options=options)
    assert not (tmp_path / "data").exists()


def test_verified_records_are_counted(faces, tmp_path):
    folder = prepare("folder", str(faces), str(tmp_path / "data"))
    assert "folder/my_faces: 24 records are as they were written" in said(verify, folder)


def test_groups_and_seven_classes_reach_the_report(rafdb, data_dir, tmp_path):
    config = make_tiny_config(data_dir)
    config.data.dataset, config.data.data_dir = "rafdb", str(tmp_path / "data")
    config.data.train_splits = ("train", "valid")
    folder = prepare("rafdb", str(rafdb), str(tmp_path / "data"), allow_mismatch=True)
    assert len(records.open_records(folder, "train+valid")) == 14
    workdir = save_random_run(tmp_path / "run", config, RAFDB_NAMES)
    report = evaluate(subjects.of_run(workdir, "last"), ["test"])
    assert report["dataset"] == "rafdb/aligned"
    assert report["train_splits"] == ["train", "valid"]
    assert "test, fear: 1 images; published are 74" in report["differs"]
    test = report["checkpoints"]["last"]["splits"]["test"]
    assert test["labels"] == RAFDB_NAMES
    # The attributes of `rafdb_files.attributes`: of images 14 to 20, 14 % 3 = 2 is "unsure".
    assert test["groups"]["gender"]["male"]["examples"] == 2  # 15 and 18
    assert sum(value["examples"] for value in test["groups"]["age_group"].values()) == 7


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Runs the command with these flags."""
    values = flags.FlagValues()
    monkeypatch.setattr(prepare_command, "flags", SimpleNamespace(FLAGS=values))
    for name in ("dataset", "source", "data_dir", "folder_order", "groups"):
        flags.DEFINE_string(name, "", "A text.", values)
    for name in ("dry_run", "allow_mismatch", "verify"):
        flags.DEFINE_bool(name, False, "Whether.", values)
    for name in ("test_fraction", "valid_fraction"):
        flags.DEFINE_float(name, 0.2, "A share.", flag_values=values)
    values(["prepare", *arguments])
    prepare_command.main([])


def test_flag_that_would_do_nothing_is_refused(faces, tmp_path, monkeypatch):
    where = ("--dataset=folder/mine", f"--data_dir={tmp_path / 'data'}")
    command(monkeypatch, *where, f"--source={faces}", "--test_fraction=0.5")
    command(monkeypatch, *where, "--verify")
    with pytest.raises(UserError, match="--test_fraction says how files are read, and there is no"):
        command(monkeypatch, *where, "--test_fraction=0.3")
    with pytest.raises(UserError, match="--verify reads records, and --dry_run makes none"):
        command(monkeypatch, *where, f"--source={faces}", "--dry_run", "--verify")
    for more in ((), ("--dry_run",)):
        with pytest.raises(UserError, match="--groups makes no sense for synthetic_faces"):
            command(monkeypatch, "--dataset=synthetic_faces/tiny", where[1], "--groups=g", *more)
