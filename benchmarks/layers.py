"""Times each kind of convolution in DMFER by itself: XLA's own, ours, and PyTorch's, in turn.

  python benchmarks/layers.py --python_jax=python3.12 --python_torch=python3.11 \\
      --out=results/layers.json

The rules in `dmfer_jax/models/convolution.py` rest on this table. Rates are billions of operations
a second, counted as papers do (padding counts), to be read against the matrix product's of the
same run. 112 pixels, batch 32, float32. Have nothing else running.
"""
# pyright: reportMissingImports=false

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import both_networks, matrix_product, measurements
from benchmarks.side_by_side import Side, Turn, print_round, run, take_turns


class Layer(NamedTuple):
    """A kind of convolution: `side` is that of its input in pixels, `number` how many there are."""

    name: str
    side: int
    inputs: int
    outputs: int
    size: int
    stride: int
    number: int


BATCH = 32

LAYERS = (
    Layer("stem", 112, 3, 64, 7, 2, 1),
    Layer("stage 1", 28, 64, 64, 3, 1, 4),
    Layer("to stage 2", 28, 64, 128, 3, 2, 1),
    Layer("stage 2", 14, 128, 128, 3, 1, 3),
    Layer("to stage 3", 14, 128, 256, 3, 2, 1),
    Layer("stage 3", 7, 256, 256, 3, 1, 3),
    Layer("to stage 4", 7, 256, 512, 3, 2, 1),
    Layer("stage 4", 4, 512, 512, 3, 1, 3),
    Layer("shallow, down", 14, 128, 128, 3, 2, 1),
    Layer("shallow, down again", 7, 128, 128, 3, 2, 1),
    Layer("shortcut to stage 2", 28, 64, 128, 1, 2, 1),
    Layer("shortcut to stage 3", 14, 128, 256, 1, 2, 1),
    Layer("shortcut to stage 4", 7, 256, 512, 1, 2, 1),
    Layer("deep", 4, 512, 512, 1, 1, 1),
    Layer("query, key, value", 4, 1024, 1024, 1, 1, 3),
    Layer("compress", 4, 1024, 512, 1, 1, 1),
)
"""Of ResNet-18 read at two scales, at 112 pixels."""

KINDS = ("forward", "input gradient", "kernel gradient")
SIDES = ("XLA", "ours", "PyTorch")


def main() -> None:
    """Measures, prints a table for each kind and writes the report."""
    parser = argparse.ArgumentParser(description="Times convolutions one by one, side by side.")
    parser.add_argument("--python_jax", default=sys.executable, help="interpreter with dmfer_jax")
    parser.add_argument("--python_torch", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--layers", type=int, nargs="+", default=list(range(len(LAYERS))))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    report = {**measurements.describe(), "batch": BATCH, "dtype": "float32"}
    pythons = {"XLA": options.python_jax, "ours": options.python_jax}
    pythons["PyTorch"] = options.python_torch
    with ExitStack() as stack:
        given = {"layers": options.layers}
        sides = [
            stack.enter_context(Side(name, python, "benchmarks.layers", {**given, "side": name}))
            for name, python in pythons.items()
        ]
        interpreters = {"jax": options.python_jax, "torch": options.python_torch}
        products = matrix_product.start(stack, interpreters)

        def request(side: Side, number: int) -> dict[str, Any]:
            del number
            return {"products": matrix_product.PRODUCTS} if side in products else {}

        answers = take_turns([*sides, *products], options.rounds, request, print_round)
        rates = matrix_product.rates(products, answers)
    rows = [
        measured_row(LAYERS[layer], kind, [answers[name] for name in SIDES])
        for kind in KINDS
        for layer in options.layers
        if LAYERS[layer].name != "stem" or kind != "input gradient"  # nobody asks for it
    ]
    print(f"\n{matrix_product.describe(rates)}\n\n{table(rows)}")
    report["versions"] = {side.name: side.facts["versions"] for side in sides}
    measurements.write(options.out, {**report, "matrix_product_gflops": rates, "rows": rows})


def measured_row(layer: Layer, kind: str, answers: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the median milliseconds and the rate of each side for one layer."""
    pixels = -(-layer.side // layer.stride)
    flops = 2 * BATCH * pixels**2 * layer.size**2 * layer.inputs * layer.outputs
    row: dict[str, Any] = {"kind": kind, **layer._asdict(), "gflop": round(flops / 1e9, 3)}
    for name, rounds in zip(SIDES, answers, strict=True):
        seconds = statistics.median(answer[f"{layer.name}, {kind}"] for answer in rounds)
        row[name] = {"ms": round(seconds * 1e3, 2), "gflops": round(flops / seconds / 1e9, 1)}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown, with the sums over the whole network."""
    cells = []
    for row in rows:
        sides = [f"{row[name]['ms']:.1f} ({row[name]['gflops']:.0f})" for name in SIDES]
        named = [f"{row['kind']}, {row['name']}", str(row["number"]), f"{row['gflop']:.2f}"]
        cells.append([*named, *sides])
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        count = sum(row["number"] for row in of_kind)
        work = sum(row["gflop"] * row["number"] for row in of_kind)
        sums = [sum(row[name]["ms"] * row["number"] for row in of_kind) for name in SIDES]
        sides = [f"{ms:.0f} ({work / ms * 1e3:.0f})" for ms in sums]
        cells.append([f"{kind}, all", str(count), f"{work:.1f}", *sides])
    columns = ["what", "how many", "GFLOP", *(f"{name}, ms (GFLOP/s)" for name in SIDES)]
    return measurements.table(columns, cells)


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes everything that this side will be asked to compute.

    Args:
      options: `side`, one of `SIDES`; `layers`, positions in `LAYERS`.

    Returns:
      The library's version, and the turn: returns the seconds of one computation of each.
    """
    make = _torch_functions if options["side"] == "PyTorch" else _jax_functions
    functions: dict[str, Callable[[], Any]] = {}
    for layer in (LAYERS[position] for position in options["layers"]):
        functions |= {
            f"{layer.name}, {kind}": function
            for kind, function in zip(KINDS, make(layer, options["side"]), strict=True)
        }

    def turn() -> dict[str, Any]:
        seconds = {}
        for name, function in functions.items():
            function()  # the layer before has emptied the caches
            began = time.perf_counter()
            function()
            seconds[name] = time.perf_counter() - began
        return seconds

    turn()
    library = "torch" if options["side"] == "PyTorch" else "jax"
    return {"versions": both_networks.versions(library)}, turn


def _arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    pixels = -(-layer.side // layer.stride)
    shapes = (
        (BATCH, layer.side, layer.side, layer.inputs),
        (layer.size, layer.size, layer.inputs, layer.outputs),
        (BATCH, pixels, pixels, layer.outputs),
    )
    x, kernel, dy = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, kernel, dy


def _jax_functions(layer: Layer, side: str) -> list[Callable[[], Any]]:
    import jax

    from dmfer_jax.models.convolution import convolve

    half = layer.size // 2
    convolution = convolve if side == "ours" else jax.lax.conv_general_dilated

    def forward(x: Any, kernel: Any) -> Any:
        return convolution(
            x,
            kernel,
            (layer.stride, layer.stride),
            [(half, half)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x, kernel, dy = map(jax.device_put, _arrays(layer))
    programs = (
        jax.jit(forward),
        jax.jit(lambda x, kernel, dy: jax.vjp(lambda x: forward(x, kernel), x)[1](dy)),
        jax.jit(lambda x, kernel, dy: jax.vjp(lambda k: forward(x, k), kernel)[1](dy)),
    )
    arguments = ((x, kernel), (x, kernel, dy), (x, kernel, dy))
    return [
        lambda program=program, given=given: jax.block_until_ready(program(*given))
        for program, given in zip(programs, arguments, strict=True)
    ]


def _torch_functions(layer: Layer, side: str) -> list[Callable[[], Any]]:
    import torch

    del side
    x, kernel, dy = map(torch.from_numpy, _arrays(layer))
    last = torch.channels_last
    x, dy = (a.permute(0, 3, 1, 2).contiguous(memory_format=last) for a in (x, dy))
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=last)
    half = layer.size // 2
    strides, padding = [layer.stride] * 2, [half] * 2

    def gradient(of_input: bool) -> Any:
        return torch.ops.aten.convolution_backward(
            dy,
            x,
            kernel,
            None,
            strides,
            padding,
            [1, 1],
            False,
            [0, 0],
            1,
            [of_input, not of_input, False],
        )

    return [
        lambda: torch.nn.functional.conv2d(x, kernel, None, layer.stride, half),
        lambda: gradient(True),
        lambda: gradient(False),
    ]


if __name__ == "__main__":
    run(main, prepare)
