"""Loads the programs that `python -m dmfer_jax.export` writes: StableHLO and ONNX.

Files of weights (.safetensors and .npz) are loaded by `dmfer_jax.load`, which compiles the network
for this machine. Programs hold the network as it was when they were written, need none of its code,
and run where that is not installed; `docs/export.md` says how.
"""

import os
from pathlib import Path
from typing import Any

from dmfer_jax.errors import UserError
from dmfer_jax.formats.program import Loaded, missing_package
from dmfer_jax.formats.stablehlo import load_stablehlo


def load_exported(path: str | os.PathLike[str]) -> Loaded:
    """Returns the program in a file, called as a `Predictor` is: with uint8 `[n, h, w, c]`.

    It is a program: load no file that you would not run.

    Args:
      path: of a file that ends with .stablehlo or .onnx.

    Raises:
      UserError: it is no such file, of another version, or damaged; or the packages to run it are
        not installed.
    """
    suffix = Path(path).suffix
    if suffix == ".stablehlo":
        return load_stablehlo(path)
    if suffix == ".onnx":
        return onnx_file().load_onnx(path)
    raise UserError(
        f"{path} is no program: names of those end with .stablehlo or .onnx. Weights (.safetensors "
        "and .npz) are loaded by dmfer_jax.load"
    )


def onnx_file() -> Any:
    """Returns the module that writes and loads ONNX files; others do without its packages.

    Raises:
      UserError: these are not installed.
    """
    try:
        from dmfer_jax.formats import onnx_file
    except ImportError as error:
        raise missing_package(error, "onnx") from None
    return onnx_file
