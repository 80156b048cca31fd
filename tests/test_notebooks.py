"""The notebooks run from top to bottom, as Jupyter runs them, on faces that the package draws."""

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def run_notebook(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., dict[str, str]]:
    """Returns what runs a notebook, all of them in one folder, and gives the text of each cell."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")

    def run(name: str, **settings: str) -> dict[str, str]:
        notebook: Any = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        cells = []
        for cell in notebook.cells:
            cells.append(cell)
            if cell.id == "parameters":
                text = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
                cells.append(nbformat.v4.new_code_cell(text))
            elif cell.cell_type == "code":  # a command that fails does not stop Jupyter
                cells.append(nbformat.v4.new_code_cell("assert not globals().get('_exit_code')"))
        notebook.cells = cells
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("HOME", str(home))  # of records
            patched.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            patched.setenv("JAX_PLATFORMS", "cpu")
            resources = {"metadata": {"path": str(folder)}}
            NotebookClient(notebook, resources=resources, timeout=600).execute()
        return {cell.id: text_of(cell) for cell in cells if cell.cell_type == "code"}

    return run


def text_of(cell: Any) -> str:
    """Returns what a cell printed and showed as text."""
    shown = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(output.get("text", "") for output in cell.outputs) + "".join(shown)


def test_train_on_tpu_trains_draws_and_exports(run_notebook):
    said = run_notebook("train_on_tpu.ipynb")
    assert re.search(r"^all +48 +16", said["prepare"], re.MULTILINE)
    assert "Report: dmfer/trial/report.json" in said["train-command"]
    assert "Image" in said["curves"]
    assert said["export-command"].startswith("dmfer/trial.safetensors: neutral, happiness")


def test_use_and_explain_tells_crops_and_a_photo(run_notebook):
    photo = ROOT / "tests" / "stored" / "astronaut.jpg"
    said = run_notebook("use_and_explain.ipynb", PHOTO=str(photo), MODEL="model.safetensors")
    assert said["predict"].count("faces/test_") == 16
    assert "'happiness':" in said["python-code"]
    assert "faces: 1" in said["photo-code"]
    assert all("Image" in said[cell] for cell in ("photo-code", "gradcam"))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compares with PyTorch")
def test_compare_with_pytorch_makes_a_table_of_three_systems(run_notebook):
    said = run_notebook("compare_with_pytorch.ipynb")
    assert "Markdown" in said["table-code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs_and_has_few_lines_of_its_own(path):
    notebook: Any = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell.id for cell in cells if cell.outputs or cell.execution_count]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("#")]) < 60
    assert "def " not in "\n".join(lines)
