"""Checkpoints: the latest, and the best on the validation split. The only file that knows Orbax.

`<workdir>/checkpoints/<step>/` holds a `TrainState` and a note in JSON: config, class names, epoch,
validation accuracy, seconds of training so far.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from dmfer_jax.config import get_config
from dmfer_jax.errors import UserError
from dmfer_jax.state import TrainState

# Any: Orbax's annotations do not accept its own policies.
_training: Any = ocp.training


class Checkpoints:
    """The checkpoints of one run, saved in the background.

    Use as a context manager; leaving it waits for a save in flight and raises its error.
    """

    def __init__(self, workdir: Path):
        """Opens `workdir/checkpoints`, which may not exist yet."""
        policies = _training.preservation_policies
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(1),
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics["accuracy"],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._checkpointer = _training.Checkpointer(
            (workdir / "checkpoints").absolute(),
            preservation_policy=keep,
            save_decision_policy=_training.save_decision_policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )
        self._saving: Any = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._checkpointer.close()

    def save(
        self, state: TrainState, note: Mapping[str, Any], valid_accuracy: float | None = None
    ) -> None:
        """Begins to save a state; the one before must have been written, or its error is raised.

        Args:
          state: what to save.
          note: JSON values to keep with it.
          valid_accuracy: what the best checkpoint is chosen by; None within an epoch.
        """
        self.wait()
        step = int(jax.device_get(state.step))
        latest = self._checkpointer.latest
        if latest is not None and latest.step == step:
            return
        metrics = None if valid_accuracy is None else {"accuracy": valid_accuracy}
        self._saving = self._checkpointer.save_async(
            step, state, metrics=metrics, custom_metadata=dict(note)
        )

    def wait(self) -> None:
        """Waits for the save in flight, and raises its error if it failed."""
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def step(self, which: str) -> int | None:
        """Returns the step of the "last" or the "best" checkpoint, None if there is none."""
        checkpoints = self._checkpointer.checkpoints
        if which == "best":
            checkpoints = [c for c in checkpoints if c.metrics]
            checkpoints = sorted(checkpoints, key=lambda c: (c.metrics["accuracy"], c.step))
        return checkpoints[-1].step if checkpoints else None

    def note(self, step: int) -> dict[str, Any]:
        """Returns the note saved with a step."""
        return dict(self._checkpointer.metadata(step).custom_metadata)

    def check_classes(self, step: int, class_names: Sequence[str]) -> None:
        """Refuses records that are not of the classes which a checkpoint tells apart.

        Args:
          step: of a checkpoint that is there.
          class_names: of the records, in label order.

        Raises:
          UserError: the classes, or their order, differ.
        """
        known = self.note(step).get("labels", class_names)
        if list(known) != list(class_names):
            raise UserError(
                f"checkpoint {self._checkpointer.directory / str(step)} tells apart "
                f"{', '.join(known)}, and the classes of the records are {', '.join(class_names)}; "
                "give the records that it was trained on"
            )

    def load(self, step: int, like: TrainState, sharding: Sharding) -> TrainState:
        """Reads the state saved at a step onto devices.

        Args:
          step: of a checkpoint that is there.
          like: a state of the same shapes and types, abstract (`jax.eval_shape`) or not.
          sharding: where to put the arrays.

        Raises:
          UserError: the checkpoint does not hold a state of these shapes.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        try:
            return self._checkpointer.load(step, abstract)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {self._checkpointer.directory / str(step)} holds another network or "
                f"optimizer than the config describes; use another --workdir. {error}"
            ) from error


def save_config(workdir: Path, config: ConfigDict) -> None:
    """Writes `workdir/config.json`, or checks that the one there is the same.

    A run may be continued for longer or with other logging, nothing else.

    Raises:
      UserError: the folder holds a run of another config; the message lists what differs.
    """
    path = workdir / "config.json"
    new = json.loads(config.to_json_best_effort())
    if path.exists():
        old = json.loads(_read_config(path).to_json_best_effort())
        differences = _differences(old, new)
        if differences:
            raise UserError(
                f"{workdir} holds a run of another config: {'; '.join(differences)}. "
                "Use another --workdir, or set these back to go on with that run."
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new, indent=2) + "\n")


def load_config(workdir: Path) -> ConfigDict:
    """Returns the config of the run in a folder.

    Raises:
      UserError: there is no run in the folder.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run: there is no {path.name} in it")
    return _read_config(path)


def _read_config(path: Path) -> ConfigDict:
    """A run's config; fields that were not there yet get their defaults, which do what it did."""
    config = get_config()
    config.update(json.loads(path.read_text()))
    return config


_MAY_CHANGE = (
    "init_from",  # a path; that the file is the same is checked in `initial`
    "data.source",
    "data.data_dir",
    "data.memory_gib",
    "data.device_gib",
    "data.workers",
    "train.log_every",
    "train.checkpoint_every",
    "train.eval_batch_size",
)
"""Fields that do not change what a run computes."""


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for key, value in tree.items():
            if isinstance(value, dict):
                leaves |= flat(value, f"{prefix}{key}.")
            else:
                leaves[prefix + key] = value
        return leaves

    before, now = flat(old), flat(new)
    return [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in _MAY_CHANGE
    ]
