"""What averaging over views gains: the accuracy of a run for sets of zooms, and mirror images.

  python -m benchmarks.views --workdir=runs/ferplus_face_cpu --out=results/views_face.json

Scores the validation split by the last epoch for each set, without and with mirror images. The
package predicts from mirror images (`model.flip_average`), and from no zooms: three times the work,
and on FERPlus no gain that can be told from chance.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measurements
from dmfer_jax import run_folder, sharding, trained
from dmfer_jax.building import ensure_built
from dmfer_jax.data.augment import normalize
from dmfer_jax.data.sources import Split, load_split
from dmfer_jax.models.vectors import EXACT

SETS = [
    (0.92,),
    (1.0,),
    (1.08,),
    (1.16,),
    (1.24,),
    (0.92, 1.0),
    (1.0, 1.08),
    (1.0, 1.16),
    (0.92, 1.0, 1.08),
    (1.0, 1.08, 1.16),
    (1.0, 1.08, 1.16, 1.24),
    (0.92, 1.0, 1.08, 1.16),
]


def main() -> None:
    """Scores every set, prints a table and writes the report."""
    parser = argparse.ArgumentParser(description="Scores a run for sets of zooms.")
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished run")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    config: Any = run_folder.load_config(options.workdir)
    data = config.data
    folder = ensure_built(data.dataset, data.source, data.data_dir)
    split = load_split(folder, data.valid_split, data, train=False)
    logits = read_logits(options.workdir, config, split, options.batch_size)
    rows = []
    for zooms in SETS:
        # The head is linear: a mean of logits is what it says of the mean embedding.
        alone, mirrored = (np.mean([one[zoom] for zoom in zooms], axis=0) for one in logits)
        found = [(said.argmax(-1) == split.labels).mean() for said in (alone, alone + mirrored)]
        accuracy, with_mirror_images = map(float, found)
        rows.append(
            {"zooms": zooms, "accuracy": accuracy, "with_mirror_images": with_mirror_images}
        )
    shown = [
        [
            ", ".join(f"{zoom:g}" for zoom in row["zooms"]),
            f"{100 * row['accuracy']:.2f}",
            f"{100 * row['with_mirror_images']:.2f}",
        ]
        for row in rows
    ]
    columns = ["zooms", f"accuracy on {split.name} in %", "with mirror images"]
    print(measurements.table(columns, shown))
    settings = {"config": config.to_dict(), "split": split.name, "images": len(split)}
    measurements.write(options.out, {**measurements.describe(), **settings, "rows": rows})


def read_logits(
    workdir: Path, config: Any, split: Split, batch_size: int
) -> list[dict[float, np.ndarray]]:
    """Returns what the last epoch says of a split, and of its mirror images: {zoom: `[n, K]`}."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    model, state, _ = trained.load_trained(workdir, "last", config, mesh, split.class_names)
    model = model.clone(flip_average=False)

    @partial(jax.jit, static_argnums=2)
    def predict(variables: Any, images: jax.Array, zoom: float) -> list[jax.Array]:
        seen = enlarge(normalize(images), zoom)
        outputs: Any = [model.apply(variables, view) for view in (seen, jnp.flip(seen, axis=2))]
        return [one.logits for one in outputs]

    variables, found = state.eval_variables(), [{}, {}]
    for zoom in sorted({zoom for zooms in SETS for zoom in zooms}):
        batches = []
        for first in range(0, len(split), batch_size):
            rows = np.arange(first, min(first + batch_size, len(split)))
            batches.append(predict(variables, jnp.asarray(split.images[rows]), zoom))
        for logits, of_batches in zip(
            found, zip(*jax.device_get(batches), strict=True), strict=True
        ):
            logits[zoom] = np.concatenate(of_batches)
    return found


def enlarge(images: jax.Array, factor: float) -> jax.Array:
    """Returns images `[n, h, w, c]` enlarged about their center, bilinear, cut to `[h, w]`.

    Two products with constant matrices: no device has to gather pixels.
    """
    if factor == 1.0:
        return images
    rows, columns = (resampling(pixels, factor) for pixels in images.shape[1:3])
    enlarged = jnp.einsum("yh,nhwc->nywc", rows, images, precision=EXACT)
    return jnp.einsum("xw,nywc->nyxc", columns, enlarged, precision=EXACT).astype(images.dtype)


def resampling(pixels: int, factor: float) -> np.ndarray:
    """Returns float32 `[pixels, pixels]`: the weight of each input pixel in each output pixel."""
    middle = (pixels - 1) / 2
    position = np.clip((np.arange(pixels) - middle) / factor + middle, 0, pixels - 1)
    distance = np.abs(position[:, None] - np.arange(pixels))
    return np.maximum(1.0 - distance, 0.0).astype(np.float32)


if __name__ == "__main__":
    main()
