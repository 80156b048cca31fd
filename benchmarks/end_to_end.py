"""Times an epoch of training on real faces, input included: ours and PyTorch's, in turn.

  python benchmarks/end_to_end.py --source=path/to/fer2013 --python_jax=python3.12 \\
      --python_torch=python3.11 --out=results/end_to_end.json

The experiment is configs/ferplus_cpu.py: grey faces, augmented. Ours reads them as
`python -m dmfer_jax.train` does; PyTorch through a DataLoader from a tensor in memory, with the
same augmentations. Both begin with the same weights and do the steps of one epoch in blocks. The
order of the images differs, so their losses at the end agree in size only. Have nothing else
running.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import both_networks, matrix_product, measurements
from benchmarks.side_by_side import Side, Turn, print_round, run, take_turns
from dmfer_jax.config import DATA_DIR

CONFIG = "configs/ferplus_cpu.py"
WARM_UP_STEPS = 3  # not counted: compiling, and starting the workers of the DataLoader
LOSS_TOLERANCE = 0.1  # relative, between means over the last quarter of the steps
ENOUGH_STEPS = 100  # fewer have learned too little to compare


def main() -> None:
    """Measures, prints a table and writes the report."""
    options = read_flags()
    report = {**measurements.describe(), "dtype": "float32", **measure(options)}
    print(f"\n{describe(report)}\n\n{side_table(report)}", flush=True)
    measurements.write(options.out, report)
    check_final_losses(report)


def read_flags() -> argparse.Namespace:
    """Returns the flags of the command."""
    parser = argparse.ArgumentParser(description="Times an epoch of training, side by side.")
    parser.add_argument("--source", default="", help="FER2013, read if there are no records yet")
    parser.add_argument("--data_dir", default=DATA_DIR, help="where records are kept")
    parser.add_argument("--width", type=float, help="of the network; that of the config if absent")
    parser.add_argument("--python_jax", default=sys.executable, help="interpreter with dmfer_jax")
    parser.add_argument("--python_torch", default=sys.executable, help="interpreter with torch")
    parser.add_argument(
        "--torch_workers",
        type=int,
        nargs="*",
        default=[2, 0],
        help="processes of the DataLoader; each number is a side of its own",
    )
    parser.add_argument("--steps", type=int, default=40, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=0, help="0 is as many as an epoch takes")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides.

    Raises:
      UserError: the data cannot be had, or a side failed.
    """
    print("preparing the sides ...", flush=True)
    module = "benchmarks.end_to_end"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        paths = {"data.data_dir": options.data_dir, "data.source": options.source}
        given = {"changes": {**changes(options.width), **paths}, "folder": folder}
        side = Side("ours", options.python_jax, module, {**given, "side": "ours"})
        sides = [stack.enter_context(side)]
        for workers in options.torch_workers:
            name = f"torch, {workers} workers"
            arguments = {**given, "side": "torch", "workers": workers}
            side = Side(name, options.python_torch, module, arguments)
            sides.append(stack.enter_context(side))
        interpreters = {"jax": options.python_jax}
        if options.torch_workers:
            interpreters["torch"] = options.python_torch
        products = matrix_product.start(stack, interpreters)
        epoch_steps = sides[0].facts["epoch_steps"]
        rounds = options.rounds or -(-epoch_steps // options.steps)
        total = min(epoch_steps, rounds * options.steps)

        def request(side: Side, number: int) -> dict[str, Any]:
            if side in products:
                return {"products": matrix_product.PRODUCTS}
            done = (number - 1) * options.steps
            return {"steps": min(options.steps, total - done)}

        answers = take_turns([*sides, *products], rounds, request, print_round)
        return {
            "config": CONFIG,
            "changes": changes(options.width),
            "steps": total,
            "matrix_product_gflops": matrix_product.rates(products, answers),
            "sides": [describe_side(side, answers) for side in sides],
        }


def changes(width: float | None) -> dict[str, Any]:
    """Returns what a width changes in the config: the embedding grows with the channels."""
    return {"model.width": width, "model.embedding": round(512 * width)} if width else {}


def describe_side(side: Side, answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns what one side measured; ratios are those of ours to it."""
    rounds = answers[side.name]
    seconds = sum(block["seconds"] for block in rounds)
    images = sum(block["images"] for block in rounds)
    losses = [loss for block in rounds for loss in block["losses"]]
    described = {
        "side": side.name,
        **side.facts,
        "peak_mib_of_steps": side.peak_mib(),
        "images_per_second": round(images / seconds, 1),
        "input_wait_share": round(sum(block["waited"] for block in rounds) / seconds, 5),
        "final_loss": statistics.fmean(losses[-max(1, len(losses) // 4) :]),
        "rounds": [round(block["seconds"], 4) for block in rounds],
        "losses": [round(loss, 4) for loss in losses],
    }
    if side.name != "ours":
        ours, theirs = ([[block["seconds"]] for block in answers[n]] for n in ("ours", side.name))
        described["ours_is_faster_by"] = measurements.ratio(ours, theirs)
    return described


def check_final_losses(report: dict[str, Any]) -> None:
    """Checks that all sides have learned alike.

    Raises:
      UserError: one has not; then the times are not those of the same thing.
    """
    if report["steps"] < ENOUGH_STEPS:
        print(f"\nlosses are not compared: {report['steps']} steps are too few")
        return
    final = {side["side"]: [side["final_loss"]] for side in report["sides"]}
    measurements.check_same_losses(final, LOSS_TOLERANCE)


def describe(report: dict[str, Any]) -> str:
    """Returns in words what was measured."""
    config = both_networks.make_config(report["changes"], CONFIG)
    return (
        f"{config.data.dataset} at {config.data.image_size} pixels, width {config.model.width:g}, "
        f"batch {config.train.batch_size}, {report['steps']} steps, augmented, float32."
    )


def side_table(report: dict[str, Any]) -> str:
    """Returns the sides as a table in Markdown."""
    rows = []
    for side in report["sides"]:
        faster = side.get("ours_is_faster_by")
        rows.append(
            [
                measurements.named(side),
                f"{side['images_per_second']:,.0f}",
                f"{side['input_wait_share']:.1%}",
                f"{side['final_loss']:.3f}",
                f"{side['peak_mib_of_steps'] or 0:,.0f}",
                measurements.spread(faster) if faster else "",
            ]
        )
    columns = ["side", "images/s", "waits for input", "last loss", "peak MiB", "ours is faster by"]
    return measurements.table(columns, rows)


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes a side ready: compiled, its input running.

    Args:
      options: `side`, "ours" or "torch"; `changes`, `folder` and `workers`.

    Returns:
      Facts, and the turn: takes `steps`; returns their `seconds`, the seconds `waited` for input in
      them, their `images` and their `losses`.
    """
    config = both_networks.make_config(options["changes"], CONFIG)
    folder = Path(options["folder"])
    if options["side"] == "ours":
        facts, turn = prepare_ours(config, folder)
    else:
        facts, turn = prepare_torch(config, folder, options["workers"])
    turn(WARM_UP_STEPS)
    if options["side"] == "ours":
        both_networks.give_back_memory()
    return facts, turn


def prepare_ours(config: Any, folder: Path) -> tuple[dict[str, Any], Turn]:
    """Returns facts and the turn; writes images, targets and first state for the other sides."""
    import jax

    from dmfer_jax.building import ensure_built
    from dmfer_jax.data import sources
    from dmfer_jax.feeding import Feed

    dataset_dir = ensure_built(config.data.dataset, config.data.source, config.data.data_dir)
    joined = "+".join(config.data.train_splits)
    split = sources.load_split(dataset_dir, joined, config.data, train=True)
    np.save(folder / "images.npy", np.asarray(split.images))
    np.save(folder / "targets.npy", split.targets)
    both_networks.write_first_state(folder / "first_state.npz", config, len(split.class_names))

    epoch_steps = len(split) // config.train.batch_size
    total_steps = epoch_steps * config.train.epochs
    ours = both_networks.load_ours(folder / "first_state.npz", config, total_steps)
    batches = Feed(split, ours.mesh, config.data.device_gib).train_batches(
        config.train.batch_size,
        seed=config.seed,
        sampling=config.data.sampling,
        start_step=0,
        workers=config.data.workers,
    )
    train_state = ours.state

    def turn(steps: int) -> dict[str, Any]:
        nonlocal train_state
        scalars, waited = [], 0.0
        began = time.perf_counter()
        with jax.transfer_guard("disallow"):
            for _ in range(steps):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                train_state, of_step = ours.step(train_state, batch)
                scalars.append(of_step)
            jax.block_until_ready(train_state)
            losses = [float(row["loss"]) for row in jax.device_get(scalars)]
        seconds = time.perf_counter() - began
        return block(seconds, waited, losses, config)

    facts = {"versions": both_networks.versions("jax", "jaxlib", "flax", "optax")}
    return {**facts, "epoch_steps": epoch_steps, "images": len(split)}, turn


def prepare_torch(config: Any, folder: Path, workers: int) -> tuple[dict[str, Any], Turn]:
    """Returns facts and the turn."""
    import torch  # pyright: ignore[reportMissingImports]

    from dmfer_jax.pytorch.data import make_loader

    images = np.load(folder / "images.npy", allow_pickle=False)
    targets = np.load(folder / "targets.npy", allow_pickle=False)
    total_steps = len(images) // config.train.batch_size * config.train.epochs
    state = folder / "first_state.npz"
    trainer = both_networks.load_trainer(state, config, total_steps, compile=False)
    torch.manual_seed(config.seed)
    loader = make_loader(images, targets, config.augment, config.train.batch_size, workers)
    batches = without_end(loader)

    def turn(steps: int) -> dict[str, Any]:
        losses, waited = [], 0.0
        began = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            losses.append(trainer.step(*batch)["loss"])
        values = [loss.item() for loss in losses]
        seconds = time.perf_counter() - began
        return block(seconds, waited, values, config)

    return {"versions": both_networks.versions("torch"), "threads": torch.get_num_threads()}, turn


def without_end(loader: Any) -> Iterator[Any]:
    """Yields the batches of one epoch after the other."""
    while True:
        yield from loader


def block(seconds: float, waited: float, losses: Sequence[float], config: Any) -> dict[str, Any]:
    """Returns what is told of a turn."""
    images = len(losses) * config.train.batch_size
    return {"seconds": seconds, "waited": waited, "images": images, "losses": list(losses)}


if __name__ == "__main__":
    run(main, prepare)
