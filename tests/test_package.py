"""The package as a user meets it: commands, their errors, and what is imported."""

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str, folder: Path, status: int = 0, **environment: str):
    """Runs Python in a folder and returns the finished process."""
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        # A cache of its own: tests leave nothing where the user keeps what was compiled.
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder), **environment},
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
        ("dmfer_jax/reporting", "reporting|metrics|labels|errors"),
        ("dmfer_jax/models", "models"),
        ("dmfer_jax/onnx_graph", "onnx_graph|models"),
        ("dmfer_jax/pytorch", "pytorch|loss_options|errors"),
        ("dmfer_jax/weights", "weights|models|reporting.plain_json|errors"),
        ("data_builders", "data.images|data.builds|labels|errors"),
    ],
)
def test_imports_point_down(room, allowed):
    ours = re.compile(r"dmfer_jax\b|data_builders\b")
    fine = re.compile(
        rf"dmfer_jax\.({allowed})\b" + r"|data_builders\b" * (room == "data_builders")
    )
    found = {(path.name, name) for path in (ROOT / room).rglob("*.py") for name in imports_of(path)}
    assert [one for one in sorted(found) if ours.match(one[1]) and not fine.match(one[1])] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=configs/synthetic.py", "--config.train.epocs=3"], 'Did you mean "epochs"'),
        (["--config=configs/synthetic.py", "--config.modle.width=1"], 'Did you mean "model"'),
        (["--config=configs/synthetic.py", "--config.train.epochs=many"], "config.train.epochs"),
        (["--config=configs/synthetic.py", "--config.model.stem=big"], "'imagenet', 'small'"),
        (["--config=configs/nothing.py"], "configs/ferplus.py"),
        (["--config=configs/synthetic.py", "--wrokdir=x"], "Did you mean: workdir"),
        (["--config=configs/synthetic.py", "train.epochs=3"], "flags look like --name=value"),
        ([], "--config"),
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


def test_wheel_holds_builders_and_configs_and_works_from_another_folder(tmp_path):
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), folder=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    names = {str(path.relative_to(installed)) for path in installed.rglob("*")}
    assert "dmfer_jax/configs/ferplus.py" in names
    assert "data_builders/ferplus/ferplus_dataset_builder.py" in names
    assert "data_builders/ferplus/CITATIONS.bib" in names
    assert {f"dmfer_jax/web/page.{kind}" for kind in ("css", "js")} <= names
    for folder, file in (("dlib_face", "face_recognition_model.bin"), ("centerface", "*.onnx")):
        weights = installed / "dmfer_jax" / "weights" / folder
        assert all(list(weights.glob(name)) for name in ("README.md", "LICENSE", file))

    code = """
import sys
sys.path = [p for p in sys.path if "__editable__" not in p]
sys.meta_path = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.path.insert(0, sys.argv[1])
import dmfer_jax.config
assert dmfer_jax.__file__.startswith(sys.argv[1]), dmfer_jax.__file__
config = dmfer_jax.config.load_config("configs/ferplus_cpu.py")
dmfer_jax.config.validate(config)
from data_builders.synthetic_faces.synthetic_faces_dataset_builder import Builder
Builder(config="tiny", data_dir=sys.argv[2], file_format="array_record").download_and_prepare()
print("built")
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    process = run("-c", code, str(installed), str(tmp_path / "data"), folder=empty)
    assert process.stdout.splitlines()[-1] == "built"
