"""Rows of results: what they say of a run, and a file that never holds half of one."""

import threading
import time
from typing import Any

import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.reporting import rows
from tests.made_up import make_report


def made_rows(variant: str = "deep", seed: int = 0, **fields) -> list[dict[str, str]]:
    return rows.rows_of_report(
        make_report(seed=seed) | fields,
        experiment="tiny-parts",
        variant=variant,
        config_digest="0123456789ab",
        command="python -m dmfer_jax.train --config=configs/tiny.py --config.seed=0",
    )


def test_row_tells_the_score_and_how_to_come_to_it():
    first, *rest = made_rows()
    assert first == {
        "experiment": "tiny-parts",
        "variant": "deep",
        "seed": "0",
        "dataset": "ferplus",
        "protocol": "majority",
        "train_protocol": "votes",
        "train_splits": "train",
        "split": "valid",
        "epoch_rule": "last",
        "epoch": "2",
        "images": "4",
        "accuracy": "0.750000",
        "deduplicated_accuracy": "0.666667",
        "mean_class_accuracy": "0.500000",
        "macro_f1": "0.400000",
        "ece": "",  # undefined
        "stress_occlusion_accuracy": "0.550000",
        "stress_pose_accuracy": "0.350000",
        "stress_accuracy": "0.250000",
        "parameters": "1234",
        "hours": "0.5000",
        "cpu_hours": "0.9000",
        "machine": "2 cores, cpu",
        "commit": "v0-1-gabc",
        "config_digest": "0123456789ab",
        "command": "python -m dmfer_jax.train --config=configs/tiny.py --config.seed=0",
    }
    told = [(row["split"], row["epoch_rule"], row["epoch"], row["stress_accuracy"]) for row in rest]
    assert told == [
        ("test", "last", "2", ""),
        ("valid", "best-on-valid", "1", ""),
        ("test", "best-on-valid", "1", ""),
    ]


def test_row_names_the_processor_where_the_report_does():
    told = make_report()["environment"]
    (first, *_) = made_rows(environment={**told, "processor": "some, such"})
    assert first["machine"] == "2 cores of some, such, cpu"


def test_row_of_a_system_in_pytorch_names_the_device_that_it_was_on():
    (first, *_) = made_rows(environment={**make_report()["environment"], "torch_device": "H100"})
    assert first["machine"] == "2 cores, H100"


def test_appended_rows_are_read_back_and_stand_once(tmp_path):
    path = tmp_path / "sub" / "runs.csv"
    assert rows.read_rows(path) == []
    first, second = made_rows(), made_rows("+shallow", 1)
    rows.append_rows(path, first)
    rows.append_rows(path, second)
    rows.append_rows(path, first)
    found = rows.read_rows(path)
    assert len(found) == 8
    assert sorted(map(rows.row_key, found)) == sorted(map(rows.row_key, first + second))


def test_rows_that_are_added_at_the_same_time_are_all_there(tmp_path, monkeypatch):
    path, read = tmp_path / "runs.csv", rows.read_rows

    def read_slowly(path: Any) -> Any:
        found = read(path)
        time.sleep(0.02)
        return found

    monkeypatch.setattr(rows, "read_rows", read_slowly)
    threads = [
        threading.Thread(target=rows.append_rows, args=(path, made_rows("+shallow", seed)))
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row["seed"] for row in read(path)} == set("012345")
    assert list(tmp_path.iterdir()) == [path]


def test_line_that_was_cut_short_is_left_away_and_mended(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    rows.append_rows(path, made_rows())
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert rows.read_rows(path) == made_rows()[:3]
    assert "the last line was cut short" in capsys.readouterr().out
    rows.append_rows(path, made_rows())
    assert path.read_bytes() == whole


def test_interrupted_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "runs.csv"
    rows.append_rows(path, made_rows())
    before = path.read_bytes()

    def die(number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rows.os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        rows.append_rows(path, made_rows("+shallow"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed,accuracy\n0,1\n", r"line 1: the columns are not .* differs: .*variant"),
        (",".join(rows.COLUMNS) + "\n1,2\n", r"line 2: found 2 columns, expected 26"),
        (b"\xff\n", r"cannot be read as rows"),
    ],
)
def test_file_of_anything_else_is_refused_and_kept(tmp_path, text, message):
    path = tmp_path / "runs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        rows.append_rows(path, made_rows())
    assert path.read_bytes() == before


def test_what_covers_and_what_turns_a_face():
    assert set(rows.KINDS["stress_occlusion_accuracy"]) == {
        *("block", "eye_band", "mouth_band", "random_shape")
    }
    assert set(rows.KINDS["stress_pose_accuracy"]) == {"rotation", "perspective"}
