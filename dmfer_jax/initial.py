"""The weights that a run begins with, where `config.init_from` names a file of them.

They are read once, when the run begins. What was taken is kept in `<workdir>/initial_weights.json`,
by the file's name and SHA-256, and stands in every report: a result tells where it started.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.state import TrainState, with_variables
from dmfer_jax.weights import sealing
from dmfer_jax.weights.manifest import is_manifest, list_files
from dmfer_jax.weights.matching import Match, match
from dmfer_jax.weights.packaged import packaged_weights
from dmfer_jax.weights.portable import find_manifest, load_portable
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict
from dmfer_jax.weights.reading import read_weights


class InitialWeights(NamedTuple):
    """Tensors of a file.

    Attributes:
      taken: by the names of `weights.pytorch.to_state_dict`.
      fitted: whether the backbone's BatchNorms have the statistics of data; else those of the
        training images are to be set, see `norm_statistics`.
    """

    taken: dict[str, np.ndarray]
    fitted: bool

    def put_into(self, state: TrainState) -> TrainState:
        """Returns a first state with these weights, see `with_variables`; the rest stays."""
        drawn = {"params": state.params, "batch_stats": state.batch_stats}
        arrays = to_state_dict(jax.device_get(drawn)) | self.taken
        return with_variables(state, from_state_dict(arrays))


def read_initial_weights(
    config: ConfigDict,
    workdir: Path,
    like: TrainState,
    class_names: Sequence[str],
    begins: bool,
    dataset: str,
    *,
    backbone_alone: bool = False,
) -> InitialWeights | None:
    """Reads what a run is to begin with, prints what of it is used, and keeps a record of it.

    Args:
      config: of the run.
      workdir: of the run.
      like: shapes of its state.
      class_names: that it learns to tell apart, in label order.
      begins: whether the run does; one that goes on has its weights from its checkpoint.
      dataset: full name of what it is trained on.
      backbone_alone: whether the rest is another network's, which the file has nothing for.

    Returns:
      The weights; None where the run goes on, or begins with random ones.

    Raises:
      UserError: the file cannot be used, process 0 has another, or the run that goes on began with
        another.
    """
    fields: Any = config
    if not begins:
        _check_same_start(fields.init_from, workdir)
        return None
    if not fields.init_from:
        (workdir / _RECORD).unlink(missing_ok=True)  # of a beginning that was never saved
        if fields.model.frozen_stages and jax.process_index() == 0:
            print("note: config.model.frozen_stages freezes weights that are drawn at random")
        return None
    path = _path(fields.init_from)
    prefix = "backbone." if backbone_alone else ""
    found, trained_on = _match_file(path, config, like, prefix, class_names, dataset)
    if backbone_alone:
        found = found._replace(random=("all but the backbone",))
    record = {
        "file": path.name,
        "sha256": _digest(path),
        "matched": len(found.taken),
        "tensors": found.tensors,
        "not_used": list(found.unused),
        "random": list(found.random),
        "notes": list(found.notes),
        "trained_on": trained_on,
    }
    if jax.process_index() == 0:
        print(f"weights from {path.name}, SHA-256 {record['sha256']}:")
        print("".join(f"  {line}\n" for line in found.lines()), end="")
        text = json.dumps(record, indent=2) + "\n"
        files.write_text(workdir / _RECORD, text)
    elif (of_main := (_recorded(workdir) or record)["sha256"]) != record["sha256"]:
        raise UserError(
            f"config.init_from={path} has SHA-256 {record['sha256']} here, and {of_main} in "
            "process 0; all hosts need the same file"
        )
    return InitialWeights(found.taken, found.fitted)


def describe_start(workdir: Path) -> dict[str, Any]:
    """Returns what a report says of the weights that a run began with; nothing of random ones."""
    record = _recorded(workdir)
    return {"init_from": record} if record else {}


_RECORD = "initial_weights.json"


def _path(init_from: str) -> Path:
    return packaged_weights().get(init_from) or Path(os.path.expanduser(init_from))


def holds_whole_network(init_from: str) -> bool:
    """Whether `config.init_from` is a file of this project, with all parts of a trained network."""
    path = _path(init_from)
    return path.is_file() and find_manifest(path) is not None


def _match_file(
    path: Path,
    config: ConfigDict,
    like: TrainState,
    prefix: str,
    class_names: Sequence[str],
    dataset: str,
) -> tuple[Match, dict[str, list[str]]]:
    """Returns what a file has, and the splits of each dataset that it was trained on.

    Of the network the tensors count whose names begin with the prefix.
    """
    fields: Any = config
    manifest = find_manifest(path)
    # Of a file of ours every byte is checked.
    tensors = to_state_dict(load_portable(path)[1]) if manifest else read_weights(path)
    same = manifest is None or manifest.labels == tuple(class_names)
    options = fields.model.backbone, fields.init_normalization
    shapes = {name: one for name, one in _shapes(like).items() if name.startswith(prefix)}
    try:
        found = match(tensors, shapes, *options, same_classes=same)
    except UserError as error:
        raise UserError(f"config.init_from={path}: {error}") from error
    if manifest is None:
        return found, {}
    notes, trained_on = [*found.notes], sealing.trained_on(manifest.training)
    if not same:
        notes.append(f"its classes are others, or in another order: {', '.join(manifest.labels)}")
    scored = {fields.data.valid_split, *fields.data.test_splits}
    if known := scored & {*trained_on.get(dataset, ())}:
        notes.append(
            f"it was trained on {' and '.join(sorted(known))} of {dataset}: scores on these images "
            "will be too high, and choose no epoch"
        )
    return found._replace(notes=tuple(notes)), trained_on


def _shapes(like: TrainState) -> dict[str, tuple[int, ...]]:
    """The network's names and shapes. No memory is used for what has them."""
    variables = {"params": like.params, "batch_stats": like.batch_stats}
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables)
    return {name: array.shape for name, array in to_state_dict(empty).items()}


def _check_same_start(init_from: str, workdir: Path) -> None:
    """A file that has moved since the run began is as good as there; another one is not."""
    record = _recorded(workdir)
    began = f"{record['file']} (SHA-256 {record['sha256']})" if record else "random weights"
    path = _path(init_from)
    if bool(init_from) != bool(record):
        now = repr(init_from) if init_from else "not set"
        raise UserError(
            f"the run in {workdir} began with {began}, and config.init_from is {now}; set it back "
            "to go on with that run, or use another --workdir"
        )
    if record and path.is_file():
        try:
            digest = _digest(path)
        except FileNotFoundError:  # of a file that a manifest names
            return
        except (ValueError, KeyError, TypeError) as error:
            digest = f"unknown, it cannot be read: {error}"
        if digest != record["sha256"]:
            raise UserError(
                f"the run in {workdir} began with {began}, and config.init_from={path} is another "
                f"file (SHA-256 {digest}); give the first to go on, or use another --workdir"
            )


def _recorded(workdir: Path) -> dict[str, Any] | None:
    path = workdir / _RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        return {**record, "file": str(record["file"]), "sha256": str(record["sha256"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}, which says what the run began with, is damaged ({error})"
        ) from error


def _digest(path: Path) -> str:
    """SHA-256 of the file; of a manifest, followed by the files that it names."""
    with path.open("rb") as file:
        begins = file.read(512)
    digest = hashlib.sha256()
    for part in list_files(path) if is_manifest(begins) else [path]:
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
