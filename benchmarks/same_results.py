"""Checks that the ways in which layers are computed change no result: two trainings, step by step.

  python benchmarks/same_results.py --out=results/same_results.json

One has the convolutions, max pooling and attention of this project, the other those of XLA and Flax
as they come. Both begin with the same weights and see the same drawn images. In float32 any other
order of additions lets two runs part slowly; in float64 what is left is the function.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import measurements
from benchmarks.both_networks import describe_network, make_config
from benchmarks.side_by_side import run
from dmfer_jax import sharding, state, steps
from dmfer_jax.models.formulation import plain
from dmfer_jax.optimizer import make_optimizer, make_schedule

CLASSES = 8
CHANGES: dict[str, Any] = {
    "data.image_size": 56,
    "model.width": 0.5,
    "model.embedding": 128,
    "optimizer.warmup_epochs": 0.0,
    "train.batch_size": 32,
}


def main() -> None:
    """Trains both ways in both types, prints a table and writes the report."""
    parser = argparse.ArgumentParser(description="Checks that results are the same.")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    rate = options.learning_rate * 256 / CHANGES["train.batch_size"]
    config: Any = make_config({**CHANGES, "optimizer.learning_rate": rate})
    rows = []
    for dtype in ("float32", "float64"):
        ours = train(config, dtype, options.steps)
        with plain():
            others = train(config, dtype, options.steps)
        difference = np.abs(ours - others) / others
        rows.append(
            {
                "type": dtype,
                "losses": ours.tolist(),
                "losses_of_plain_layers": others.tolist(),
                "largest_relative_difference": {
                    str(until): float(difference[:until].max())
                    for until in sorted({10, 25, options.steps})
                    if until <= options.steps
                },
            }
        )
    untils = list(rows[0]["largest_relative_difference"])
    shown = [
        [row["type"], *(f"{row['largest_relative_difference'][until]:.0e}" for until in untils)]
        for row in rows
    ]
    print(f"\n{describe_network(CHANGES)}, learning rate {options.learning_rate:g}\n")
    print(measurements.table(["largest difference in", *(f"{n} steps" for n in untils)], shown))
    settings = {"steps": options.steps, "learning_rate": options.learning_rate, "changes": CHANGES}
    measurements.write(options.out, {**measurements.describe(), **settings, "runs": rows})


def train(config: Any, dtype: str, number: int) -> np.ndarray:
    """Returns the losses of a run on drawn images.

    Args:
      config: of the experiment.
      dtype: of the weights and of what is computed with them.
      number: of steps.
    """
    with jax.enable_x64(dtype == "float64"):
        mesh = sharding.make_mesh(jax.devices()[:1])
        model = state.make_model(config, CLASSES).clone(dtype=dtype, param_dtype=dtype)
        optimizer = make_optimizer(config, make_schedule(config, number))
        first: Any = jax.jit(lambda: state.init_state(config, model, optimizer))()
        train_state = jax.device_put(first, sharding.replicated(mesh))
        step = steps.make_train_step(config, model, optimizer, mesh)
        random, losses = np.random.default_rng(0), []
        size, batch_size = config.data.image_size, config.train.batch_size
        for _ in range(number):
            labels = random.integers(0, CLASSES, batch_size)
            batch = {
                "image": random.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8),
                "target": np.eye(CLASSES, dtype=np.float32)[labels],
            }
            train_state, scalars = step(train_state, sharding.put_batch(batch, mesh))
            losses.append(scalars["loss"])
        return np.array(jax.device_get(losses), np.float64)


if __name__ == "__main__":
    run(main)
