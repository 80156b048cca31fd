"""Checks that exported programs give what the network gives, on real images; what int8 costs.

  python benchmarks/check_exports.py --model=model.safetensors --out=results/check_exports.json

The model is exported as StableHLO, as ONNX and as ONNX in int8 into a folder that is removed, and
each is loaded again. On the first images of a split every output is compared with the predictor's;
on all of the split the accuracy is. It ends with status 1 if a float32 program differs by more than
`TOLERANCE`. Nothing of time: other work may run beside it.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measurements
from benchmarks.side_by_side import run
from dmfer_jax import export
from dmfer_jax.building import ensure_built
from dmfer_jax.config import get_config
from dmfer_jax.data import sources
from dmfer_jax.exported import load_exported
from dmfer_jax.loading import find_model, load_predictor, load_weights
from dmfer_jax.predictor import Predictions
from dmfer_jax.weights.sealing import Manifest

TOLERANCE = 1e-5
"""Of probabilities, and of embeddings relative to their largest value; float32 rounds to 1e-7."""

CALIBRATION = 256
"""Images that int8 is calibrated on: of the train split, so that those it is scored on are new."""


def main() -> None:
    """Checks a model, prints a table and writes the report."""
    options = read_flags()
    path = find_model(options.model)
    manifest, variables = load_weights(path)
    split = load_split(options, manifest, options.split)
    train = load_split(options, manifest, options.calibrate_on)
    chosen = np.linspace(0, len(train) - 1, min(len(train), CALIBRATION)).astype(int)
    calls: dict[str, Callable[[np.ndarray], Predictions]] = {"predictor": load_predictor(path)}
    megabytes = {"predictor": path.stat().st_size / 1e6}
    with tempfile.TemporaryDirectory() as folder:
        for name, to, images in (
            ("StableHLO", "stablehlo", None),
            ("ONNX", "onnx", None),
            ("ONNX, int8", "onnx", np.asarray(train.images[chosen])),
        ):
            print(f"exporting {name} ...", flush=True)
            out = Path(folder) / f"model.{to}"
            export.write(to, out, manifest, variables, calibrate_on=images)
            calls[name], megabytes[name] = load_exported(out), out.stat().st_size / 1e6
        found = {name: predict(call, split.images, len(split)) for name, call in calls.items()}
    rows: list[dict[str, Any]] = [
        compare(name, found, split.labels, options.images) | {"megabytes": megabytes[name]}
        for name in calls
    ]
    print(f"\n{options.dataset}, {options.split}, {options.protocol}\n\n{table(rows)}")
    report = {
        "model": path.name,
        "dataset": options.dataset,
        "split": options.split,
        "protocol": options.protocol,
        "compared_images": min(options.images, len(split)),
        "scored_images": len(split),
        "calibration": {"split": options.calibrate_on, "images": len(chosen)},
        "tolerance": TOLERANCE,
        "programs": rows,
    }
    measurements.write(options.out, {**measurements.describe(), **report})
    if bad := [str(row["program"]) for row in rows if row["float32"] and differs(row)]:
        raise SystemExit(f"error: {', '.join(bad)} differs by more than {TOLERANCE:g}")


def read_flags() -> argparse.Namespace:
    """Returns the flags of the command."""
    parser = argparse.ArgumentParser(description="Checks exported programs on real images.")
    parser.add_argument("--model", required=True, help="a portable file, or a packaged model")
    parser.add_argument("--dataset", default="ferplus", help="whose records are built")
    parser.add_argument("--data_dir", default="", help="where its records are, if not in the cache")
    parser.add_argument("--protocol", default="majority")
    parser.add_argument("--split", default="valid", help="to compare and to score on")
    parser.add_argument("--calibrate_on", default="train", help="the split that int8 gets")
    parser.add_argument("--images", type=int, default=500, help="to compare, from the first on")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    return parser.parse_args()


def load_split(options: argparse.Namespace, manifest: Manifest, name: str) -> sources.Split:
    """Returns a split of the records, as the model takes images."""
    data: Any = get_config().data
    data.dataset, data.protocol = options.dataset, options.protocol
    data.data_dir = options.data_dir or data.data_dir
    data.image_size, data.channels = manifest.image_size, manifest.channels
    folder = ensure_built(data.dataset, data.source, data.data_dir)
    return sources.load_split(folder, name, data, train=False)


def predict(call: Callable[[np.ndarray], Predictions], images: Any, count: int) -> Predictions:
    """Returns the predictions of all images, some hundreds at a time."""
    starts = range(0, count, 512)
    parts = [call(np.asarray(images[at : min(at + 512, count)])) for at in starts]
    return Predictions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def compare(
    name: str, found: dict[str, Predictions], labels: np.ndarray, count: int
) -> dict[str, Any]:
    """Returns how far a program is from the predictor, and the accuracy of both it and its file."""
    expected, ours = found["predictor"], found[name]
    chosen = ours.probabilities.argmax(-1)
    scale = float(np.abs(expected.embedding[:count]).max())
    return {
        "program": name,
        "float32": "int8" not in name,
        "probabilities_differ_by": largest(ours.probabilities, expected.probabilities, count),
        "embeddings_differ_by": largest(ours.embedding, expected.embedding, count) / scale,
        "same_label": float((chosen == expected.probabilities.argmax(-1)).mean()),
        "accuracy": float((chosen == labels).mean()),
    }


def largest(found: np.ndarray, expected: np.ndarray, count: int) -> float:
    """Returns the largest difference among the first images."""
    return float(np.abs(found[:count] - expected[:count]).max())


def differs(row: dict[str, Any]) -> bool:
    """Whether a program is not the network; a NaN is none, either."""
    differences = (row["probabilities_differ_by"], row["embeddings_differ_by"])
    return not all(difference <= TOLERANCE for difference in differences)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table in Markdown."""
    columns = ["program", "MB", "probabilities", "embedding", "same label", "accuracy"]
    shown = [
        [
            row["program"],
            f"{row['megabytes']:.1f}",
            f"{row['probabilities_differ_by']:.1e}",
            f"{row['embeddings_differ_by']:.1e}",
            f"{row['same_label']:.2%}",
            f"{row['accuracy']:.2%}",
        ]
        for row in rows
    ]
    return measurements.table(columns, shown)


if __name__ == "__main__":
    run(main)
