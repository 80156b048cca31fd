"""What reads the files and flags of strangers, each with the inputs that it is fuzzed with.

A target takes a folder of its own and returns a function that feeds it one input. That function
returns where the input was taken, raises `UserError` where it was refused, and nothing else.
"""

import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from benchmarks import fuzz_written
from benchmarks.fuzz_checkpoints import open_record, record_inputs
from benchmarks.fuzz_inputs import edited, edited_json
from benchmarks.fuzz_overrides import command_lines, open_overrides
from benchmarks.fuzz_photos import open_photo, photo_inputs
from benchmarks.fuzz_weights import inputs as weights_inputs
from benchmarks.fuzz_weights import open_weights
from data_builders.affectnet import new_release, old_release
from data_builders.common.source_files import SourceFiles
from data_builders.ferplus import fer2013_files, votes_files
from data_builders.folder import division
from data_builders.rafdb import annotations, label_files
from dmfer_jax import loading
from dmfer_jax.data import lists
from dmfer_jax.errors import UserError
from dmfer_jax.weights.portable import load_portable, save_portable

Feed = Callable[[Any], None]


class Target(NamedTuple):
    """Something to fuzz.

    Attributes:
      inputs: draws what it is fed with.
      open: takes an empty folder, and returns what feeds an input.
    """

    inputs: st.SearchStrategy[Any]
    open: Callable[[Path], Feed]


def of_source(path: str, read: Callable[[SourceFiles, str], Any], **beside: bytes) -> Any:
    """Returns what opens a target that reads one file of a dataset as downloaded.

    Args:
      path: of the file, which gets each input as its content.
      read: takes the source and the path.
      **beside: the other files of the source, by their path.
    """

    def open_target(folder: Path) -> Feed:
        for name, content in {**beside, path: b""}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

        def feed(content: bytes) -> None:
            (folder / path).write_bytes(content)
            with SourceFiles(folder) as files:
                read(files, path)

        return feed

    return open_target


# The portable file


def _save_small(folder: Path) -> Path:
    """A sound file of a network of one layer."""
    path = folder / "small.safetensors"
    save_portable(path, fuzz_written.small_variables(), fuzz_written.small_manifest())
    return path


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _load(path: Path) -> None:
    manifest, _ = load_portable(path)
    loading.make_network(manifest)


def open_portable(folder: Path) -> Feed:
    """Feeds bytes as a whole file."""
    path = folder / "model.safetensors"

    def feed(content: bytes) -> None:
        path.write_bytes(content)
        _load(path)

    return feed


def open_header(folder: Path) -> Feed:
    """Feeds a header, as bytes or a value, before the right tensors."""
    _, data = _split(_save_small(folder).read_bytes())
    write = open_portable(folder)

    def feed(header: Any) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        write(_join(text, data))

    return feed


def open_manifest(folder: Path) -> Feed:
    """Feeds a manifest, as bytes or a value whose digest is made to fit."""
    header, data = _split(_save_small(folder).read_bytes())
    write = open_portable(folder)

    def feed(manifest: Any) -> None:
        if isinstance(manifest, dict):
            rest = {name: value for name, value in manifest.items() if name != "sha256"}
            text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
            manifest = {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        header["__metadata__"]["dmfer"] = text.decode("utf-8", "surrogateescape")
        write(_join(json.dumps(header).encode(), data))

    return feed


def _portable_targets(folder: Path) -> dict[str, Target]:
    content = _save_small(folder).read_bytes()
    header, _ = _split(content)
    text = header["__metadata__"]["dmfer"]
    of_json = json.dumps(header).encode()
    return {
        "portable file": Target(edited([content]), open_portable),
        "portable header": Target(st.one_of(edited([of_json]), edited_json(header)), open_header),
        "portable manifest": Target(
            st.one_of(edited([text.encode()]), *[edited_json(json.loads(text))] * 3), open_manifest
        ),
    }


# The lists published with RAN

_HASH = "bc9ad4" * 9 + "00"
LISTS: dict[str, bytes] = {
    "jianfei_occlusion_list.txt": b"1_fer0034656.png 8 0\r\n7_fer0033878.png 8 3\r\n",
    "pose_30_ferplus_list.txt": b"0/fer0032226.jpg\n6/fer0032228.jpg\n",
    "rafdb_occlusion_list.txt": b"test_0003_aligned 3 4\ntest_0006_aligned 0 1\n",
    "val_raf_db_list.txt": b"0/test_0004_aligned.jpg\n6/test_0006_aligned.jpg\n",
    "val_raf_db_label.txt": b"2 7\n0\n6\n",
    "occlusion_affectnet_list.txt": f"val/2/{_HASH}/\n".encode(),
    "pose_30_affectnet_list.txt": f"3/{_HASH}.jpg\n3/{_HASH}.jpg\n".encode(),
    "pose_45_affectnet_list.txt": f"4/{_HASH}/8.jpg\n".encode(),
}


def open_lists(folder: Path) -> Feed:
    """Feeds the content of one of the lists, the others being as published."""
    for name, content in LISTS.items():
        (folder / name).write_bytes(content)

    def feed(given: tuple[str, bytes]) -> None:
        name, content = given
        (folder / name).write_bytes(content)
        # Labels in a file of their own are read beside their list.
        asked = name.replace("_label", "_list")
        try:
            lists.read_lists(folder / asked)
        finally:
            (folder / name).write_bytes(LISTS[name])

    return feed


_LIST_INPUTS = st.sampled_from(sorted(LISTS)).flatmap(
    lambda name: st.tuples(st.just(name), edited([LISTS[name]]))
)


# FERPlus

_PIXELS = " ".join(str(number % 256) for number in range(48 * 48))
_FACES = f"emotion,pixels,Usage\n0,{_PIXELS},Training\n6,{_PIXELS},PublicTest\n".encode()
_KAGGLE = f"emotion, Usage, pixels\n3,PrivateTest,{_PIXELS}\n".encode()
_VOTES = (
    b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    b"Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10\n"
    b"PublicTest,fer0028638.png,6,0,1,1,0,0,1,1,0,0\n"
)
_LABELS = b'fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0\n'


def _read_votes(files: SourceFiles, path: str) -> None:
    votes_files.name_owners(votes_files.read_votes(files, path))


def _read_labels(files: SourceFiles, path: str) -> None:
    votes = votes_files.read_votes(files, "fer2013new.csv")
    votes_files.read_label_files(files, {"Training": path}, votes)


# AffectNet

_ANNOTATED = (
    b"subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    b"valence,arousal\n103/a.jpg,9,4,24,32,1;2,3,0.5,-0.25\n103/b.jpg,1,1,5,5,,8,-2,-2\n"
)
_PHOTOS = dict.fromkeys(
    (f"Manually_Annotated_Images/103/{name}.jpg" for name in "ab"), b"no reader opens it here"
)
_SET = {"train_set/images/0.jpg": b"", "train_set/annotations/0_val.npy": b""}
_EXPRESSION = "train_set/annotations/0_exp.npy"


def _read_annotated(files: SourceFiles, path: str) -> None:
    found = old_release.find_lists(files)
    for cropped in (False, True):
        _, _, problems = old_release.read_lists(files, found, cropped)
        _refuse(problems)


def _read_numbers(files: SourceFiles, path: str) -> None:
    """Reads the same bytes as an expression and as a valence."""
    new_release._label(files, path)
    new_release._affect(files, path)


def _npy(value: Any, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value), version)
    return stream.getvalue()


_NUMBERS = [_npy("1"), _npy(1), _npy(1.0), _npy(np.float16(0)), _npy(b"0"), _npy([1], (2, 0))]


# RAF-DB, and folders of a user's own

_ATTRIBUTES = b"1.5 2\n3 4\n5 6\n7 8\n9 10\n0\n2\n3\n"
_IMAGES = ("happy/1.jpg", "sad/1.jpg", "sad/2.jpg")


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError(problems[0])


def _read_attributes(files: SourceFiles, path: str) -> None:
    _refuse(annotations.read_attributes(files, ["train_00001"])[2])


def _read_box(files: SourceFiles, path: str) -> None:
    _refuse(annotations.read_boxes(files, ["train_00001"])[1])


def make_targets(folder: Path) -> dict[str, Target]:
    """Returns every target by its name.

    Args:
      folder: for files that inputs are made of.
    """
    return {
        **{name: Target(drawn, open_weights) for name, drawn in weights_inputs().items()},
        **_portable_targets(folder),
        **{name: Target(*both) for name, both in fuzz_written.targets(folder).items()},
        "photo": Target(photo_inputs(), open_photo),
        "checkpoint record": Target(record_inputs(), open_record),
        "RAN list": Target(_LIST_INPUTS, open_lists),
        "FER2013 csv": Target(
            edited([_FACES, _KAGGLE]), of_source("fer2013.csv", fer2013_files.read_faces)
        ),
        "FER+ votes csv": Target(edited([_VOTES]), of_source("fer2013new.csv", _read_votes)),
        "FER+ label csv": Target(
            edited([_LABELS]),
            of_source("FER2013Train/label.csv", _read_labels, **{"fer2013new.csv": _VOTES}),
        ),
        "AffectNet csv": Target(
            edited([_ANNOTATED]), of_source("training.csv", _read_annotated, **_PHOTOS)
        ),
        "AffectNet npy": Target(edited(_NUMBERS), of_source(_EXPRESSION, _read_numbers, **_SET)),
        "RAF-DB list": Target(
            edited([b"train_00001.jpg 5\ntest_0001.jpg 1\n"]),
            of_source("list_patition_label.txt", lambda f, _: label_files.read_list(f, [])),
        ),
        "RAF-DB csv": Target(
            edited([b"image,label\ntrain_00001_aligned.jpg,5\n"]),
            of_source(
                "train_labels.csv",
                lambda f, _: label_files.read_csv_files(f, ["5/train_00001_aligned.jpg"]),
            ),
        ),
        "RAF-DB attributes": Target(
            edited([_ATTRIBUTES]), of_source("train_00001_manu_attri.txt", _read_attributes)
        ),
        "RAF-DB box": Target(
            edited([b"1.5 2 30 40.25\n"]), of_source("train_00001_boundingbox.txt", _read_box)
        ),
        "groups csv": Target(
            edited([b"image,group\nhappy/1.jpg,a\nsad/1.jpg,b\n2.jpg,b\n"]),
            of_source("groups.csv", lambda f, path: division.read_groups(f, path, _IMAGES)),
        ),
        "config overrides": Target(command_lines(), open_overrides),
    }
