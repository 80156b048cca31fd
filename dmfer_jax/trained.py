"""The checkpoint of a run, for whatever uses a trained network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import checkpoint, run_folder, sharding, state
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.state import TrainState


def load_trained(
    workdir: Path,
    which: str,
    config: ConfigDict,
    mesh: Mesh,
    class_names: Sequence[str] | None = None,
) -> tuple[Dmfer, TrainState, dict[str, Any]]:
    """Returns the network, its state and the note of a checkpoint.

    Args:
      workdir: of the run.
      which: "last" or "best".
      config: of the run.
      mesh: devices that get the state.
      class_names: of the records that the network is to be used on, in label order, if there are
        any.

    Raises:
      UserError: there is no such checkpoint, it is damaged or of another config, or its classes
        are others.
    """
    with checkpoint.Checkpoints(workdir) as checkpoints:
        step = checkpoints.step(which)
        if step is None:
            best = "; an epoch is chosen at its end, on a validation split that is not trained on"
            raise UserError(f"{workdir} has no {which} checkpoint{best * (which == 'best')}")
        note, folder = checkpoints.note(step), checkpoints.path(step)
        if class_names is not None:
            check_classes(folder, note, class_names)
        run_folder.check_same_config(folder, note["config"], config)
        model = state.make_model(config, len(note["labels"]))
        optimizer = make_optimizer(config, make_schedule(config, 1))
        like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
        return model, checkpoints.load(step, like, sharding.replicated(mesh)), note


def check_classes(folder: Path, note: dict[str, Any], class_names: Sequence[str]) -> None:
    """Refuses records that are not of the classes which a checkpoint tells apart.

    Args:
      folder: of the checkpoint, for the message.
      note: of the checkpoint.
      class_names: of the records, in label order.

    Raises:
      UserError: the classes, or their order, differ.
    """
    known = note["labels"]
    if list(known) != list(class_names):
        raise UserError(
            f"checkpoint {folder} tells apart {', '.join(known)}, and the classes of the records "
            f"are {', '.join(class_names)}; give the records that it was trained on"
        )
