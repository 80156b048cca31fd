"""Measures predicting a folder: against one call per photo, in memory, and over a kill.

  python benchmarks/predict_photos.py --photos=path/to/photos --model=model.safetensors --count=2000

The folder is filled with resized copies and crops of the photos given. Prints how long the command
takes for those photos themselves when nothing was compiled before; how many photos of the folder it
does a second, beside one command for each photo, `model.stream` and `model(photo)`; its peak memory
with all of them and with half; and whether a run that was killed and started again has each
photo once, with the same labels.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script

from PIL import Image

from benchmarks import measurements


def make_folder(photos: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Fills a folder with resized copies and crops, of 160 to 640 pixels; the same ones each time.

    Args:
      photos: to begin with.
      folder: made.
      count: of files.
    """
    draw = random.Random(0)
    originals = [Image.open(path).convert("RGB") for path in photos]
    folder.mkdir()
    made = []
    for index in range(count):
        image = originals[index % len(originals)]
        if index % 2:  # most of it, so that the faces stay in it
            keep = draw.uniform(0.8, 1.0)
            width, height = round(image.width * keep), round(image.height * keep)
            x = draw.randint(0, image.width - width)
            image = image.crop((x, 0, x + width, height))
        side = draw.randint(160, 640)
        copy = image.copy()
        copy.thumbnail((side, side))
        made.append(folder / f"{index:05d}.jpg")
        copy.save(made[-1], quality=90)
    return made


def run_command(arguments: Sequence[str], kill_at: int = 0) -> dict[str, Any]:
    """Runs the command to its end, or until its file has a number of bytes; then it is killed.

    Returns:
      Its `seconds`, `cpu_seconds`, `peak_mib` and `status`.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dmfer_jax.predict", *arguments],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    out = next((Path(a.partition("=")[2]) for a in arguments if a.startswith("--out=")), None)
    while kill_at and out and process.poll() is None:
        if out.exists() and out.stat().st_size >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    _, status, usage = os.wait4(process.pid, 0)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "status": os.waitstatus_to_exitcode(status),
    }


def measure_cold(arguments: Sequence[str], scratch: Path, times: int = 3) -> list[float]:
    """Seconds of the command where nothing that it compiles is kept from before."""
    seconds = []
    for number in range(times):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(scratch / f"compiled{number}")
        seconds.append(run_command(arguments)["seconds"])
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    return seconds


def read_labels(path: Path) -> list[tuple[str, str]]:
    """Photo and expression of every row."""
    with path.open(newline="") as file:
        return [(row["photo"], row["expression"]) for row in csv.DictReader(file)]


def measure_in_process(model_path: str, made: Sequence[Path]) -> dict[str, float]:
    """Seconds of `model.stream` and of `model(photo)` for the same photos, compiling left out."""
    from dmfer_jax.expression_model import ExpressionModel
    from dmfer_jax.loading import find_model, load_predictor

    predictor = load_predictor(find_model(model_path))
    predictor.warm_up()
    model = ExpressionModel(predictor)
    model(made[0])
    found = {}
    for name in ("stream", "calls"):
        began, cpu = time.perf_counter(), time.process_time()
        if name == "stream":
            faces = sum(len(photo.faces) for photo in model.stream(made))
        else:
            faces = sum(len(model(photo)) for photo in made)
        found[f"{name}_seconds"] = time.perf_counter() - began
        found[f"{name}_cpu_seconds"] = time.process_time() - cpu
        found[f"{name}_faces"] = faces
    return found


def main() -> None:
    """Measures what the flags say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of a few photos")
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--commands", type=int, default=5, help="photos with a command each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    photos = sorted(path for path in options.photos.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(photos, options, Path(scratch))
    print(f"{len(photos)} photos cold in {', '.join(f'{s:.1f}' for s in report['cold_seconds'])} s")
    one, whole = report["one_command_each"], report["folder"]
    rate = report["count"] / whole["seconds"]
    print(
        f"{rate:.1f} photos/s, {rate * one['seconds'] / one['photos']:.1f} times one command each"
    )
    inside = report["in_process"]
    print(
        f"stream is {inside['calls_seconds'] / inside['stream_seconds']:.2f} times as fast as calls"
    )
    print(
        f"peak memory {whole['peak_mib']:.0f} MiB, {report['half']['peak_mib']:.0f} MiB with half "
        f"of the photos"
    )
    print(f"killed and started again: {report['killed']}")
    measurements.write(options.out, report)


def measure(photos: Sequence[Path], options: Any, scratch: Path) -> dict[str, Any]:
    """Returns all measurements, as `main` prints them."""
    made = make_folder(photos, scratch / "all", options.count)
    make_folder(photos, scratch / "half", max(options.count // 2, 1))
    model = f"--model={options.model}"
    cold = measure_cold([*map(str, photos), model], scratch)
    run_command([str(made[0]), model])  # so that the single ones find the network compiled
    whole = run_command([str(scratch / "all"), model, f"--out={scratch / 'whole.csv'}"])
    size = (scratch / "whole.csv").stat().st_size
    again = [str(scratch / "all"), model, f"--out={scratch / 'killed.csv'}"]
    killed, resumed = run_command(again, kill_at=size // 3), run_command(again)
    began = time.perf_counter()
    for path in made[: options.commands]:
        run_command([str(path), model])
    seconds = time.perf_counter() - began
    labels = read_labels(scratch / "whole.csv")
    return {
        "count": len(made),
        "machine": measurements.machine(),
        "cold_seconds": cold,
        "folder": whole,
        "half": run_command([str(scratch / "half"), model, f"--out={scratch / 'half.csv'}"]),
        "one_command_each": {"photos": options.commands, "seconds": seconds},
        "in_process": measure_in_process(options.model, made[: max(len(made) // 5, 1)]),
        "killed": {
            "first_status": killed["status"],
            "second_status": resumed["status"],
            "same_rows": read_labels(scratch / "killed.csv") == labels,
            "photos": len({photo for photo, _ in labels}),
        },
    }


if __name__ == "__main__":
    main()
