"""Measures how fast AffectNet's records are built, and in how much memory.

  python benchmarks/build_affectnet.py --out=results/build_affectnet.json

Generated images stand for the real ones, which may not be passed on: JPEGs of 224 x 224 pixels and
15 to 20 kB, in the layout of the new release, each with its four annotations. Each size is built
several times, the sizes in turn, each time by a fresh `python -m dmfer_jax.prepare`; its whole run
is timed, from start to end. Have nothing else running.
"""

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES_DRAWN = 300
"""Distinct pictures; a comment of its own makes each file distinct."""

VALIDATION_SHARE = 0.0137  # 3,999 of 291,650
CLASS_SHARES = (0.26, 0.467, 0.089, 0.049, 0.022, 0.013, 0.087, 0.013)  # in AffectNet's order


def main() -> None:
    """Generates the images, builds their records, prints and writes the measurements."""
    parser = argparse.ArgumentParser(description="Times the build of AffectNet's records.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--runs", type=int, default=3, help="builds of each size")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        for size in options.sizes:
            print(f"generating {size:,} images ...", flush=True)
            write_new_release(work / str(size), size)
        runs = []
        for run in range(options.runs):
            for size in options.sizes:
                measured = build(work / str(size), work / "records")
                runs.append({"images": size, "run": run, **measured})
                print(json.dumps(runs[-1]), flush=True)
    report = {"machine": machine(), "summary": summary(runs), "runs": runs}
    print_table(report["summary"])
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def write_new_release(folder: Path, number: int) -> None:
    """Writes as many images as `number` says, in the layout of AffectNet's new release."""
    pictures = [draw_jpeg(seed) for seed in range(IMAGES_DRAWN)]
    random = np.random.default_rng(0)
    validation = round(number * VALIDATION_SHARE)
    for name, count in (("train_set", number - validation), ("val_set", validation)):
        images, annotations = folder / name / "images", folder / name / "annotations"
        images.mkdir(parents=True)
        annotations.mkdir()
        labels = random.choice(8, count, p=np.divide(CLASS_SHARES, sum(CLASS_SHARES)))
        landmarks = npy_bytes(random.uniform(0, 224, 136))
        for index, label in enumerate(labels):
            valence, arousal = random.uniform(-1, 1, 2)
            (images / f"{index}.jpg").write_bytes(
                with_comment(pictures[index % IMAGES_DRAWN], f"{name} {index}")
            )
            for kind, content in (
                ("exp", npy_bytes(np.array(str(label)))),
                ("val", npy_bytes(np.array(f"{valence:.6g}"))),
                ("aro", npy_bytes(np.array(f"{arousal:.6g}"))),
                ("lnd", landmarks),
            ):
                (annotations / f"{index}_{kind}.npy").write_bytes(content)


def draw_jpeg(seed: int) -> bytes:
    """Returns a JPEG of 224 x 224 pixels with large shapes, edges and grain, as photos have."""
    random = np.random.default_rng(seed)
    picture = np.zeros((224, 224, 3))
    for cells, strength in ((4, 55), (14, 28), (56, 14), (224, 9)):
        noise = random.normal(size=(cells, cells, 3)).astype(np.float32)
        layers = [
            Image.fromarray(noise[..., channel]).resize((224, 224), Image.Resampling.BICUBIC)
            for channel in range(3)
        ]
        picture += strength * np.stack([np.asarray(layer) for layer in layers], axis=-1)
    file = io.BytesIO()
    pixels = np.clip(picture + 128, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=int(random.integers(82, 90)))
    return file.getvalue()


def with_comment(jpeg: bytes, text: str) -> bytes:
    """Returns a JPEG of the same pixels and other bytes."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def npy_bytes(array: np.ndarray) -> bytes:
    """Returns what `numpy.save` writes for an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def build(source: Path, records: Path) -> dict[str, float]:
    """Builds a source's records in a fresh process and removes them.

    Returns:
      `seconds` of the whole command, and its `peak_mib` of resident memory.
    """
    command = [sys.executable, "-m", "dmfer_jax.prepare", "--dataset=affectnet/new"]
    command += [f"--source={source}", f"--data_dir={records}", "--allow_mismatch"]
    began = time.perf_counter()
    # Not subprocess: only wait4 tells what this one child has used.
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=_to_nowhere())
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed; run it by itself to see why")
    shutil.rmtree(records)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1_024, 1),
    }


def _to_nowhere() -> list[tuple[int, int, str, int, int]]:
    return [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def machine() -> dict[str, object]:
    """Returns what the measurements were made on."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def summary(runs: list[dict[str, float]]) -> list[dict[str, float]]:
    """Returns a row for each size: the median time, and the largest memory."""
    rows = []
    for size in sorted({run["images"] for run in runs}):
        chosen = [run for run in runs if run["images"] == size]
        seconds = [run["seconds"] for run in chosen]
        rows.append(
            {
                "images": size,
                "seconds": round(statistics.median(seconds), 2),
                "images_per_second": round(size / statistics.median(seconds)),
                "slowest_images_per_second": round(size / max(seconds)),
                "peak_mib": max(run["peak_mib"] for run in chosen),
            }
        )
    return rows


def print_table(rows: list[dict[str, float]]) -> None:
    """Prints the rows of `summary`."""
    print("\n" + "".join(f"{name:>27}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>27,}" for value in row.values()))


if __name__ == "__main__":
    main()
