"""What is compiled is kept where the user's cache is, unless the environment says otherwise."""

import errno
import json
import os
import subprocess
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from dmfer_jax import command

CODE = """
import json, os, sys
from dmfer_jax import command
if sys.argv[1] == "before":
    import jax
command._keep_compiled()
import jax
print(json.dumps([jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache]))
"""


def settings(when, environment):
    """Returns JAX's folder for what is compiled, and whether anything is kept, of a command."""
    environment = {"JAX_PLATFORMS": "cpu", **environment}
    arguments = [sys.executable, "-c", CODE, when]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("when", ["before", "after"])  # JAX is imported
def test_what_is_compiled_is_kept_in_the_users_cache(when, tmp_path):
    found = settings(when, {"HOME": str(tmp_path)})
    assert found == [str(tmp_path / ".cache/dmfer_jax/compiled"), True]


def test_the_environment_says_where_and_whether_it_is_kept(tmp_path):
    home, cache, own = (str(tmp_path / name) for name in ("home", "cache", "own"))
    of_user = {"HOME": home, "XDG_CACHE_HOME": cache}
    assert settings("after", of_user) == [f"{cache}/dmfer_jax/compiled", True]
    assert settings("after", {**of_user, "JAX_COMPILATION_CACHE_DIR": own}) == [own, True]
    kept_nowhere = settings("after", {**of_user, "JAX_ENABLE_COMPILATION_CACHE": "false"})
    assert not kept_nowhere[1]


def test_home_is_meant_by_a_tilde_that_a_shell_left_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    values = flags.FlagValues()
    flags.DEFINE_list("runs", [], "Several.", values)
    monkeypatch.setattr(flags, "FLAGS", values)
    given = ["train.py", "--workdir=~/runs", "--config.data.source=~", "--runs=~/a,~/b,c~,~"]
    kept = ["--note=~ about", "~/x.jpg", "--workdir=a,~/b"]
    assert command._with_home([*given, *kept]) == [
        "train.py",
        "--workdir=/home/ann/runs",
        "--config.data.source=/home/ann",
        "--runs=/home/ann/a,/home/ann/b,c~,/home/ann",
        *kept,
    ]


def test_nothing_is_kept_where_there_is_no_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    before = jax.config.values["jax_compilation_cache_dir"]
    command._keep_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.modle.width=1", 'Did you mean "model"'),
        ("--config.train.epochs=many", "config.train.epochs"),
        ("--wrokdir=x", "Did you mean: workdir"),
        ("--config.=x", "there is no config field ''"),
        ("--config.0b1=1", "there is no config field '0b1'; fields are set as --config.section.f"),
        ("-config.a\x86b", "there is no config field 'a"),
        ("--noconfig.model.width[0]", "there is no config field 'model.width[0]'"),
        ("--config.if=if", "if"),
        ("--noconfig.model.depthwise=true", "does not take an argument"),
    ],
)
def test_flag_that_cannot_be_is_one_plain_line(argument, message, monkeypatch, capsys):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "The experiment.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Where to.", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(sys, "argv", ["train.py", "--config=configs/synthetic.py", argument])
    with pytest.raises(SystemExit, match="2"):
        command._parse(sys.argv)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG])
def test_path_that_may_not_be_used_is_one_plain_line(number, capsys):
    def main(argv: object) -> None:
        raise OSError(number, os.strerror(number), "/there")

    with pytest.raises(SystemExit):
        command._guarded(main, [""], takes_files=False)
    way_out = "give another path, or the right to use it"
    assert capsys.readouterr().err == f"error: /there: {os.strerror(number)}; {way_out}\n"


def test_error_that_may_be_ours_keeps_its_traceback():
    def main(argv: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "/there")

    with pytest.raises(FileNotFoundError):
        command._guarded(main, [""], takes_files=False)


PIPE = """
"Prints a row."
import subprocess, sys
from absl import flags
from dmfer_jax import command

def main(argv):
    if argv[1] == "other":
        child = subprocess.Popen(["true"], stdin=subprocess.PIPE)
        child.wait()
        child.stdin.write(b"x")
        child.stdin.flush()
    print("row", flush=argv[1] == "at once")

command.run(main, takes_files=True)
"""


@pytest.mark.parametrize("argument", ["at once", "at the end", "--help"])
def test_command_ends_silently_with_whatever_reads_it(argument):
    reads, writes = os.pipe()
    os.close(reads)
    try:
        command = [sys.executable, "-c", PIPE, argument]
        done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_no_end_of_the_reader():
    done = subprocess.run([sys.executable, "-c", PIPE, "other"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr
