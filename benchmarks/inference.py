"""Times predicting with DMFER: our predictor and PyTorch, eager as it is and with BatchNorm fused.

  python benchmarks/inference.py --python_jax=python3.12 --python_torch=python3.11 \\
      --out=results/inference.json

All sides have the same weights, and their probabilities and embeddings must agree. Ours gets bytes
and folds BatchNorm, as `dmfer_jax.predictor` does for everyone; PyTorch gets normalised floats in
the memory format channels_last, in inference_mode. Float32. Have nothing else running.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import both_networks, matrix_product, measurements, train_step
from benchmarks.side_by_side import Side, Turn, print_round, run, take_turns
from dmfer_jax.errors import UserError

CASES = {
    name: {field: value for field, value in changed.items() if field != "train.batch_size"}
    for name, changed in train_step.CASES.items()
}
"""Name -> what it changes in the base config."""

BATCHES = {1: 10, 64: 1}
"""Images of a call -> calls in a turn, so that a turn of each takes about as long."""

NUM_CLASSES = 8
TOLERANCE = 1e-4  # of probabilities, and of embeddings relative to their largest value
WAYS = ("eager", "fused", "compiled")


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
    parser = both_networks.make_parser("Times predicting, side by side.", list(CASES))
    parser.add_argument(
        "--torch",
        nargs="*",
        choices=WAYS,
        default=("eager", "fused"),
        help="PyTorch as it is, with BatchNorm fused into the convolutions, or that and compiled",
    )
    parser.add_argument("--rounds", type=int, default=30)
    return both_networks.read_flags(parser)


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one case.

    Raises:
      UserError: a side failed, or the sides do not compute the same.
    """
    print(f"\n{case}: preparing the sides (compiling takes half a minute) ...", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides: list[Side] = []
        outputs: dict[str, Path] = {}

        def start(name: str, python: str, **arguments: Any) -> None:
            outputs[name] = folder / f"outputs{len(sides)}.npz"
            given = {
                "changes": CASES[case],
                "weights": str(folder / "weights.npz"),
                "outputs": str(outputs[name]),
            }
            side = Side(name, python, "benchmarks.inference", {**given, **arguments})
            sides.append(stack.enter_context(side))

        for index, python in enumerate(options.python_jax):
            name = "ours" if index == 0 else f"ours, interpreter {index + 1}"
            start(name, python, side="ours", writes=index == 0)
        for way in options.torch:
            start(f"torch {way}", options.python_torch, side="torch", way=way)
        check_same_outputs(outputs)
        products = both_networks.start_products(stack, options)

        def request(side: Side, number: int) -> dict[str, Any]:
            del number
            if side in products:
                return {"products": matrix_product.PRODUCTS}
            return {"batches": BATCHES}

        everyone = [*sides, *products]
        answers = take_turns(everyone, options.rounds, request, print_round)
        return {
            "case": case,
            "changes": CASES[case],
            "matrix_product_gflops": matrix_product.rates(products, answers),
            "sides": [describe_side(side, answers, sides[0].name) for side in sides],
        }


def check_same_outputs(files: Mapping[str, Path]) -> None:
    """Checks that all sides predict the same.

    Args:
      files: name of side -> .npz file of its outputs.

    Raises:
      UserError: they do not; a benchmark of it would mean nothing.
    """
    loaded = {name: dict(np.load(file, allow_pickle=False)) for name, file in files.items()}
    first, expected = next(iter(loaded.items()))
    for name, found in loaded.items():
        for output, values in found.items():
            scale = max(float(np.abs(expected[output]).max()), 1e-30)
            difference = float(np.abs(values - expected[output]).max()) / scale
            if not difference <= TOLERANCE:  # a NaN is refused, too
                raise UserError(
                    f"the sides do not compute the same: {output} of '{name}' differ from those "
                    f"of '{first}' by {difference:.2g} of the largest; expected at most "
                    f"{TOLERANCE:g}. Nothing was measured"
                )


def describe_side(side: Side, answers: dict[str, Any], ours: str) -> dict[str, Any]:
    """Returns what one side measured; the ratio is that of our first side to it."""
    described = {"side": side.name, **side.facts, "peak_mib": side.peak_mib(), "batches": []}
    for images in map(str, BATCHES):
        rounds = [answer[images] for answer in answers[side.name]]
        times = [time for times in rounds for time in times]
        measured = {
            "images": int(images),
            "seconds": measurements.summarize(times),
            "seconds_95th_percentile": float(np.percentile(times, 95)),
            "rounds": [[round(time, 6) for time in times] for times in rounds],
        }
        if side.name != ours:
            of_ours = [answer[images] for answer in answers[ours]]
            measured["ours_is_faster_by"] = measurements.ratio(of_ours, rounds)
        described["batches"].append(measured)
    return described


def describe_case(measured: dict[str, Any]) -> str:
    """Returns a case in words, with the ceiling."""
    rates = matrix_product.describe(measured["matrix_product_gflops"])
    return f"{both_networks.describe_network(measured['changes'])}. {rates}"


def case_table(measured: dict[str, Any]) -> str:
    """Returns a case's sides as a table in Markdown, by the number of images of a call."""
    flops = measured["sides"][0]["forward_flops"]
    rows = []
    for index, images in enumerate(BATCHES):
        for side in measured["sides"]:
            of_batch = side["batches"][index]
            median = of_batch["seconds"]["median"]
            faster = of_batch.get("ours_is_faster_by")
            rows.append(
                [
                    measurements.named(side),
                    str(images),
                    measurements.spread(of_batch["seconds"], 1, 1e3),
                    f"{of_batch['seconds_95th_percentile'] * 1e3:.1f}",
                    f"{images / median:,.0f}",
                    f"{images * flops / median / 1e9:.0f}",
                    measurements.spread(faster) if faster else "",
                ]
            )
    columns = ["side", "images", "ms", "95 % within", "images/s", "GFLOP/s", "ours is faster by"]
    return measurements.table(columns, rows)


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes a side ready, compiled and warm, and writes its outputs for images of the largest call.

    Args:
      options: `side`, "ours" or "torch"; `changes`; `weights` and `outputs`, paths; `writes` of
        ours, `way` of torch.

    Returns:
      Facts, and the turn: takes `batches`, {images: calls}; returns {images: seconds}.
    """
    config = both_networks.make_config(options["changes"])
    weights = Path(options["weights"])
    if options["side"] == "ours":
        if options["writes"]:
            write_weights(weights, config)
        facts, make_call = prepare_ours(weights, config)
    else:
        facts, make_call = prepare_torch(weights, config, options["way"])
    images = draw_images(config)
    calls = {str(n): make_call(images[:n]) for n in BATCHES}
    for call in calls.values():
        call()  # compiles
    probabilities, embedding = calls[str(len(images))]()
    np.savez(options["outputs"], probabilities=probabilities, embedding=embedding)

    def turn(batches: dict[str, int]) -> dict[str, Any]:
        seconds: dict[str, list[float]] = {}
        for size, number in batches.items():
            calls[size]()  # the caches hold what another side, or another size, left in them
            seconds[size] = []
            for _ in range(number):
                began = time.perf_counter()
                calls[size]()
                seconds[size].append(time.perf_counter() - began)
        return seconds

    return facts, turn


def write_weights(path: Path, config: ConfigDict) -> None:
    """Writes random weights; BatchNorm's numbers are unlike those of one that has seen nothing."""
    import jax
    import jax.numpy as jnp

    from dmfer_jax import state
    from dmfer_jax.weights.pytorch import to_state_dict

    model = state.make_model(config, NUM_CLASSES)
    size = config.data.image_size
    images = jax.ShapeDtypeStruct((1, size, size, config.data.channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":  # keeps the size of what passes through, as He et al. do
            spread = np.sqrt(2 / max(1, np.prod(leaf.shape[:-1])))
            return random.normal(0, spread, leaf.shape).astype(np.float32)
        low, high = (-0.2, 0.2) if name in ("bias", "mean") else (0.5, 1.0)
        return random.uniform(low, high, leaf.shape).astype(np.float32)

    weights = to_state_dict(jax.tree_util.tree_map_with_path(draw, shapes))
    np.savez(path, **weights)  # pyright: ignore[reportArgumentType]


def prepare_ours(path: Path, config: ConfigDict) -> tuple[dict[str, Any], Any]:
    """Returns facts, and what makes of images a call that predicts them."""
    from dmfer_jax import state
    from dmfer_jax.models import summary
    from dmfer_jax.predictor import Predictor
    from dmfer_jax.weights.pytorch import from_state_dict

    with np.load(path, allow_pickle=False) as weights:
        variables = from_state_dict(weights)
    model = state.make_model(config, NUM_CLASSES)
    size, channels = config.data.image_size, config.data.channels
    names = [str(label) for label in range(NUM_CLASSES)]
    predictor = Predictor(model, variables, size, channels, names, buckets=tuple(BATCHES))
    facts = {
        "versions": both_networks.versions("jax", "jaxlib", "flax"),
        "forward_flops": summary.summarize(model, size, channels).flops,
    }
    return facts, lambda images: lambda: predictor(images)


def prepare_torch(path: Path, config: ConfigDict, way: str) -> tuple[dict[str, Any], Any]:
    """Returns facts, and what makes of images a call that predicts them."""
    import torch  # pyright: ignore[reportMissingImports]

    from dmfer_jax.pytorch.model import make_model

    model = make_model(config, NUM_CLASSES).eval()
    with np.load(path, allow_pickle=False) as weights:
        both_networks.load_weights(model, weights)
    if way != "eager":
        fuse(model)
        model = model.to(memory_format=torch.channels_last)
    network: Any = torch.compile(model) if way == "compiled" else model

    def make_call(images: np.ndarray) -> Any:
        floats = torch.from_numpy(images).float().div_(127.5).sub_(1).permute(0, 3, 1, 2)

        def call() -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                outputs = network(floats)
                return outputs.logits.softmax(-1).numpy(), outputs.embedding.numpy()

        return call

    facts = {"versions": both_networks.versions("torch"), "threads": torch.get_num_threads()}
    return facts, make_call


def fuse(module: Any) -> None:
    """Fuses every BatchNorm of a network in PyTorch into the convolution before it."""
    from torch import nn  # pyright: ignore[reportMissingImports]
    from torch.nn.utils.fusion import fuse_conv_bn_eval  # pyright: ignore[reportMissingImports]

    for part in module.children():
        if hasattr(part, "norm"):
            part.conv, part.norm = fuse_conv_bn_eval(part.conv, part.norm), nn.Identity()
        else:
            fuse(part)


def draw_images(config: ConfigDict) -> np.ndarray:
    """Returns uint8 images `[64, h, w, c]`, the same at every call."""
    shape = (max(BATCHES), config.data.image_size, config.data.image_size, config.data.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


if __name__ == "__main__":
    run(main, prepare)
