"""Times DMFER's training step: ours and PyTorch's, eager and compiled, in turn.

  python benchmarks/train_step.py --python_jax=python3.12 --python_torch=python3.11 \\
      --out=results/train_step.json

The recipe is that of `dmfer_jax.config`: SGD with Nesterov momentum, clipping, cross-entropy and
the center cosine loss with centers moved by rule, float32, without augmentation. All sides begin
with the same weights and see the same batch, and their first losses must agree. Ours gets bytes,
and normalises them in the step; PyTorch gets normalised floats. Have nothing else running.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import both_networks, matrix_product, measurements
from benchmarks.side_by_side import Side, Turn, print_round, run, take_turns

CASES: dict[str, dict[str, Any]] = {
    "112": {"data.image_size": 112, "train.batch_size": 32, "model.stem": "imagenet"},
    "48": {
        "data.image_size": 48,
        "train.batch_size": 128,
        "model.stem": "small",
        "model.stem_stride": 2,
    },
    "tiny": {  # for a look at whether everything works
        "data.image_size": 32,
        "train.batch_size": 8,
        "model.stem": "small",
        "model.stem_stride": 2,
        "model.width": 0.125,
        "model.embedding": 16,
        "model.heads": 2,
    },
}
"""Name -> what it changes in the base config."""

NUM_CLASSES = 8
TOTAL_STEPS = 10_000  # so the learning rate stays at its peak for the few steps done here
COMPARED_STEPS = 5
LOSS_TOLERANCE = 1e-3  # relative; float32 sums in another order differ by some 1e-5 at once


def main() -> None:
    """Measures the cases, prints a table for each and writes the report."""
    options = read_flags()
    report: dict[str, Any] = {**measurements.describe(), "dtype": "float32", "cases": []}
    for name in options.cases:
        measured = measure(name, options)
        report["cases"].append(measured)
        print(f"\n{describe_case(measured)}\n\n{case_table(measured)}", flush=True)
    measurements.write(options.out, report)


def read_flags() -> argparse.Namespace:
    """Returns the flags of the command."""
    parser = both_networks.make_parser("Times the training step, side by side.", list(CASES))
    parser.add_argument(
        "--torch",
        nargs="*",
        choices=("eager", "compiled"),
        default=("eager", "compiled"),
        help="which ways of PyTorch to compare with",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5, help="of each side in a round")
    return both_networks.read_flags(parser)


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one case.

    Raises:
      UserError: a side failed, or the sides do not compute the same.
    """
    print(f"\n{case}: preparing the sides (compiling takes a minute or two) ...", flush=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        given = {"changes": changes(case), "first_state": f"{folder}/first_state.npz"}
        sides = []
        for index, python in enumerate(options.python_jax):
            name = "ours" if index == 0 else f"ours, interpreter {index + 1}"
            arguments = {**given, "side": "ours", "writes": index == 0}
            sides.append(
                stack.enter_context(Side(name, python, "benchmarks.train_step", arguments))
            )
        for way in options.torch:
            arguments = {**given, "side": "torch", "compile": way == "compiled"}
            side = Side(f"torch {way}", options.python_torch, "benchmarks.train_step", arguments)
            sides.append(stack.enter_context(side))
        measurements.check_same_losses(
            {side.name: side.facts["losses"] for side in sides}, LOSS_TOLERANCE
        )
        products = both_networks.start_products(stack, options)

        def request(side: Side, number: int) -> dict[str, Any]:
            del number
            if side in products:
                return {"products": matrix_product.PRODUCTS}
            return {"steps": options.steps}

        answers = take_turns([*sides, *products], options.rounds, request, print_round)
        seconds = {name: [turn["seconds"] for turn in turns] for name, turns in answers.items()}
        return {
            "case": case,
            "changes": changes(case),
            "matrix_product_gflops": matrix_product.rates(products, answers),
            "sides": [describe_side(side, seconds, sides[0].name) for side in sides],
        }


def changes(case: str) -> dict[str, Any]:
    """Returns a case's changes to the base config: nothing random in a step, and no warm-up.

    The learning rate is a tenth: at the full one, rounding alone sets losses apart within steps.
    """
    off = {
        f"augment.{name}": 0.0
        for name in ("flip", "rotation", "shift", "scale", "erase", "brightness", "contrast")
    }
    return {
        **off,
        "optimizer.warmup_epochs": 0.0,
        "optimizer.learning_rate": 0.01,
        **CASES[case],
    }


def describe_side(side: Side, seconds: dict[str, Any], ours: str) -> dict[str, Any]:
    """Returns what one side measured; the ratio is that of our first side to it."""
    rounds = seconds[side.name]
    described = {
        "side": side.name,
        **side.facts,
        "peak_mib_of_steps": side.peak_mib(),
        "step_seconds": measurements.summarize([time for times in rounds for time in times]),
        "rounds": [[round(time, 6) for time in times] for times in rounds],
    }
    if side.name != ours:
        described["ours_is_faster_by"] = measurements.ratio(seconds[ours], rounds)
    return described


def describe_case(measured: dict[str, Any]) -> str:
    """Returns a case in words, with the ceiling."""
    changed = measured["changes"]
    return (
        f"Batch {changed['train.batch_size']}, {both_networks.describe_network(changed)}. "
        f"{matrix_product.describe(measured['matrix_product_gflops'])}"
    )


def case_table(measured: dict[str, Any]) -> str:
    """Returns a case's sides as a table in Markdown."""
    flops = 3 * measured["sides"][0]["forward_flops"] * measured["changes"]["train.batch_size"]
    ceiling = max(measured["matrix_product_gflops"].values())
    rows = []
    for side in measured["sides"]:
        rate = flops / side["step_seconds"]["median"] / 1e9
        faster = side.get("ours_is_faster_by")
        rows.append(
            [
                measurements.named(side),
                measurements.spread(side["step_seconds"], 1, 1e3),
                f"{rate:.0f}",
                f"{rate / ceiling:.0%}",
                f"{side['peak_mib_of_steps'] or 0:,.0f}",
                measurements.spread(faster) if faster else "",
            ]
        )
    columns = ["side", "step in ms", "GFLOP/s", "of ceiling", "peak MiB", "ours is faster by"]
    return measurements.table(columns, rows)


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes a side ready: compiled, and the first steps done.

    Args:
      options: `side`, "ours" or "torch"; `changes`, `first_state`; `writes` and `compile`.

    Returns:
      Facts, with the `losses` of the first steps; and the turn: takes `steps`, returns `seconds`.
    """
    config = both_networks.make_config(options["changes"])
    path = Path(options["first_state"])
    if options["side"] == "ours":
        facts, step = prepare_ours(config, path, options["writes"])
    else:
        facts, step = prepare_torch(config, path, options["compile"])
    began = time.perf_counter()
    losses = [step()]
    first = time.perf_counter() - began
    losses += [step() for _ in range(COMPARED_STEPS - 1)]
    if options["side"] == "ours":
        both_networks.give_back_memory()

    def turn(steps: int) -> dict[str, Any]:
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}

    return {**facts, "losses": losses, "first_step_seconds": round(first, 2)}, turn


def prepare_ours(config: Any, path: Path, writes: bool) -> tuple[dict[str, Any], Any]:
    """Returns facts, and a function that does a step and returns its loss."""
    import jax

    from dmfer_jax import sharding

    if writes:
        both_networks.write_first_state(path, config, NUM_CLASSES)
    ours = both_networks.load_ours(path, config, TOTAL_STEPS)
    images, targets = draw_batch(config)
    batch = sharding.put_batch({"image": images, "target": targets}, ours.mesh)
    train_state = ours.state

    def step() -> float:
        nonlocal train_state
        train_state, scalars = ours.step(train_state, batch)
        # The whole state: the loss alone is there before the update is.
        jax.block_until_ready(train_state)
        return float(scalars["loss"])

    facts = {"versions": both_networks.versions("jax", "jaxlib", "flax", "optax")}
    return {**facts, "forward_flops": ours.forward_flops}, step


def prepare_torch(config: Any, path: Path, compile: bool) -> tuple[dict[str, Any], Any]:
    """Returns facts, and a function that does a step and returns its loss."""
    import torch  # pyright: ignore[reportMissingImports]

    trainer = both_networks.load_trainer(path, config, TOTAL_STEPS, compile=compile)
    images, targets = draw_batch(config)
    normalized = torch.from_numpy(images).float().div_(127.5).sub_(1).permute(0, 3, 1, 2)
    target_tensor = torch.from_numpy(targets)

    def step() -> float:
        return trainer.step(normalized, target_tensor)["loss"].item()

    return {"versions": both_networks.versions("torch"), "threads": torch.get_num_threads()}, step


def draw_batch(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 images `[n, h, w, c]` and targets float32 `[n, K]`, the same at every call."""
    random = np.random.default_rng(0)
    size, number = config.data.image_size, config.train.batch_size
    shape = (number, size, size, config.data.channels)
    labels = random.integers(0, NUM_CLASSES, number)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    return images, np.eye(NUM_CLASSES, dtype=np.float32)[labels]


if __name__ == "__main__":
    run(main, prepare)
