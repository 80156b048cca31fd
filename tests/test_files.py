"""A file is whole or not there, and where it cannot be written the user is told which."""

import errno
import os

import pytest

from dmfer_jax import files
from dmfer_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "reason"), [("folder", "Is a directory"), ("file/below", "File exists")]
)
def test_place_that_cannot_be_written_is_named(tmp_path, name, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{name} cannot be written: {reason}; make room for it"):
        files.write_text(tmp_path / name, "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_full_disk_leaves_the_older_file_as_it_was(tmp_path):
    def fail(part):
        part.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "report.json"
    path.write_text("older")
    with pytest.raises(UserError, match=r"report\.json cannot be written: No space left on dev"):
        files.write_atomically(path, fail)
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "older"


def test_processes_of_one_number_on_two_hosts_are_not_in_each_others_way(tmp_path):
    path = tmp_path / "config.json"
    assert len({files.partial_of(path) for _ in range(100)}) == 100


@pytest.mark.parametrize("name", [".a.jpg", "__MACOSX", "Thumbs.db", "lost+found"])
def test_what_systems_leave_is_told_from_what_people_make(name):
    assert files.is_of_a_system(name)
    assert not files.is_of_a_system(name.strip("._") + "s")
