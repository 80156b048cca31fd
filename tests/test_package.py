"""The package as a user meets it: commands, their errors, and what is imported."""

import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import dmfer_jax
from dmfer_jax.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]


def run(*arguments: str, folder: Path, status: int = 0, **environment: str):
    """Runs Python in a folder and returns the finished process."""
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == status, process.stdout + process.stderr
    return process


def test_importing_the_package_pulls_in_nothing_heavy(tmp_path):
    code = "import dmfer_jax, dmfer_jax.labels, sys; print([m for m in sys.modules])"
    modules = run("-c", code, folder=tmp_path).stdout
    assert not [name for name in ("jax", "numpy", "tensorflow", "torch") if f"'{name}'" in modules]


def test_no_module_imports_tensorflow_or_torch(tmp_path):
    code = """
import importlib, pkgutil, sys, dmfer_jax, data_builders
for package in (dmfer_jax, data_builders):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith("dmfer_jax.pytorch"):  # the room that needs the torch extra
            importlib.import_module(module.name)
print(sorted({"tensorflow", "torch", "sklearn"} & set(sys.modules)))
"""
    assert run("-c", code, folder=tmp_path).stdout.strip() == "[]"


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, in functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("dmfer_jax/data", "data|labels|config|errors"),
        ("dmfer_jax/reporting", "reporting|metrics|labels|files|errors"),
        ("dmfer_jax/models", "models"),
        ("dmfer_jax/onnx_graph", "onnx_graph|models"),
        ("dmfer_jax/pytorch", "pytorch|loss_options|errors"),
        ("dmfer_jax/weights", "weights|models|reporting.plain_json|files|errors"),
        ("data_builders", "data.images|data.builds|labels|files|errors"),
    ],
)
def test_imports_point_down(room, allowed):
    ours = re.compile(r"dmfer_jax\b|data_builders\b")
    fine = re.compile(
        rf"dmfer_jax\.({allowed})\b" + r"|data_builders\b" * (room == "data_builders")
    )
    found = {(path.name, name) for path in (ROOT / room).rglob("*.py") for name in imports_of(path)}
    assert [one for one in sorted(found) if ours.match(one[1]) and not fine.match(one[1])] == []


def test_nothing_imports_an_entry_point_but_what_runs_others():
    commands = "|".join(COMMANDS)
    fine = {"compared_run.py"}  # trains and evaluates in one process
    found = {
        (path.name, name)
        for path in (ROOT / "dmfer_jax").rglob("*.py")
        for name in imports_of(path)
        if re.match(rf"dmfer_jax\.({commands})\b", name)
    }
    assert [one for one in sorted(found) if one[0] not in fine] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=configs/synthetic.py", "--config.train.epocs=3"], 'Did you mean "epochs"'),
        (["--config=configs/synthetic.py", "--config.model.stem=big"], "'imagenet', 'small'"),
        (["--config=configs/nothing.py"], "configs/ferplus.py"),
        (["--config=configs/synthetic.py", "train.epochs=3"], "flags look like --name=value"),
    ],
)
def test_wrong_flag_is_one_plain_line(tmp_path, arguments, expected):
    process = run("-m", "dmfer_jax.train", *arguments, folder=tmp_path, status=2)
    assert expected in process.stderr
    assert process.stderr.startswith("error: ")
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.iterdir())


def test_pixels_do_not_depend_on_opencv(data_dir, tmp_path):
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    code = """
import hashlib, sys
from pathlib import Path
if sys.argv[2] == "without":
    sys.modules["cv2"] = None  # TFDS decodes in another way where it cannot be imported
from dmfer_jax.config import get_config
from dmfer_jax.data.sources import load_split
split = load_split(Path(sys.argv[1]), "valid", get_config().data, train=False)
print(hashlib.sha256(split.images.tobytes()).hexdigest())
"""
    found = {
        run("-c", code, str(folder), how, folder=tmp_path).stdout for how in ("with", "without")
    }
    assert len(found) == 1


def test_ferplus_without_files_says_what_to_get_and_leaves_nothing(tmp_path):
    data_dir = tmp_path / "records"
    process = run(
        "-m",
        "dmfer_jax.train",
        "--config=configs/ferplus_cpu.py",
        f"--config.data.source={tmp_path / 'nowhere'}",
        f"--config.data.data_dir={data_dir}",
        folder=tmp_path,
        status=2,
    )
    assert "error: " in process.stderr
    assert "nowhere" in process.stderr
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.rglob("*"))


def test_evaluate_ends_with_one_line_of_json(finished, tmp_path):
    workdir, report = finished
    process = run(
        "-m",
        "dmfer_jax.evaluate",
        f"--workdir={workdir}",
        "--checkpoint=best",
        "--splits=valid,test",
        folder=tmp_path,
        JAX_NUM_CPU_DEVICES="1",
    )
    line = json.loads(process.stdout.splitlines()[-1])
    found = line["checkpoints"]["best"]["splits"]
    assert list(found) == ["valid", "test"]
    expected = report["checkpoints"]["best"]["splits"]["test"]
    assert found["test"]["accuracy"] == expected["accuracy"]
    assert found["test"]["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert (workdir / "evaluation" / "best_valid_test.json").is_file()


def test_ci_runs_on_each_version_of_python_that_is_promised():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(classifiers))
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == promised
    assert job["steps"][-1] == {"run": ".ci/run"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of this checkout and the wheel that is made from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    run("-m", "build", "--no-isolation", "--outdir", str(folder), folder=ROOT)
    return folder


def names_in_wheel(folder: Path) -> dict[str, int]:
    """Returns the sizes in bytes of the files in a folder's only wheel."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.file_size for one in archive.infolist()}


def test_sdist_makes_the_same_wheel_as_the_checkout_with_nothing_unwanted(built, tmp_path):
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), folder=ROOT)
    sizes = names_in_wheel(tmp_path)
    assert names_in_wheel(built) == sizes
    assert {name.partition("/")[0].partition("-")[0] for name in sizes} == {
        "dmfer_jax",
        "data_builders",
    }
    for name in (
        "dmfer_jax/configs/ferplus.py",
        "data_builders/ferplus/ferplus_dataset_builder.py",
        "data_builders/ferplus/CITATIONS.bib",
        "dmfer_jax/web/index.html",
        "dmfer_jax/web/page.css",
        "dmfer_jax/web/page.js",
    ):
        assert name in sizes
    for folder, file in (("dlib_face", "face_recognition_model.bin"), ("centerface", ".onnx")):
        weights = {name for name in sizes if name.startswith(f"dmfer_jax/weights/{folder}/")}
        for end in ("README.md", "LICENSE", file):
            assert any(name.endswith(end) for name in weights), (folder, end)
    # Weights alone are large: faces to begin with, a finder, and a model of at most 12 MB.
    assert sum(sizes.values()) < 32e6
    assert not [name for name in sizes if re.search(r"__pycache__|\.pyc|\.tmp|test_", name)]

    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {Path(one).parts[1] for one in archive.getnames()}
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tops - {"PKG-INFO", "pyproject.toml", ".gitignore"} == set(
        tools["hatch"]["build"]["targets"]["sdist"]["include"]
    )


def test_installed_wheel_runs_its_commands_from_an_empty_folder(built, finished, tmp_path):
    (wheel,) = built.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site))
    run(*install, str(wheel), folder=tmp_path)

    def dmfer(*arguments: str) -> str:
        return run(
            str(site / "bin" / "dmfer"),
            *arguments,
            folder=empty,
            PYTHONPATH=str(site),  # before the checkout, which may be installed as well
        ).stdout

    located = "import dmfer_jax; print(dmfer_jax.__file__)"
    where = run("-c", located, folder=empty, PYTHONPATH=str(site)).stdout
    assert where.startswith(str(site))
    assert dmfer("--version") == f"dmfer_jax {dmfer_jax.__version__}\n"
    assert "--config.model.width=0.25" in dmfer("train", "--config=synthetic.py", "--help")
    counts = dmfer("prepare", "--dataset=synthetic_faces/tiny", f"--data_dir={tmp_path}")
    assert re.search(r"^all +48 +16 +16", counts, re.MULTILINE)
    dmfer("export", f"--workdir={finished[0]}", "--out=model.safetensors")
    photo = str(ROOT / "tests" / "stored" / "astronaut.jpg")
    rows = dmfer("predict", photo, "--model=model.safetensors", "--format=json").splitlines()
    assert len(json.loads(rows[-1])["faces"]) == 1
    assert {path.name for path in empty.iterdir()} == {"model.safetensors"}


def test_citation_is_of_this_version():
    said = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dmfer_jax.__version__}\n" in said
    assert "doi: 10.1088/1361-6501/ad191c" in said
