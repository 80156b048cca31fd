"""Folders on disk as a source: links, folders without end, and what is neither file nor folder."""

import os
from pathlib import Path

import pytest

from data_builders.common import source_files
from data_builders.common.source_files import SourceFiles
from dmfer_jax.errors import UserError
from tests.data_builders.packing import pack, write_folder


def test_links_in_a_folder_are_followed_and_loops_are_not(tmp_path):
    write_folder({"images/a.jpg": b"a"}, tmp_path / "disk")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "images").symlink_to(tmp_path / "disk" / "images")
    (tmp_path / "source" / "loop").symlink_to(tmp_path / "source")
    (tmp_path / "source" / "itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "source" / "nowhere.jpg").symlink_to("nothing")
    with SourceFiles(tmp_path / "source") as files:
        assert list(files) == ["images/a.jpg"]


def test_source_that_would_be_waited_for_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe is no file and no folder\. Give what was down"):
        SourceFiles(tmp_path / "pipe")


def test_folders_in_each_other_without_end_are_refused(tmp_path):
    (tmp_path / "/".join("d" * 101)).mkdir(parents=True)
    with pytest.raises(UserError, match=r"/d/d lies more than 100 folders deep"):
        SourceFiles(tmp_path)


def test_unreadable_folder_is_named(tmp_path, monkeypatch):
    write_folder({"a/b/c.jpg": b"c"}, tmp_path)
    honest = os.scandir

    def scandir(folder):
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return honest(folder)

    monkeypatch.setattr(source_files.os, "scandir", scandir)
    with pytest.raises(UserError, match=r"a/b cannot be read: Permission denied"):
        SourceFiles(tmp_path)
    write_folder({"faces.csv": b"1", "c/d.jpg": b"d"}, tmp_path)
    with SourceFiles(tmp_path / "faces.csv") as beside:  # nobody has named the folder
        assert sorted(beside) == ["c/d.jpg", "faces.csv"]


def test_sizes_are_those_of_the_content_however_packed(tmp_path):
    write_folder({"a.jpg": b"12345"}, tmp_path)
    path = pack({"a.jpg": b"12345"}, "tar.gz", tmp_path)
    with SourceFiles(tmp_path, lambda _: False) as folder, SourceFiles(path) as packed:
        assert folder.size("a.jpg") == packed.size("a.jpg") == 5
