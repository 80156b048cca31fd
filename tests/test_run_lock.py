"""One process at a time in the folder of a run."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from dmfer_jax import run_lock
from dmfer_jax.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from dmfer_jax import run_lock
with run_lock.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_told_who_the_first_is_until_that_one_dies(tmp_path, capsys):
    folder = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"in use by process {first.pid} on "):
        run_lock.lock(folder).__enter__()
    first.send_signal(signal.SIGKILL)
    first.wait()
    with run_lock.lock(folder):
        assert f"was left by process {first.pid} on " in capsys.readouterr().out
        assert f"process {os.getpid()} on" in (folder / "run.lock").read_text()
    assert not (folder / "run.lock").exists()


def test_folder_that_was_made_and_stayed_empty_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), run_lock.lock(tmp_path / "a" / "run"):
        _ = 1 / 0
    assert not (tmp_path / "a").exists()
    with run_lock.lock(tmp_path / "run"):
        (tmp_path / "run" / "config.json").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run cannot be used as --workdir: Not a directory"):
        run_lock.lock(tmp_path / "file" / "run").__enter__()


def test_names_that_are_no_utf8_are_spelt_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--workdir=caf\udce9"])
    with run_lock.lock(tmp_path / "run"):
        assert r"caf\udce9" in (tmp_path / "run" / "run.lock").read_text(encoding="utf-8")
        with pytest.raises(UserError, match=r"in use by process .*caf\\udce9"):
            run_lock.lock(tmp_path / "run").__enter__()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run.lock").write_bytes(b"caf\xe9")
    with run_lock.lock(tmp_path):
        assert r"was left by caf\xe9, which ended" in capsys.readouterr().out


def test_owner_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_lock, "_name_process", fail)
    with pytest.raises(UserError, match=r"run\.lock cannot be written: No space left on device"):
        run_lock.lock(tmp_path / "run").__enter__()
    assert not list(tmp_path.iterdir())
