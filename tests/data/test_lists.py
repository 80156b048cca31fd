"""The lists published with RAN: every form they are written in, and what is wrong with others."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest

from dmfer_jax.data.lists import PUBLISHED_COUNTS, Entry, read_lists
from dmfer_jax.data.protocols import apply_protocol
from dmfer_jax.errors import UserError
from dmfer_jax.labels import Expression as E

HASHES = [f"{number:056x}" for number in (0xBC9AD4, 0xA0D5A9, 0xD3DFB1)]
FILES = {
    "ferplus/jianfei_occlusion_list.txt": "1_fer0034656.png 8 0\r\n7_fer0033878.png 8 3\r\n",
    "ferplus/pose_30_ferplus_list.txt": "0/fer0032226.jpg\n6/fer0032228.jpg\n",
    "ferplus/pose_45_ferplus_list.txt": "5/fer0032226.jpg\n",
    # No end of line behind the last one, as published; row 3 says row 1 again.
    "rafdb/rafdb_occlusion_list.txt": "test_0003_aligned 3 4\r\ntest_0006_aligned 0 1\r\n"
    "test_0003_aligned 3 4",
    "rafdb/val_raf_db_list.txt": "0/test_0004_aligned.jpg\n6/test_0006_aligned.jpg\n",
    "rafdb/val_raf_db_label.txt": "2 7\n0\n6",
    "rafdb/val_raf_db_list_45.txt": "1/test_0011_aligned.jpg\n",
    "rafdb/val_raf_db_label_45.txt": "1 7\n1",
    "affectnet/occlusion_affectnet_list.txt": f"val/2/{HASHES[0]}/\nval/7/{HASHES[1]}/\n",
    "affectnet/pose_30_affectnet_list.txt": f"3/{HASHES[0]}.jpg\n6/{HASHES[1]}.jpg\n"
    f"3/{HASHES[0]}.jpg\n1/{HASHES[2]}.jpg\n6/{HASHES[1]}.jpg\n",
    "affectnet/pose_45_affectnet_list.txt": f"4/{HASHES[2]}/8.jpg\n",
}
ENTRIES = {
    ("ferplus", "occlusion"): [("fer0034656", E.HAPPINESS, 0), ("fer0033878", E.CONTEMPT, 3)],
    ("ferplus", "pose_30"): [("fer0032226", E.NEUTRAL, None), ("fer0032228", E.FEAR, None)],
    ("ferplus", "pose_45"): [("fer0032226", E.DISGUST, None)],
    # RAF-DB's list order, here counted from 0: surprise, fear, disgust, happiness, ...
    ("rafdb", "occlusion"): [("test_0003", E.HAPPINESS, 4), ("test_0006", E.SURPRISE, 1)],
    ("rafdb", "pose_30"): [("test_0004", E.SURPRISE, None), ("test_0006", E.NEUTRAL, None)],
    ("rafdb", "pose_45"): [("test_0011", E.FEAR, None)],
    # AffectNet's: neutral, happy, sad, surprise, fear, disgust, anger, contempt.
    ("affectnet", "occlusion"): [(HASHES[0], E.SADNESS, None), (HASHES[1], E.CONTEMPT, None)],
    ("affectnet", "pose_30"): [
        (HASHES[0], E.SURPRISE, None),
        (HASHES[1], E.ANGER, None),
        (HASHES[2], E.HAPPINESS, None),
    ],
    ("affectnet", "pose_45"): [(HASHES[2], E.FEAR, None)],
}
REPEATED = {("rafdb", "occlusion"): (3,), ("affectnet", "pose_30"): (3, 5)}


def write_lists(folder: Path, **changes: str | bytes | None) -> Path:
    """Writes all lists as published, two or three lines each; None leaves a file out."""
    for path, content in FILES.items():
        content = changes.get(Path(path).stem, content)
        if content is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            raw = content.encode() if isinstance(content, str) else content
            (folder / path).write_bytes(raw)
    return folder


def test_every_form_gives_names_and_canonical_labels(tmp_path):
    lists = read_lists(write_lists(tmp_path))
    assert [(found.dataset, found.name) for found in lists] == list(ENTRIES)
    for found in lists:
        expected = ENTRIES[found.dataset, found.name]
        assert found.entries == tuple(Entry(*entry) for entry in expected)
        assert found.repeated == REPEATED.get((found.dataset, found.name), ())
        assert found.lines == len(expected) + len(found.repeated)
        assert found.published == PUBLISHED_COUNTS[found.dataset][found.name]


@pytest.mark.parametrize("dataset", ["ferplus", "rafdb", "affectnet", "affectnet/eight"])
def test_dataset_at_hand_chooses_among_folders_and_needs_no_other(tmp_path, dataset):
    write_lists(tmp_path)
    name = dataset.partition("/")[0]
    of_one = read_lists(tmp_path / name)
    assert {found.dataset for found in of_one} == {name}
    for path in FILES:
        if not path.startswith(name):
            (tmp_path / path).write_bytes(b"\xff\x00 nothing that can be read")
    assert read_lists(tmp_path, dataset) == of_one


def test_one_file_is_one_list(tmp_path):
    write_lists(tmp_path)
    (found,) = read_lists(tmp_path / "rafdb" / "val_raf_db_list_45.txt")
    assert (found.dataset, found.name, len(found.entries)) == ("rafdb", "pose_45", 1)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark_change_nothing(tmp_path, end, start):
    text = end.join(["0/fer0032226.jpg", "6/fer0032228.jpg ", "", ""])
    write_lists(tmp_path, pose_30_ferplus_list=start + text.encode())
    (found,) = read_lists(tmp_path / "ferplus" / "pose_30_ferplus_list.txt")
    assert [tuple(entry) for entry in found.entries] == ENTRIES["ferplus", "pose_30"]
    assert found.lines == 2


def test_list_of_another_dataset_is_said(tmp_path):
    write_lists(tmp_path)
    message = r"ferplus: found lists of ferplus, expected those of 'rafdb'"
    with pytest.raises(UserError, match=message):
        read_lists(tmp_path / "ferplus", "rafdb")
    with pytest.raises(UserError, match="there are none of 'synthetic_faces'"):
        read_lists(tmp_path, "synthetic_faces/tiny")


def test_place_without_lists_says_which_files_it_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("0/fer0032226.jpg\n")
    expected = "expected one or more of jianfei_occlusion_list.txt, pose_30_ferplus_list.txt"
    with pytest.raises(UserError, match=f"found no list in it.*{expected}"):
        read_lists(tmp_path)
    with pytest.raises(UserError, match=rf"notes\.txt: no list of RAN has this name, {expected}"):
        read_lists(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=f"nowhere: cannot be read.*{expected}"):
        read_lists(tmp_path / "nowhere")


def test_same_list_in_two_folders_is_refused(tmp_path):
    write_lists(tmp_path)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "pose_45_ferplus_list.txt").write_text("5/fer0032226.jpg\n")
    with pytest.raises(
        UserError, match=r"found pose_45_ferplus_list\.txt twice, .*give the folder"
    ):
        read_lists(tmp_path)


BAD = [
    ("pose_30_ferplus_list", "", "is empty"),
    ("pose_30_ferplus_list", " \r\n\r\n", "is empty"),
    ("pose_30_ferplus_list", "0/fer0032226.jpg\n\n1/fer0032228.jpg\n", "row 2: found ''"),
    ("pose_30_ferplus_list", "0/fer0032226.jpg\n1/fer32228.jpg\n", "row 2: found '1/fer32228.jpg'"),
    ("pose_30_ferplus_list", "0/../fer0032226.jpg\n", "row 1: found '0/../fer0032226.jpg'"),
    ("pose_30_ferplus_list", "-1/fer0032226.jpg\n", "row 1: found '-1/fer"),
    ("pose_30_ferplus_list", "8/fer0032226.jpg\n", "row 1: found label 8, expected 0 to 7"),
    ("pose_30_ferplus_list", "9" * 5000 + "/fer0032226.jpg", "row 1: found label 9999.*0 to 7"),
    ("pose_30_ferplus_list", "0/fer0032226.jpg\0\n", "row 1: found '0/fer0032226.jpg.x00'"),
    ("pose_30_ferplus_list", b"0/fer0032226.jpg\n\x89PNG\r\n", "row 2: found the byte 0x89"),
    ("pose_30_ferplus_list", b"\n" * (2**22 + 1), "found 4,194,305 bytes"),
    ("jianfei_occlusion_list", "1_fer0034656.png 8\r\n", "row 1.*such as '1_fer0034656.png 8 0'"),
    ("jianfei_occlusion_list", "1_fer0034656.png 8 4\r\n", "row 1: found type 4, expected 0 to 3"),
    ("rafdb_occlusion_list", "test_0003_aligned 7 4\r\n", "row 1: found label 7, expected 0 to 6"),
    ("rafdb_occlusion_list", "test_0003_aligned 6 0\r\n", "row 1: found type 0, expected 1 to 4"),
    ("occlusion_affectnet_list", "val/0/bc9ad400/\n", "row 1: found 'val/0/bc9ad400/'"),
    (
        "pose_45_affectnet_list",
        f"7/{HASHES[0]}/8.jpg\n3/{HASHES[1]}/8.jpg\n1/{HASHES[0]}/8.jpg\n",
        f"row 3: found {HASHES[0]} as happiness, and as contempt in row 1",
    ),
    ("val_raf_db_label", "0\n6\n", "row 1: found '0', expected '2 7'"),
    ("val_raf_db_label", "3 7\n0\n6\n", "row 1: found '3 7', expected '2 7'"),
    ("val_raf_db_label", "2 7\n0\n", "row 2: found 1 labels below the first row, expected 2"),
    ("val_raf_db_label", "2 7\n0\n6\n6\n", "row 4: found 3 labels below the first row, expected 2"),
    ("val_raf_db_label", "2 7\n0\n5\n", "row 3: found label '5', expected 6.* row 2 .*test_0006"),
    ("val_raf_db_label_45", "1 7\n٣\n", "row 2: found the byte 0xd9"),
]


@pytest.mark.parametrize(("stem", "content", "message"), BAD)
def test_what_is_wrong_with_a_list_is_said_with_its_file_and_row(tmp_path, stem, content, message):
    write_lists(tmp_path, **{stem: content})
    with pytest.raises(UserError, match=rf"{stem}\.txt.*{message}"):
        read_lists(tmp_path)


def test_list_without_its_label_file_is_read(tmp_path):
    write_lists(tmp_path, val_raf_db_label=None, val_raf_db_label_45=None)
    assert read_lists(tmp_path, "rafdb") == read_lists(write_lists(tmp_path / "all"), "rafdb")


def folder_of_owner(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"the files are not ours to pass on; set {variable} to the folder with them")
    return Path(folder)


def test_published_lists_have_the_published_counts():
    lists = read_lists(folder_of_owner("DMFER_LISTS"))
    assert len(lists) == 9
    for found in lists:
        assert len(found.entries) == found.published
        assert found.lines == found.published + len(found.repeated)
    repeated = {(f.dataset, f.name): len(f.repeated) for f in lists if f.repeated}
    assert repeated == {
        ("rafdb", "occlusion"): 1,
        ("affectnet", "pose_30"): 5,
        ("affectnet", "pose_45"): 2,
    }


def test_published_labels_agree_with_the_majority_of_ferplus_votes():
    lists = read_lists(folder_of_owner("DMFER_LISTS"), "ferplus")
    path = folder_of_owner("DMFER_FERPLUS") / "FER2013Test" / "label.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    votes = np.array([row[2:] for row in rows], int)
    targets = apply_protocol("majority", votes, votes)
    labels = {
        re.sub(r"\.png$", "", row[0]): label for row, label in zip(rows, targets.label, strict=True)
    }
    for found in lists:
        assert {e.key: labels[e.key] for e in found.entries} == {
            e.key: e.label for e in found.entries
        }
