"""One experiment in JAX and in PyTorch, from the same first state, for the sides of a benchmark.

The first JAX side writes the state; every side begins with what was written. Each library is
imported by its own functions only.
"""
# pyright: reportMissingImports=false

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from benchmarks import matrix_product
from benchmarks.side_by_side import Side
from dmfer_jax import config as configs


class OurTraining(NamedTuple):
    """What a training in JAX begins with: state on the device, step, mesh, cost of an image."""

    state: Any
    step: Any
    mesh: Any
    forward_flops: int


def make_parser(description: str, cases: Sequence[str]) -> argparse.ArgumentParser:
    """Returns a parser with the flags of the benchmarks that time several cases and interpreters.

    Args:
      description: of the benchmark.
      cases: names; all but the one called "tiny" are measured unless told.
    """
    parser = argparse.ArgumentParser(description=description)
    real = [case for case in cases if case != "tiny"]
    parser.add_argument("--cases", nargs="+", choices=cases, default=real)
    parser.add_argument(
        "--python_jax",
        action="append",
        help="interpreter with dmfer_jax; may be given several times; the first is compared",
    )
    parser.add_argument("--python_torch", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    return parser


def read_flags(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Returns the flags given, without the ways of PyTorch (`--torch`) that cannot be had here."""
    options = parser.parse_args()
    options.python_jax = options.python_jax or [sys.executable]
    if "compiled" in options.torch and (reason := why_not_compiled()):
        print(f"torch.compile is left out: {reason}")
        options.torch = [way for way in options.torch if way != "compiled"]
    return options


def start_products(stack: ExitStack, options: argparse.Namespace) -> list[Side]:
    """Returns the sides that multiply matrices, of our first interpreter and of PyTorch's."""
    interpreters = {"jax": options.python_jax[0]}
    if options.torch:
        interpreters["torch"] = options.python_torch
    return matrix_product.start(stack, interpreters)


def describe_network(changes: dict[str, Any]) -> str:
    """Returns in words the network that changes to the base config make, with its images."""
    config = make_config(changes)
    stem = config.model.stem
    if stem == "small":
        stem += f" of stride {config.model.stem_stride}"
    return f"{config.data.image_size} pixels, {stem} stem, width {config.model.width:g}, float32"


def make_config(changes: dict[str, Any], file: str = "") -> ConfigDict:
    """Returns the experiment of a config file, or the base one, with changed fields.

    Args:
      changes: "section.field" -> value.
      file: as of `config.find_config`.
    """
    config = configs.load_config(file) if file else configs.get_config()
    config.update_from_flattened_dict(changes)
    configs.validate(config)
    return config


def write_first_state(path: Path, config: ConfigDict, num_classes: int) -> None:
    """Writes the network's first weights as a state dict, and the centers that it begins with.

    Args:
      path: of the .npz file.
      config: of the experiment; centers that are moved by rule.
      num_classes: K.
    """
    import jax

    from dmfer_jax import state
    from dmfer_jax.optimizer import make_optimizer, make_schedule
    from dmfer_jax.weights.pytorch import to_state_dict

    model = state.make_model(config, num_classes)
    optimizer = make_optimizer(config, make_schedule(config, 1))
    first = jax.jit(lambda: state.init_state(config, model, optimizer))()
    weights = to_state_dict({"params": first.params, "batch_stats": first.batch_stats})
    assert first.centers is not None
    arrays: Any = {f"w.{name}": array for name, array in weights.items()}
    np.savez(path, centers=np.asarray(first.centers), **arrays)


def load_ours(path: Path, config: ConfigDict, total_steps: int) -> OurTraining:
    """Returns the training in JAX that begins with the state written.

    Args:
      path: of `write_first_state`.
      config: the same as there.
      total_steps: which the learning rate comes down over.
    """
    import jax
    import jax.numpy as jnp

    from dmfer_jax import sharding, state, steps
    from dmfer_jax.models import summary
    from dmfer_jax.optimizer import make_optimizer, make_schedule
    from dmfer_jax.weights.pytorch import from_state_dict

    weights, centers = _read(path)
    variables = from_state_dict(weights)
    model = state.make_model(config, len(centers))
    optimizer = make_optimizer(config, make_schedule(config, total_steps))
    first = state.TrainState(
        step=jnp.zeros((), jnp.int32),
        **variables,
        centers=jnp.asarray(centers),
        opt_state=optimizer.init(variables["params"]),
        ema=jax.tree.map(np.copy, variables) if config.optimizer.ema_decay else None,
        skipped=jnp.zeros((), jnp.int32),
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    cost = summary.summarize(model, config.data.image_size, config.data.channels)
    return OurTraining(
        state=jax.device_put(first, sharding.replicated(mesh)),
        step=steps.make_train_step(config, model, optimizer, mesh),
        mesh=mesh,
        forward_flops=cost.flops,
    )


def give_back_memory() -> None:
    """Does what `dmfer_jax.train` does after its first step."""
    from dmfer_jax import compiling

    compiling.give_back_memory()


def load_trainer(path: Path, config: ConfigDict, total_steps: int, *, compile: bool) -> Any:
    """Returns the `dmfer_jax.pytorch.training.Trainer` that begins with the state written.

    Args:
      path: of `write_first_state`.
      config: the same as there.
      total_steps: which the learning rate comes down over.
      compile: whether it goes through torch.compile.
    """
    import torch

    from dmfer_jax.pytorch.model import make_model
    from dmfer_jax.pytorch.training import Trainer

    weights, centers = _read(path)
    model = make_model(config, len(centers))
    load_weights(model, weights)
    return Trainer(config, model, total_steps, centers=torch.from_numpy(centers), compile=compile)


def load_weights(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Gives a network in PyTorch all of its weights; only counters of batches may be missing."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of Python and of some packages."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def why_not_compiled() -> str:
    """Returns why torch.compile cannot be used; empty if it can."""
    compiler = os.environ.get("CXX", "")
    if any(shutil.which(name) for name in (compiler, "g++", "clang++") if name):
        return ""
    return "it needs a C++ compiler, and neither g++ nor clang++ is here; CXX may name another"


def _read(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        weights = {name[2:]: file[name] for name in file.files if name.startswith("w.")}
        return weights, file["centers"]
