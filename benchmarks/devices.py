"""Checks that devices and hosts change no result: one training over each number of them.

  python benchmarks/devices.py --out=results/devices.json

Over 1, 2, 4 and 8 virtual devices of one process, and over 2 processes with 2 devices each, which
`jax.distributed` joins over loopback. All begin with the same weights and read the same records.
Sums over a batch are added in another order on each, so in float32 the runs part slowly; float64
shows that nothing else differs. No time is measured.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measurements
from benchmarks.side_by_side import run
from dmfer_jax import compiling, distributed, sharding, state, steps
from dmfer_jax import config as configs
from dmfer_jax.building import ensure_built
from dmfer_jax.config import DATA_DIR
from dmfer_jax.data import pipeline, sources
from dmfer_jax.errors import UserError
from dmfer_jax.feeding import Feed
from dmfer_jax.models import resnet
from dmfer_jax.models.formulation import plain
from dmfer_jax.optimizer import make_optimizer, make_schedule

NETWORK: dict[str, Any] = {
    "data.dataset": "synthetic_faces/tiny",
    "data.image_size": 32,
    "model.stem": "small",
    "model.stem_stride": 2,
    "model.width": 0.125,
    "model.embedding": 16,
    "model.heads": 2,
    "optimizer.ema_decay": 0.9,
}
"""A narrow network on a few drawn faces, which trains in seconds."""

CHANGES: dict[str, Any] = {
    **NETWORK,
    "optimizer.warmup_epochs": 0.0,
    "train.batch_size": 16,
}
KINDS = ("params", "batch_stats", "centers", "ema")
FIRST = "1 device"


def main() -> None:
    """Trains over each number of devices in both types, prints a table and writes the report."""
    parser = argparse.ArgumentParser(description="Checks that devices change no result.")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--data_dir", default=DATA_DIR, help="where built records are kept")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    rate = options.learning_rate * 256 / CHANGES["train.batch_size"]
    settings = {
        "changes": {**CHANGES, "optimizer.learning_rate": rate, "data.data_dir": options.data_dir},
        "steps": options.steps,
        "types": ["float32", "float64"],
        # Compiling is nearly all of the time, and the networks are too small to gain from it.
        "jax": {"jax_disable_most_optimizations": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(train_all(settings, (1, 2, 4, 8), Path(folder)))
    shown = [
        [f"{row['layout']}, {row['type']}", "yes" if row["same_batches"] else "NO"]
        + [f"{row['differences'][kind]:.0e}" for kind in KINDS]
        for row in rows
    ]
    print(f"\nDifferences from {FIRST} after {options.steps} steps, as a share of each array's")
    print("largest value; the largest over all arrays\n")
    print(measurements.table(["over", "same batches", *KINDS], shown))
    told = {
        "steps": options.steps,
        "learning_rate": options.learning_rate,
        "changes": CHANGES,
        "jax": settings["jax"],
    }
    measurements.write(options.out, {**measurements.describe(), **told, "runs": rows})


def train_all(
    settings: dict[str, Any], meshes: Sequence[int], folder: Path, hosts: bool = True
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Trains over some numbers of devices of one process, and over two processes.

    Args:
      settings: `changes` of the config, `steps`, and `types` to compute in; with `quick`
        layers are XLA's and one block makes a stage, which compiles sooner; `jax` is options of it.
      meshes: numbers of devices, 1 first.
      folder: gets what each training left.
      hosts: whether to train over two processes, too.

    Returns:
      {(layout, type): arrays}, those of `train`.
    """
    configs_made = make_config(settings["changes"])
    ensure_built(configs_made.data.dataset, "", configs_made.data.data_dir)
    run_processes([{**settings, "devices": max(meshes), "meshes": list(meshes)}], folder)
    names = {f"1x{n}": f"{n} device{'s' * (n > 1)}" for n in meshes}
    if hosts:
        pair = {**settings, "devices": 2, "meshes": [4], "processes": 2}
        pair["coordinator"] = f"localhost:{free_port()}"
        run_processes([{**pair, "process": process} for process in range(2)], folder)
        names["2x4"] = "2 processes x 2 devices"
    found = {}
    for key, name in names.items():
        for dtype in settings["types"]:
            with np.load(folder / f"{key}-{dtype}.npz") as stored:
                found[name, dtype] = dict(stored)
    return found


def compare(found: dict[tuple[str, str], dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Compares what `train_all` returns with the training over one device, of each type.

    Returns:
      `layout`, `type`, `same_batches` (whether each step read the same records, in order),
      `differences` {kind: the largest share of an array's largest value} and `loss`, the largest
      relative difference of a step's loss.
    """
    rows = []
    for (layout, dtype), ours in found.items():
        if layout == FIRST:
            continue
        alone = found[FIRST, dtype]
        if ours.keys() != alone.keys():
            raise UserError(f"{layout} and {FIRST} left different arrays")
        rows.append(
            {
                "layout": layout,
                "type": dtype,
                "same_batches": bool(
                    np.array_equal(ours["positions"], alone["positions"])
                    and np.array_equal(ours["images"], alone["images"])
                ),
                "loss": float(np.max(np.abs(ours["losses"] - alone["losses"]) / alone["losses"])),
                "differences": {
                    kind: max(
                        _difference(ours[name], alone[name])
                        for name in alone
                        if name.startswith(kind)
                    )
                    for kind in KINDS
                },
            }
        )
    return rows


def run_processes(settings: Sequence[dict[str, Any]], folder: Path) -> None:
    """Runs `work` with each of these settings, all at a time, and waits for them.

    Raises:
      UserError: one of them failed; with what it said.
    """
    code = "import json, sys; from benchmarks.devices import work; work(json.loads(sys.argv[1]))"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps({**one, "folder": str(folder)})],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for one in settings
    ]
    said = [process.communicate(timeout=3600)[0] for process in started]
    failed = [text for process, text in zip(started, said, strict=True) if process.returncode]
    if failed:
        raise UserError(f"a training failed: {failed[0][-3000:]}")


def free_port() -> int:
    """Returns a port that nobody listens at."""
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def work(settings: dict[str, Any]) -> None:
    """What each process does: trains over each mesh in each type; process 0 keeps the arrays."""
    jax.config.update("jax_num_cpu_devices", settings["devices"])
    for name, value in settings.get("jax", {}).items():
        jax.config.update(name, value)
    config = make_config(settings["changes"])
    if settings.get("processes"):
        distributed.start(settings["coordinator"], settings["processes"], settings["process"])
    folder = ensure_built(config.data.dataset, "", config.data.data_dir)
    split = sources.load_split(folder, "train", config.data, train=True)
    with quick_network() if settings.get("quick") else nullcontext():
        for dtype in settings["types"]:
            first = draw_first_state(config, len(split.class_names), dtype)
            for number in settings["meshes"]:
                arrays = train(config, split, first, number, dtype, settings["steps"])
                if distributed.is_main():
                    name = f"{jax.process_count()}x{number}-{dtype}.npz"
                    np.savez(Path(settings["folder"]) / name, allow_pickle=False, **arrays)


@contextmanager
def quick_network() -> Iterator[None]:
    """Makes ResNet-18 a network that compiles in half the time: XLA's layers, half as many."""
    with plain(), mock.patch.dict(resnet.BACKBONES, resnet18=resnet.BACKBONES["resnet10"]):
        yield


def draw_first_state(config: Any, classes: int, dtype: str) -> state.TrainState:
    """Returns the state before the first step, with all its numbers of a type, on this host."""
    with jax.enable_x64(dtype == "float64"):
        model = state.make_model(config, classes).clone(dtype=dtype, param_dtype=dtype)
        optimizer = make_optimizer(config, make_schedule(config, 1))

        def cast(leaf: jax.Array) -> jax.Array:
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        init: Any = jax.jit(
            lambda: jax.tree.map(cast, state.init_state(config, model, optimizer)),
            compiler_options=compiling.init_options("cpu"),
        )
        return jax.device_get(init())


def train(
    config: Any, split: sources.Split, first: Any, devices: int, dtype: str, number: int
) -> dict[str, np.ndarray]:
    """Returns what a training over so many devices leaves.

    Args:
      config: of the experiment.
      split: to train on.
      first: the state before the first step, NumPy's arrays.
      devices: how many there are, of all processes.
      dtype: of the weights and of what is computed with them.
      number: of steps.

    Returns:
      The state's arrays by name; `losses` `[steps]`; `positions` `[steps, b]` of the records in
      the global batches, and `images` `[steps, 32]`, digests of their pixels on the devices.
    """
    with jax.enable_x64(dtype == "float64"):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        model = state.make_model(config, len(split.class_names)).clone(
            dtype=dtype, param_dtype=dtype
        )
        optimizer = make_optimizer(config, make_schedule(config, number))
        train_state: Any = jax.make_array_from_process_local_data(sharding.replicated(mesh), first)
        step: Any = steps.make_train_step(config, model, optimizer, mesh)
        batch_size, options = config.train.batch_size, {"seed": 0, "sampling": "natural"}
        feed = Feed(split, mesh, config.data.device_gib)
        batches = feed.train_batches(batch_size, start_step=0, workers=1, **options)
        host, hosts = jax.process_index(), jax.process_count()
        positions = pipeline.train_positions(
            split, batch_size // hosts, host=host, hosts=hosts, **options
        )
        losses, images, read = [], [], []
        distributed.wait_for_others()
        compiled: Any = None
        for _ in range(number):
            batch = next(batches)
            read.append(next(positions))
            images.append(hashlib.sha256(sharding.fetch(batch["image"]).tobytes()).digest())
            if compiled is None:
                compiled = step.lower(train_state, batch).compile()
                distributed.wait_for_others()
            train_state, scalars = compiled(train_state, batch)
            losses.append(scalars["loss"])
        return {
            **_named(train_state),
            "losses": np.array(jax.device_get(losses), np.float64),
            "images": np.array([list(digest) for digest in images], np.uint8),
            "positions": _side_by_side(np.stack(read), mesh),
        }


def make_config(changes: dict[str, Any]) -> Any:
    """Returns the base config with some fields changed."""
    config = configs.get_config()
    config.update_from_flattened_dict(changes)
    return config


def _named(train_state: state.TrainState) -> dict[str, np.ndarray]:
    """The arrays of a state that are compared, by their paths in it."""
    kinds = {kind: getattr(train_state, kind) for kind in KINDS}
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(kinds)
    }


def _side_by_side(positions: np.ndarray, mesh: Any) -> np.ndarray:
    """Puts the hosts' positions `[steps, b / hosts]` together: `[steps, b]`."""
    split = sharding.put_batch({"of_host": positions.T.copy()}, mesh)["of_host"]
    return sharding.fetch(split).T


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    largest = np.max(np.abs(theirs))
    return float(np.max(np.abs(ours - theirs)) / largest) if largest else float(np.max(ours != 0))


if __name__ == "__main__":
    run(main)
