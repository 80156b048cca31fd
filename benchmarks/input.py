"""Times the input alone: cached batches, decoding beside a DataLoader of PyTorch, and its memory.

  python benchmarks/input.py --python_jax=python3.12 --python_torch=python3.11 --memory \\
      --out=results/input.json

Images are drawn: JPEGs of 224 pixels, decoded to 112. Ours decodes them into an array, as at the
first start, and streams them as batches, as training does where they do not fit in memory. PyTorch
reads the files in as many processes as ours, with Pillow, to tensors of bytes. The
pixels must be the same. `--memory` runs whole trainings that stream. Have nothing else running.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import measurements
from benchmarks.build_affectnet import draw_jpeg, with_comment
from benchmarks.input_sides import BATCH, CACHED_BATCH, CACHED_SHAPE, DECODED_SIZE, DECODING
from benchmarks.side_by_side import ROOT, Side, run, take_turns
from dmfer_jax.errors import UserError

CACHED = {"gathered on the device": 2.0, "from memory, through Grain": 0.0}
"""Way of serving cached images -> `data.device_gib`."""

PICTURES_DRAWN = 100  # distinct ones; a comment of its own makes each file distinct

MEMORY_CHANGES = {
    "data.dataset": "folder",
    "data.image_size": 32,
    "data.memory_gib": 0.0,
    "data.device_gib": 0.0,
    "data.workers": 2,
    "model.stem": "small",
    "model.stem_stride": 2,
    "model.width": 0.125,
    "model.embedding": 16,
    "model.heads": 2,
    "train.epochs": 1,
    "train.batch_size": BATCH,
    "train.eval_batch_size": BATCH,
}
"""A small network: what grows is the data."""


def main() -> None:
    """Measures, prints tables and writes the report."""
    options = read_flags()
    report = measurements.describe()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report["cached"] = measure_cached(options)
        print(f"\n{cached_table(report['cached'])}", flush=True)
        report["decoding"] = measure_decoding(options, Path(folder))
        print(f"\n{decoding_table(report['decoding'])}", flush=True)
        if options.memory:
            report["memory"] = measure_memory(options, Path(folder))
            print(f"\n{memory_table(report['memory'])}", flush=True)
    measurements.write(options.out, report)


def read_flags() -> argparse.Namespace:
    """Returns the flags of the command."""
    parser = argparse.ArgumentParser(description="Times the input, side by side.")
    parser.add_argument("--python_jax", default=sys.executable, help="interpreter with dmfer_jax")
    parser.add_argument("--python_torch", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--workers", type=int, default=2, help="processes of each side that decode")
    parser.add_argument("--images", type=int, default=2_560, help="decoded by each side in a round")
    parser.add_argument("--batches", type=int, default=1_000, help="cached ones in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="also the memory of trainings")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000], help="of those")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    return parser.parse_args()


def measure_cached(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures how fast batches of images in memory are there."""
    with ExitStack() as stack:
        sides = []
        for name, device_gib in CACHED.items():
            given = {"side": "cached", "device_gib": device_gib, "workers": options.workers}
            side = Side(name, options.python_jax, "benchmarks.input_sides", given)
            sides.append(stack.enter_context(side))
        answers = take_turns(sides, options.rounds, lambda *_: {"batches": options.batches})
        images = options.batches * CACHED_BATCH
        return [describe_side(side, answers, images) for side in sides]


def measure_decoding(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measures how fast files become batches of pixels.

    Raises:
      UserError: the sides do not give the same pixels, or one failed.
    """
    images = max(options.images // BATCH, 1) * BATCH
    print(f"\ndrawing {images:,} images ...", flush=True)
    write_images(folder / "faces", images)
    build_records(options.python_jax, folder)
    with ExitStack() as stack:
        sides = []
        for name in DECODING:
            python = options.python_torch if "torch" in name else options.python_jax
            given = {"side": name, "folder": str(folder), "workers": options.workers}
            sides.append(stack.enter_context(Side(name, python, "benchmarks.input_sides", given)))
        check_same_pixels({side.name: side.facts.pop("pixels") for side in sides})
        answers = take_turns(sides, options.rounds, lambda *_: {"batches": images // BATCH})
        described = [describe_side(side, answers, images) for side in sides]
    theirs = seconds_of(answers[DECODING[-1]])
    for side in described[:-1]:
        ours = seconds_of(answers[side["side"]])
        side["ours_is_faster_by"] = measurements.ratio(ours, theirs)
    return described


def check_same_pixels(found: dict[str, list[int]]) -> None:
    """Checks that all sides decode the same images to the same pixels.

    Args:
      found: name of side -> the sums of the pixels of some images.

    Raises:
      UserError: they do not; a benchmark of it would mean nothing.
    """
    (first, expected), *others = found.items()
    for name, sums in others:
        if sums != expected:
            raise UserError(
                f"'{name}' decodes to other pixels than '{first}'; nothing was measured"
            )


def measure_memory(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measures the peak memory of trainings that stream, on datasets of several sizes."""
    rows = []
    for size in options.sizes:
        print(f"\ntraining on {size:,} images ...", flush=True)
        work = folder / str(size)
        write_images(work / "faces", size)
        build_records(options.python_jax, work)
        changes = {**MEMORY_CHANGES, "data.data_dir": str(work / "records")}
        flags = [f"--config.{field}={value}" for field, value in changes.items()]
        config = ROOT / "configs" / "synthetic.py"
        rows.append({"images": size, **run_training(options.python_jax, work, config, flags)})
    return rows


def build_records(python: str, folder: Path) -> None:
    """Builds records of the images, by a process whose memory is not that of a training."""
    command = [python, "-m", "dmfer_jax.prepare", "--dataset=folder"]
    command += [f"--source={folder / 'faces'}", f"--data_dir={folder / 'records'}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def run_training(python: str, work: Path, config: Path, flags: list[str]) -> dict[str, Any]:
    """Trains in a process of its own; returns its `peak_mib` of resident memory and `seconds`.

    Raises:
      UserError: it failed.
    """
    command = [python, "-m", "dmfer_jax.train", f"--config={config}", f"--workdir={work / 'run'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, *flags], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)  # only wait4 tells what this one child has used
    process.returncode = status
    if status:
        raise UserError("the training failed; see above why")
    return {
        "peak_mib": round(usage.ru_maxrss / 1_024, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def write_images(folder: Path, number: int) -> None:
    """Writes drawn JPEGs as class folders: as many to train on as `number` says, and a few more."""
    pictures = [draw_jpeg(seed) for seed in range(PICTURES_DRAWN)]
    for split, count in (("train", number), ("valid", BATCH), ("test", BATCH)):
        for index in range(count):
            path = folder / split / ("happiness", "sadness")[index % 2] / f"{split}_{index:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = pictures[index % PICTURES_DRAWN]
            path.write_bytes(with_comment(picture, f"{split} {index}"))


def describe_side(
    side: Side, answers: dict[str, list[dict[str, Any]]], images: int
) -> dict[str, Any]:
    """Returns what one side measured, of so many images a round."""
    rounds = [seconds for (seconds,) in seconds_of(answers[side.name])]
    rates = measurements.summarize([images / seconds for seconds in rounds])
    seconds = [round(value, 4) for value in rounds]
    return {"side": side.name, **side.facts, "images_per_second": rates, "rounds": seconds}


def seconds_of(answers: list[dict[str, Any]]) -> list[list[float]]:
    """Returns the times of each round: one."""
    return [[answer["seconds"]] for answer in answers]


def cached_table(sides: list[dict[str, Any]]) -> str:
    """Returns the rates of cached batches as a table in Markdown."""
    size = "x".join(map(str, CACHED_SHAPE))
    rows = [[side["side"], measurements.spread(side["images_per_second"], 0)] for side in sides]
    return measurements.table([f"cached, {size}, batch {CACHED_BATCH}", "images/s"], rows)


def decoding_table(sides: list[dict[str, Any]]) -> str:
    """Returns the rates of decoding as a table in Markdown."""
    rows = []
    for side in sides:
        faster = side.get("ours_is_faster_by")
        rates = measurements.spread(side["images_per_second"], 0)
        name = f"{side['side']}, {side['workers']} workers"
        rows.append([name, rates, measurements.spread(faster) if faster else ""])
    columns = [f"JPEG 224 to {DECODED_SIZE}", "images/s", "ours is faster by"]
    return measurements.table(columns, rows)


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Returns the memory of the trainings as a table in Markdown."""
    shown = [[f"{row['images']:,}", f"{row['peak_mib']:,.0f}"] for row in rows]
    return measurements.table(["images trained on, streamed", "peak MiB"], shown)


if __name__ == "__main__":
    run(main)
