"""`dmfer` and its subcommands, and what --help prints of each."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import dmfer_jax
from dmfer_jax import __main__ as console

PACKAGE = Path(dmfer_jax.__file__).parent
INTERNAL = {"compared_run"}  # started by another command only

# Other tests have imported what is run here once more.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


@pytest.fixture
def help_of(monkeypatch, capsys):
    """Returns what a subcommand's --help prints; flags that it defines are forgotten again."""
    before = set(flags.FLAGS)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", list(sys.argv))  # main sets it

    def run(name: str, *arguments: str) -> str:
        console.main([name, *arguments, "--help"])
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
        return capsys.readouterr().out

    return run


def test_each_entry_point_is_a_subcommand():
    entry_points = {
        path.stem
        for path in PACKAGE.glob("*.py")
        if re.search(r"^    command\.run\(", path.read_text(), re.MULTILINE)
    }
    assert entry_points - INTERNAL == set(console.COMMANDS)


def test_the_list_of_commands_names_each_with_a_line_and_imports_nothing(tmp_path):
    code = """
import sys
before = set(sys.modules)
from dmfer_jax.__main__ import main
main(["--help"])
main(["--version"])
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    for name in console.COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]\w+s ", said, re.MULTILINE), name
    *_, version, imported = said.splitlines()
    assert version == f"dmfer_jax {dmfer_jax.__version__}"
    assert set(ast.literal_eval(imported)) & {"jax", "numpy", "absl", "ml_collections"} == set()


@pytest.mark.parametrize(
    ("given", "hint"),
    [("trian", "did you mean train?"), ("compile-check", "did you mean compile_check?")],
)
def test_unknown_command_suggests_the_nearest(given, hint, capsys):
    with pytest.raises(SystemExit, match="2"):
        console.main([given])
    assert capsys.readouterr().err == f"error: there is no command '{given}'; {hint}\n"


@pytest.mark.parametrize("name", console.COMMANDS)
def test_help_has_a_purpose_examples_and_each_own_flag_but_no_other(name, help_of):
    said = help_of(name)
    source = (PACKAGE / f"{name}.py").read_text()
    assert said.startswith(f"usage: dmfer {name} ")
    assert (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0] in said
    assert len(re.findall(rf"^  (?:\w+=\w+ )?dmfer {name}\b", said, re.MULTILINE)) >= 2
    own = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
    if "distributed.define_flags()" in source:
        own |= {"coordinator", "processes", "process"}
    assert set(re.findall(r"^  --(?:\[no\])?(\w+)", said, re.MULTILINE)) == own | {"help"}
    assert str(PACKAGE.parent) not in said
    assert max(map(len, said.splitlines())) <= 100


def test_help_tells_kinds_of_values_and_defaults(help_of):
    told = " ".join(help_of("prepare").split())
    assert "--dataset=TEXT NAME or NAME/VARIANT;" in told
    assert "--source=FILE_OR_FOLDER The file or folder as downloaded. --" in told
    assert "--folder_order=raf|manet rafdb:" in told
    assert "no test folder is. (default: 0.2)" in told
    assert "--[no]verify Read every record again and check it. (default: no)" in told


def test_help_with_a_config_lists_its_fields(help_of):
    assert "--config.model.width=0.25\n" in help_of("train", "--config=configs/synthetic.py")
    with pytest.raises(SystemExit, match="2"):
        help_of("train", "--config=configs/nothing.py")


def test_a_missing_flag_is_named(capsys, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dmfer_jax", "explain"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "error: --figure, --workdir, --out must be given; --help tells more\n"
