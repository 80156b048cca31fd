"""Logs of interrupted runs read as if nothing had happened."""

import importlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.writers import JsonlLog, RunLog, TensorBoardLog, read_jsonl


def log_steps(path, resume_step, steps):
    log = JsonlLog(path, resume_step)
    for step in steps:
        log.write(step, loss=step / 10)
    log.close()


def test_resumed_log_has_every_step_once_and_no_gap(tmp_path):
    log_steps(tmp_path / "resumed.jsonl", 0, [1, 2, 3, 4, 5])
    log_steps(tmp_path / "resumed.jsonl", 3, [4, 5, 6])
    log_steps(tmp_path / "whole.jsonl", 0, [1, 2, 3, 4, 5, 6])
    assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    "torn", [b'{"step": 3, "lo', b"{", b'{"step": 3, "name": "\xc3', b"\0\0\0"]
)
def test_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    log_steps(path, 0, [1, 2])
    with path.open("ab") as file:
        file.write(torn)
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]
    log_steps(path, 2, [3])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_whole_last_line_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    log_steps(path, 2, [3])
    assert [row["step"] for row in read_jsonl(path)] == [1, 2, 3]


def test_new_run_forgets_a_log_without_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    log_steps(path, 0, [1, 2])
    log_steps(path, 0, [1])
    assert [row["step"] for row in read_jsonl(path)] == [1]


def test_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: found .*loss.* expected"):
        read_jsonl(path)


def test_line_is_on_disk_before_the_log_is_closed(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl", 0)
    log.write(1, loss=0.5)
    assert read_jsonl(tmp_path / "log.jsonl") == [{"step": 1, "loss": 0.5}]
    log.close()


def test_array_scalars_become_numbers_and_nan_becomes_null(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl", 0)
    log.write(
        7,
        epoch=np.int64(2),
        loss=np.float32(0.5),
        grad_norm=float("nan"),
        accuracy=np.array(np.inf),
    )
    log.close()
    row = {"step": 7, "epoch": 2, "loss": 0.5, "grad_norm": None, "accuracy": None}
    assert read_jsonl(tmp_path / "log.jsonl") == [row]


def test_missing_log_reads_as_empty(tmp_path):
    assert read_jsonl(tmp_path / "none.jsonl") == []


def test_run_log_writes_rows_with_kind_and_step(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write(1, "train", epoch=1, loss=2.0)
        log.write(1, "eval", epoch=1, split="valid", accuracy=0.25)
    assert read_jsonl(tmp_path / "metrics.jsonl") == [
        {"step": 1, "kind": "train", "epoch": 1, "loss": 2.0},
        {"step": 1, "kind": "eval", "epoch": 1, "split": "valid", "accuracy": 0.25},
    ]


def test_tensorboard_has_the_scalars_and_hides_steps_beyond_the_resumed_one(tmp_path):
    with RunLog(tmp_path, 3) as log:
        log.write(4, "train", epoch=1, loss=0.5, note="no curve")
        log.write(4, "eval", split="valid", accuracy=0.25, ece=None)
    events = read_events(tmp_path / "tensorboard")
    points = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
    assert points == {
        "train/epoch": (4, 1.0),
        "train/loss": (4, 0.5),
        "eval_valid/accuracy": (4, 0.25),
    }
    # TensorBoard drops points of older files from the step of a session's start on.
    assert [e.step for e in events if e.HasField("session_log")] == [4]


def read_events(folder):
    event_type = importlib.import_module("tensorboardX.proto.event_pb2").Event
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # a record: length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            events.append(event_type.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_one_of_several_processes_writes(tmp_path):
    with RunLog(tmp_path, 0, writes=False) as log:
        log.write(1, kind="train", loss=1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_full_disk_is_named_once_and_the_log_can_be_closed(tmp_path):
    log = JsonlLog(tmp_path / "metrics.jsonl", 0)
    with open("/dev/full", "wb", buffering=0) as full:
        os.dup2(full.fileno(), log._file.fileno())
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written: No space left on dev"):
        log.write(1, loss=0.5)
    log.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_curves_whose_writer_ended_are_not_waited_for(tmp_path):
    log = TensorBoardLog(tmp_path, 0)
    writer: Any = log._writer._get_file_writer()
    worker = writer.event_writer._worker
    worker._record_writer = None  # what it does next fails, as on a full disk
    log.write(1, loss=0.5)
    worker.join(60)
    with pytest.raises(UserError, match="cannot be written any more; is the disk full"):
        log.write(2, loss=0.5)


def test_logs_on_a_full_disk_end_in_plain_words(tmp_path):
    script = """
import resource, signal, sys
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.writers import RunLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file of 300 bytes is full, as a disk would be
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    with RunLog(sys.argv[1], 0) as log:
        for step in range(1, 100):
            log.write(step, "train", loss=0.5)
except UserError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "cannot be written: File too large" in done.stdout
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) > 1
