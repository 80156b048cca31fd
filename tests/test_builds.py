"""A build whose files were damaged later is told from a whole one, and says what is wrong."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dmfer_jax.data import builds, records
from dmfer_jax.errors import UserError
from tests.data_builders import toy_dataset as toys

SHARD = "toy-train.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("toys")
    return toys.build(toys.write_toys(place / "in"), place / "out")


@pytest.fixture
def build(whole, tmp_path) -> Path:
    """A copy to be damaged: 5 records of train, 3 of test."""
    return Path(shutil.copytree(whole, tmp_path / "toy" / "1.0.0"))


def open_all(folder: Path) -> None:
    """Does with a build what every command does first."""
    builds.dataset_name(folder)
    builds.facts(folder)
    for split in records.split_names(folder):
        records.read_fields(records.open_records(folder, split))


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"\xff{garbage")


def test_copy_is_whole(build):
    open_all(build)
    assert builds.verify(build) == 8


DESCRIPTIONS = ("dataset_info.json", "features.json", "metadata.json", "label.labels.txt")


@pytest.mark.parametrize("check", [open_all, builds.verify])
@pytest.mark.parametrize("damage", [remove, empty, garble])
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_damaged_description_is_an_error_that_names_the_build(name, damage, check, build):
    damage(build / name)
    with pytest.raises(UserError, match=rf"{build} cannot be read as a dataset \(.*\)\. Remove"):
        check(build)


def test_class_names_that_were_changed_are_noticed(build):
    (build / "label.labels.txt").write_text("square\nround\n")
    with pytest.raises(
        UserError, match=r"label\.labels\.txt holds \['square', 'round'\]; \['round'"
    ):
        open_all(build)


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_another(path: Path) -> None:
    shutil.copy(path.with_name("toy-test.array_record-00000-of-00001"), path)


SHARD_DAMAGES = {
    "removed": (remove, "0 records; 5 were written .*No such file"),
    "empty": (empty, "0 records; 5 were written"),
    "garbage": (garble, "0 records; 5 were written"),
    "cut in the records": (cut(1_000), "0 records; 5 were written"),
    "cut at a block": (cut(2**16), "0 records; 5 were written"),  # array_record says nothing then
    "cut at the end": (cut(2**17 - 1), "0 records; 5 were written"),
    "a folder": (replace_by_folder, "0 records; 5 were written .*Is a directory"),
    "another shard": (replace_by_another, "3 records; 5 were written"),
}


@pytest.mark.parametrize("case", SHARD_DAMAGES)
def test_damaged_shard_is_an_error_that_names_it(case, build):
    damage, message = SHARD_DAMAGES[case]
    damage(build / SHARD)
    expected = rf"damaged: 5 of 8 records cannot be used\.\n  split 'train', {SHARD} has {message}"
    with pytest.raises(UserError, match=expected):
        builds.verify(build)
    with pytest.raises(UserError, match=rf"{build} cannot be read as a dataset \("):
        open_all(build)
