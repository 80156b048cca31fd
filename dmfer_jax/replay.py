"""Repeats a training step whose loss or gradient was not finite, and says where the numbers end.

  python -m dmfer_jax.replay --dump=runs/ferplus/nonfinite/1234
  JAX_PLATFORMS=cpu python -m dmfer_jax.replay --dump=runs/ferplus/nonfinite/1234

`dmfer_jax.train` writes such a folder when it stops at a step. Prints the step's loss and gradient,
then which of the network's outputs are not finite, in the order of computing, and which gradients.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import traverse_util
from ml_collections import ConfigDict

from dmfer_jax import checkpoint, command, run_folder, sharding, state, steps
from dmfer_jax.config import validate
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.nonfinite import BATCH
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.reporting import console
from dmfer_jax.state import TrainState


class Part(NamedTuple):
    """Numbers of one place of the step.

    Attributes:
      name: such as "output of backbone/stem" or "gradient of head/kernel".
      size: how many.
      bad: how many of them are not finite.
      largest: the largest absolute value of the finite ones; 0 if there are none.
    """

    name: str
    size: int
    bad: int
    largest: float


class Replay(NamedTuple):
    """What came out of a step done again.

    Attributes:
      step: its number, counted from 1.
      scalars: of the step, as the log has them.
      names: of the records of its batch.
      parts: of the forward pass in the order of computing, then of the gradient by name.
    """

    step: int
    scalars: dict[str, float]
    names: list[str]
    parts: list[Part]


def replay(folder: Path) -> Replay:
    """Does the step in a folder again.

    Args:
      folder: `<workdir>/nonfinite/<step>`.

    Raises:
      UserError: the folder holds no such step, or is damaged.
    """
    config = run_folder.load_config(folder)
    validate(config)
    batch = _read_batch(folder)
    model = state.make_model(config, len(batch["class_names"]))
    optimizer = make_optimizer(config, make_schedule(config, 1))
    mesh = sharding.make_mesh(jax.devices()[:1])  # whatever number of images a batch has
    like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    with checkpoint.Checkpoints(folder) as checkpoints:
        step = checkpoints.step("last")
        if step is None:
            raise UserError(f"{folder} holds no state to repeat a step from")
        before = checkpoints.load(step, like, sharding.replicated(mesh))
    weights = batch.get("class_weights")
    parts = examine(config, model, before, batch, weights)
    train_step = steps.make_train_step(config, model, optimizer, mesh, weights)
    arrays = {name: batch[name] for name in ("image", "target")}
    _, scalars = train_step(before, sharding.put_batch(arrays, mesh))
    found = {name: value.item() for name, value in jax.device_get(scalars).items()}
    return Replay(step + 1, found, batch["name"].tolist(), parts)


def examine(
    config: ConfigDict,
    model: Dmfer,
    before: TrainState,
    batch: dict[str, np.ndarray],
    class_weights: np.ndarray | None,
) -> list[Part]:
    """Returns the numbers of each part of the network in a step, and of each gradient.

    Args:
      config: of the run.
      model: of the run.
      before: state before the step.
      batch: `image` and `target`.
      class_weights: see `steps.make_train_step`.
    """
    loss_fn = steps.make_loss_function(config, model, class_weights)
    observed = steps.make_loss_function(config, model, class_weights, capture_intermediates=True)

    @jax.jit
    def compute(before: TrainState, images: jax.Array, targets: jax.Array) -> dict[str, Any]:
        images, targets = steps.augment_batch(config, before.step, images, targets)
        grads, _ = jax.grad(loss_fn, has_aux=True)(before.params, before, images, targets)
        # Beside the gradient: what passes through it comes out in the order of names.
        loss, (parts, _, changed) = observed(before.params, before, images, targets)
        places = {
            "images": images,
            **_flatten(changed["intermediates"], "output of "),
            **parts,
            "loss": loss,
            **_flatten(grads, "gradient of "),
        }
        if rho := config.optimizer.sam_rho:
            above = steps.climb(before.params, grads, rho)
            take_gradient = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, _), grads = take_gradient(above, before, images, targets)
            places |= {
                **_flatten(above, "climbed "),
                "loss where climbed to": loss,
                **_flatten(grads, "gradient there of "),
            }
        numbered = enumerate(places.items())
        return {f"{number:06} {name}": _measure(values) for number, (name, values) in numbered}

    measured = jax.device_get(compute(before, batch["image"], batch["target"]))
    return [
        Part(key.partition(" ")[2], int(size), int(bad), float(largest))
        for key, (size, bad, largest) in measured.items()
    ]


def _flatten(tree: Any, kind: str) -> dict[str, jax.Array]:
    """The arrays of a tree by name, in the order in which they came into it."""
    flat: dict[str, jax.Array] = {}
    for path, node in traverse_util.flatten_dict(tree).items():
        name = "/".join(part for part in path if part != "__call__") or "network"
        leaves = jax.tree.leaves(node)
        numbered = len(leaves) > 1  # of several stages, or several calls
        flat |= {f"{kind}{name}{f'[{i}]' * numbered}": leaf for i, leaf in enumerate(leaves)}
    return flat


def _measure(values: jax.Array) -> tuple[Any, ...]:
    finite = jnp.isfinite(values)
    return values.size, jnp.sum(~finite), jnp.max(jnp.where(finite, jnp.abs(values), 0))


def _read_batch(folder: Path) -> dict[str, np.ndarray]:
    path = folder / BATCH
    try:
        with np.load(path, allow_pickle=False) as arrays:
            batch = dict(arrays)
        if missing := {"image", "target", "name", "class_names"} - batch.keys():
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return batch
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give a folder that training wrote, such as "
            "runs/ferplus/nonfinite/1234"
        ) from error


def print_replay(found: Replay) -> None:
    """Prints the scalars of the step, and where its numbers are not finite."""
    print(f"step {found.step}, records {', '.join(found.names)}\n")
    for name, value in found.scalars.items():
        print(f"  {name:<24}{value:.6g}")
    bad = [part for part in found.parts if part.bad]
    if not bad:
        print("\nEvery number of the step is finite here: it was the machine, or another version.")
        return
    rows = [[p.name, f"{p.bad:,}", f"{p.size:,}", f"{p.largest:.3g}"] for p in bad[:_SHOWN]]
    header = ["where", "not finite", "of", "largest other"]
    title = f"{len(bad)} of {len(found.parts)} places have numbers that are not finite"
    console.print_table(console.Console(highlight=False), title, header, rows)


_SHOWN = 20


def main(argv: Sequence[str]) -> None:
    """Repeats the step that the flag names."""
    del argv
    print_replay(replay(Path(flags.FLAGS.dump)))


if __name__ == "__main__":
    flags.DEFINE_string("dump", None, "Folder that training wrote when it stopped.", required=True)
    command.run(main)
