"""Fuzzes the readers of what this package writes, and others write or mend by hand."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from benchmarks.fuzz_inputs import edited, edited_json
from dmfer_jax import loading
from dmfer_jax.data import preprocessing
from dmfer_jax.reporting import face_rows, predictions, report, rows
from dmfer_jax.weights import npz
from dmfer_jax.weights.portable import Manifest

_CLASSES = ("happy", "sad")
_FACE: dict[str, Any] = {
    "track": None,
    "expression": "sad",
    "probabilities": {"happy": 0.25, "sad": 0.75},
    "box": [1.0, 2.0, 30.5, 40.5],
    "landmarks": [[1.0, 2.0]] * 5,
    "score": 0.9,
}
_PHOTOS: tuple[dict[str, Any], ...] = (
    {"photo": "a, b.jpg", "faces": [_FACE, _FACE], "error": "", "seconds": None},
    {"photo": "c.jpg", "faces": [], "error": "c.jpg is empty", "seconds": None},
    {"photo": "d.mp4", "faces": [{**_FACE, "track": 2}], "error": "", "seconds": 0.5},
)


def of_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Callable[[bytes], None]]:
    """Returns what opens a target that reads one file.

    Args:
      name: of the file, which gets each input as its content.
      read: takes its path.
    """

    def open_target(folder: Path) -> Callable[[bytes], None]:
        def feed(content: bytes) -> None:
            (folder / name).write_bytes(content)
            read(folder / name)

        return feed

    return open_target


def _go_on(path: Path, kind: face_rows.Csv | face_rows.Json) -> None:
    """Opens rows of an interrupted run, and appends to them."""
    with face_rows.RowFile(path, kind, {"d.mp4"}) as file:
        file.write({**_PHOTOS[1], "width": 8, "height": 8, "note": ""})


def _load(path: Path) -> None:
    manifest, _ = npz.load_npz(path)
    loading.make_network(manifest)


def _rows_of_photos(kind: face_rows.Csv | face_rows.Json) -> bytes:
    beside = {"width": 64, "height": 48, "note": ""}
    return (kind.header + "".join(kind.format({**one, **beside}) for one in _PHOTOS)).encode()


def small_manifest() -> Manifest:
    """Returns that of a network of one layer, as far as its file can tell."""
    return Manifest(
        labels=_CLASSES,
        image_size=48,
        channels=1,
        preprocessing=preprocessing.describe(48, 1),
        model={"backbone": "resnet18", "width": 0.5, "learned_centers": False, "dtype": "float32"},
        training={"dataset": "folder/mine", "epoch": 1.5},
        scores=None,
        code_version="0.1.0",
    )


def small_variables() -> dict[str, Any]:
    """Returns the arrays of that network."""
    head = {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    return {"params": {"head": head}}


def _arrays(path: Path) -> st.SearchStrategy[bytes]:
    """Returns npz files, edited as a whole, or with one of their arrays edited."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}

    def put(name: str, content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for each, whole in entries.items():
                archive.writestr(each, content if each == name else whole)
        return stream.getvalue()

    of_one = st.sampled_from(sorted(entries)).flatmap(
        lambda name: edited([entries[name]]).map(lambda content: put(name, content))
    )
    return st.one_of(edited([path.read_bytes()]), of_one)


def _predictions(folder: Path) -> st.SearchStrategy[bytes]:
    said = predictions.Predictions(
        np.array(["1.png", "2.png"]), np.zeros(2, np.int32), np.full((2, 2), 0.5, np.float32)
    )
    predictions.write_run_predictions(folder / "predictions.npz", _CLASSES, {"valid": said})
    return _arrays(folder / "predictions.npz")


def _model(folder: Path) -> st.SearchStrategy[bytes]:
    npz.save_npz(folder / "model.npz", small_manifest(), small_variables())
    return _arrays(folder / "model.npz")


def _results() -> bytes:
    cells = dict.fromkeys(rows.COLUMNS, "1") | {"command": "python -m a --b='c, d'"}
    text = io.StringIO()
    lines = csv.DictWriter(text, rows.COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows([cells, {**cells, "seed": "2"}])
    return text.getvalue().encode()


def targets(folder: Path) -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Path], Any]]]:
    """Returns the inputs of each target, and what opens it.

    Args:
      folder: for files that inputs are made of.
    """
    as_csv, as_json = face_rows.Csv(_CLASSES), face_rows.Json(_CLASSES)
    a_report = {"checkpoints": {"last": {"epoch": 2.0, "splits": {}}}, "seed": 0, "config": {}}
    of_json = st.one_of(
        edited([json.dumps(a_report).encode()]),
        edited_json(a_report).map(lambda value: json.dumps(value).encode()),
    )
    said = b"name,label,happy,sad\n1.png,sad,0.25,0.75\n2.png,happy,1,0\n"
    return {
        "predictions csv": (
            edited([said, said.replace(b",label", b"").replace(b",sad,0", b",0")]),
            of_file("a.csv", lambda path: predictions.read_predictions(path, _CLASSES)),
        ),
        "predictions of a run": (
            _predictions(folder),
            of_file("a.npz", predictions.read_run_predictions),
        ),
        "model npz": (_model(folder), of_file("a.npz", _load)),
        "results csv": (edited([_results()]), of_file("runs.csv", rows.read_rows)),
        "report": (of_json, of_file("report.json", report.read_report)),
        "photo rows csv": (
            edited([_rows_of_photos(as_csv)]),
            of_file("a.csv", lambda path: _go_on(path, as_csv)),
        ),
        "photo rows json": (
            edited([_rows_of_photos(as_json)]),
            of_file("a.jsonl", lambda path: _go_on(path, as_json)),
        ),
    }
