"""Predictions as files: what is written is read back, and what cannot be right is refused."""

from pathlib import Path

import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.predictions import (
    Predictions,
    read_predictions,
    read_run_predictions,
    write_predictions,
    write_run_predictions,
)

CLASSES = ("neutral", "happiness", "name")  # the last as a folder may be called
NAMES = ["a.png", 'b,"c".png', "ü\n.png", "row 7"]


def draw_probabilities() -> np.ndarray:
    values = np.random.default_rng(0).dirichlet(np.ones(3), size=4).astype(np.float32)
    values[3] = (1, 0, 0)
    return values


@pytest.mark.parametrize("labels", [None, ["neutral", "name", "name", "happiness"]])
def test_written_predictions_are_read_back_to_the_last_bit(tmp_path, labels):
    path, probabilities = tmp_path / "said.csv", draw_probabilities()
    write_predictions(path, NAMES, CLASSES, probabilities, labels)
    names, found = read_predictions(path, CLASSES)
    assert names == NAMES
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, probabilities)


def read_text(folder: Path, text: str | bytes) -> tuple[list[str], np.ndarray]:
    path = folder / "said.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_predictions(path, ("sad", "glad"))


def test_columns_are_found_by_name_in_a_spreadsheets_file(tmp_path):
    names, found = read_text(tmp_path, "\ufeffname,glad,sad\r\na,0.25,0.75\r\n\r\nb,1e0,0\r\n")
    assert names == ["a", "b"]
    np.testing.assert_array_equal(found, [[0.75, 0.25], [0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the header is not there; expected name,sad,glad"),
        ("a,0.5,0.5\n", r"line 1: the header begins with 'a'; expected name,sad,glad"),
        ("name,sad\na,1\n", r"line 1: the header lacks 'glad'"),
        ("name,sad,glad,angry\na,1,0,0\n", r"line 1: the header has 'angry'"),
        ("name,sad,glad,sad\na,1,0,0\n", r"line 1: the header has twice 'sad'"),
        ("name,label,sad\na,sad,1\n", r"line 1: the header lacks 'glad'"),
        ("name,sad,glad\n", r"a header and no rows"),
        ("name,sad,glad\na,0.5\n", r"line 2: found 2 columns; the header has 3"),
        ("name,sad,glad\na,0.5,0.6\n", r"line 2: the probabilities sum to 1.1; expected 1"),
        ("name,sad,glad\na,1,0\nb,2,-1\n", r"line 3: found '2' for sad; expected a probability"),
        ("name,sad,glad\na,1,nan\n", r"line 2: found 'nan' for glad"),
        ("name,sad,glad\na,1,\n", r"line 2: found '' for glad"),
        ("name,sad,glad\na,1,0\n,1,0\n", r"line 3: the name is empty"),
        ("name,sad,glad\na,1,0\na,1,0\n", r"line 3: the name 'a' stands in line 2, too"),
        (b"name,sad,glad\n\xff,1,0\n", r"expected a CSV file in UTF-8"),
        ('name,sad,glad\n"a,1,0\n', r"expected a CSV file in UTF-8"),
    ],
)
def test_file_that_cannot_be_right_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_text(tmp_path, text)


def test_predictions_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.csv cannot be read .*: No such file"):
        read_predictions(tmp_path / "nothing.csv", CLASSES)
    with pytest.raises(UserError, match=r"nothing\.npz: no such file; a run writes it"):
        read_run_predictions(tmp_path / "nothing.npz")


def test_run_keeps_what_it_said_of_every_split(tmp_path):
    path, probabilities = tmp_path / "predictions.npz", draw_probabilities()
    splits = {
        "valid": Predictions(np.array(NAMES), np.array([0, 1, 2, 0], np.int32), probabilities),
        "test": Predictions(np.array(["x"]), np.array([2], np.int32), probabilities[:1]),
    }
    write_run_predictions(path, CLASSES, splits)
    class_names, found = read_run_predictions(path)
    assert class_names == CLASSES
    assert list(found) == ["valid", "test"]
    for split in splits:
        for written, read in zip(splits[split], found[split], strict=True):
            np.testing.assert_array_equal(written, read)


def test_damaged_predictions_of_a_run_are_refused(tmp_path):
    path = tmp_path / "predictions.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(UserError, match="cannot be read as predictions of a run"):
        read_run_predictions(path)
    one = Predictions(np.array(["a"]), np.array([0, 1], np.int32), draw_probabilities()[:2])
    write_run_predictions(path, CLASSES, {"valid": one})
    with pytest.raises(UserError, match=r"'valid' has 1 names, 2 labels .*\(2, 3\); expected \(2"):
        read_run_predictions(path)
