"""Times an exported model under onnxruntime, in float32 and int8, beside PyTorch eager.

  python benchmarks/onnx_inference.py --model=model.safetensors --python_torch=python3.11 \\
      --out=results/onnx_inference.json

Every side has the weights of the model; float32 outputs must agree. onnxruntime gets bytes, and
PyTorch normalised floats in the memory format channels_last, in inference_mode. Have nothing else
running.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import both_networks, measurements
from benchmarks.inference import BATCHES, check_same_outputs
from benchmarks.side_by_side import Side, Turn, print_round, run, take_turns
from dmfer_jax.loading import find_model, load_weights
from dmfer_jax.weights.sealing import Manifest

TORCH = "PyTorch eager"


def main() -> None:
    """Measures the sides in turn, prints a table and writes the report."""
    options = read_flags()
    path = find_model(options.model)
    manifest, variables = load_weights(path)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print("exporting and starting the sides ...", flush=True)
        files = write_files(folder, manifest, variables)
        weights = write_weights(folder, variables)
        sides, outputs = [], {}
        for name, python, given in (
            *(("onnxruntime, " + kind, sys.executable, {"file": file}) for kind, file in files),
            (TORCH, options.python_torch, {"model": str(path), "weights": weights}),
        ):
            outputs[name] = folder / f"outputs{len(sides)}.npz"
            given = {**given, "outputs": str(outputs[name]), "shape": shape_of(manifest)}
            side = Side(name, python, "benchmarks.onnx_inference", given)
            sides.append(stack.enter_context(side))
        check_same_outputs({name: file for name, file in outputs.items() if "int8" not in name})
        answers = take_turns(
            sides, options.rounds, lambda side, number: {"batches": BATCHES}, print_round
        )
        described = [describe_side(side, answers) for side in sides]
    print(f"\n{path.name}: {describe_network(manifest)}\n\n{table(described)}")
    report = {**measurements.describe(), "model": path.name, "options": dict(manifest.model)}
    measurements.write(options.out, {**report, "image": shape_of(manifest), "sides": described})


def read_flags() -> argparse.Namespace:
    """Returns the flags of the command."""
    parser = argparse.ArgumentParser(description="Times onnxruntime beside PyTorch.")
    parser.add_argument("--model", required=True, help="a portable file, or a packaged model")
    parser.add_argument("--python_torch", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    return parser.parse_args()


def write_files(folder: Path, manifest: Manifest, variables: Any) -> list[tuple[str, str]]:
    """Writes the ONNX files, and returns kind and path of each.

    The ranges of int8 are those of drawn noise: of what it computes, only the time is of interest.
    """
    from dmfer_jax import export

    files = []
    for kind, images in (("float32", None), ("int8", draw_images(shape_of(manifest)))):
        out = folder / f"{kind}.onnx"
        export.write("onnx", out, manifest, variables, calibrate_on=images)
        files.append((kind, str(out)))
    return files


def write_weights(folder: Path, variables: Any) -> str:
    """Writes the weights under PyTorch's names, and returns the path."""
    from dmfer_jax.weights.pytorch import to_state_dict

    path = folder / "weights.npz"
    np.savez(path, **to_state_dict(variables))  # pyright: ignore[reportArgumentType]
    return str(path)


def shape_of(manifest: Manifest) -> list[int]:
    """Returns height, width and channels of an image."""
    return [manifest.image_size, manifest.image_size, manifest.channels]


def describe_network(manifest: Manifest) -> str:
    """Returns the network in words."""
    model = manifest.model
    return f"{model['backbone']}, width {model['width']:g}, {manifest.image_size} pixels"


def describe_side(side: Side, answers: dict[str, Any]) -> dict[str, Any]:
    """Returns what one side measured; the ratio is PyTorch's time by the side's."""
    described = {"side": side.name, **side.facts, "peak_mib": side.peak_mib(), "batches": []}
    for images in map(str, BATCHES):
        rounds = [answer[images] for answer in answers[side.name]]
        measured = {
            "images": int(images),
            "seconds": measurements.summarize([time for times in rounds for time in times]),
            "rounds": [[round(time, 6) for time in times] for times in rounds],
        }
        if side.name != TORCH:
            of_torch = [answer[images] for answer in answers[TORCH]]
            measured["faster_than_torch_by"] = measurements.ratio(rounds, of_torch)
        described["batches"].append(measured)
    return described


def table(described: list[dict[str, Any]]) -> str:
    """Returns the sides as a table in Markdown, by the number of images of a call."""
    rows = []
    for index, images in enumerate(BATCHES):
        for side in described:
            of_batch = side["batches"][index]
            faster = of_batch.get("faster_than_torch_by")
            rows.append(
                [
                    side["side"],
                    str(images),
                    measurements.spread(of_batch["seconds"], 1, 1e3),
                    f"{images / of_batch['seconds']['median']:,.0f}",
                    measurements.spread(faster) if faster else "",
                ]
            )
    columns = ["side", "images", "ms", "images/s", "faster than PyTorch by"]
    return measurements.table(columns, rows)


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes a side ready and warm, and writes its outputs for images of the largest call.

    Args:
      options: `shape` of an image; `outputs`, a path; `file`, an ONNX file, or `model` and
        `weights` for PyTorch.

    Returns:
      Facts, and the turn: takes `batches`, {images: calls}; returns {images: seconds}.
    """
    if "file" in options:
        facts, make_call = prepare_onnx(options["file"])
    else:
        facts, make_call = prepare_torch(options["model"], options["weights"])
    images = draw_images(options["shape"])
    calls = {str(n): make_call(images[:n]) for n in BATCHES}
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


def prepare_onnx(file: str) -> tuple[dict[str, Any], Any]:
    """Returns facts, and what makes of images a call that predicts them."""
    from dmfer_jax.exported import onnx_file

    model = onnx_file().load_onnx(file, threads=len(os.sched_getaffinity(0)))
    facts = {"versions": both_networks.versions("onnxruntime")}
    return facts, lambda images: lambda: model(images)


def prepare_torch(model: str, weights: str) -> tuple[dict[str, Any], Any]:
    """Returns facts, and what makes of images a call that predicts them."""
    import torch  # pyright: ignore[reportMissingImports]

    from dmfer_jax.pytorch.model import Dmfer

    manifest, _ = load_weights(model)
    options = {name: value for name, value in manifest.model.items() if name != "dtype"}
    network = Dmfer(
        len(manifest.labels),
        image_size=manifest.image_size,
        channels=manifest.channels,
        **options,
    ).eval()
    with np.load(weights, allow_pickle=False) as arrays:
        both_networks.load_weights(network, arrays)
    network = network.to(memory_format=torch.channels_last)

    def make_call(images: np.ndarray) -> Any:
        floats = torch.from_numpy(images).float().div_(127.5).sub_(1).permute(0, 3, 1, 2)

        def call() -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                outputs = network(floats)
                return outputs.logits.softmax(-1).numpy(), outputs.embedding.numpy()

        return call

    facts = {"versions": both_networks.versions("torch"), "threads": torch.get_num_threads()}
    return facts, make_call


def draw_images(shape: list[int]) -> np.ndarray:
    """Returns as many uint8 images as the largest call takes, the same at every call."""
    return np.random.default_rng(0).integers(0, 256, (max(BATCHES), *shape), dtype=np.uint8)


if __name__ == "__main__":
    run(main, prepare)
