"""Which files of folders are taken for photos."""

import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.photo_files import list_photos
from tests.data_builders.packing import write_folder

NAMES = ["a.jpg", "none.GIF", "sub/two.png", "sub/film.mp4", "sub/notes.txt", "list"]


def test_photos_and_videos_are_told_by_their_suffix_in_folders(tmp_path):
    found = list_photos([str(write_folder(dict.fromkeys(NAMES, b""), tmp_path))])
    assert [path.name for path in found.photos] == ["a.jpg", "none.GIF", "two.png"]
    assert [path.name for path in found.videos] == ["film.mp4"]
    assert found.passed_over == {".txt": 1, "no suffix": 1}


def test_a_folder_that_a_link_leads_back_to_is_gone_through_once(tmp_path):
    write_folder(dict.fromkeys(NAMES, b""), tmp_path)
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "sub")
    found = list_photos([str(tmp_path), str(tmp_path / "a.jpg")])
    assert sorted(path.name for path in found.photos) == ["a.jpg", "none.GIF", "two.png"]
    assert found.passed_over == {".txt": 1, "no suffix": 1}


def test_what_systems_leave_in_folders_is_no_photo_unless_it_is_named(tmp_path):
    hidden = ["._a.jpg", ".thumbs/a.jpg", "__MACOSX/sub/a.jpg", "sub/.a.12.partial.jpg"]
    write_folder(dict.fromkeys([*NAMES, *hidden], b""), tmp_path)
    found = list_photos([str(tmp_path)])
    assert [path.name for path in found.photos] == ["a.jpg", "none.GIF", "two.png"]
    assert found.passed_over["hidden"] == 2
    named = [str(tmp_path / "._a.jpg"), str(tmp_path / ".thumbs")]
    assert [path.name for path in list_photos(named).photos] == ["._a.jpg", "a.jpg"]


@pytest.mark.parametrize("name", ["", "nowhere.jpg"])
def test_no_name_is_not_the_current_folder(name):
    with pytest.raises(UserError, match="no such file or folder; expected photos, videos"):
        list_photos([name])
