"""What is scored: the checkpoint of a run, or the network in a file, and on which records."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import initial, run_folder, sharding, steps
from dmfer_jax.config import get_config, split_dataset, validate
from dmfer_jax.data.records import split_names
from dmfer_jax.describe import describe_records, describe_run
from dmfer_jax.errors import UserError
from dmfer_jax.loading import find_model, load_weights, make_network
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting.environment import describe_environment
from dmfer_jax.scoring import Trained
from dmfer_jax.trained import load_trained
from dmfer_jax.weights.packaged import packaged_models
from dmfer_jax.weights.sealing import trained_on

Loaded = tuple[steps.EvalStep, Trained, dict[str, Any]]
"""An evaluation step, what it scores, and the checkpoint's note."""

Loader = Callable[..., Loaded]
"""Takes what `trained.load_trained` takes."""


class Subject(NamedTuple):
    """What is scored.

    Attributes:
      config: of the data and of the batches.
      folder: that its reports go into.
      which: the checkpoint's name in a report.
      class_names: that it tells apart; None where they must be those of the records.
      load: takes devices, and the classes of the records in label order.
      choose_splits: takes the folder of the records, and returns what is scored unless told.
      describe: takes the folder of the records and the names of the splits that are scored, and
        returns what a report says beside scores.
    """

    config: ConfigDict
    folder: Path
    which: str
    class_names: tuple[str, ...] | None
    load: Callable[[Mesh, Sequence[str]], Loaded]
    choose_splits: Callable[[Path], Sequence[str]]
    describe: Callable[[Path, Sequence[str]], dict[str, Any]]


def load_ours(
    workdir: Path, which: str, config: ConfigDict, mesh: Mesh, class_names: Sequence[str]
) -> Loaded:
    """The `Loader` of this project's checkpoints."""
    model, train_state, note = load_trained(workdir, which, config, mesh, class_names)
    return steps.make_eval_step(model, mesh), train_state, note


def of_run(
    workdir: Path,
    which: str,
    *,
    with_lists: bool = False,
    data_dir: str = "",
    source: str = "",
    load: Loader = load_ours,
) -> Subject:
    """Returns a checkpoint of a run, on the records that it was trained on.

    Args:
      workdir: of the run.
      which: "last" or "best".
      with_lists: whether images of lists are scored, too, which are of test splits.
      data_dir: where built records are, if not where the run had them.
      source: file or folder as downloaded, if not where the run had it.
      load: what reads the checkpoint.

    Raises:
      UserError: there is no such run.
    """
    config = run_folder.load_config(workdir)
    config.data.data_dir = data_dir or config.data.data_dir
    config.data.source = source or config.data.source
    validate(config)
    data: Any = config.data

    def choose_splits(_: Path) -> Sequence[str]:
        if not with_lists and data.valid_split not in data.train_splits:
            return [data.valid_split]
        if not data.test_splits:
            raise UserError("the run has no test splits; name what to score with --splits")
        return data.test_splits

    return Subject(
        config,
        workdir / "evaluation",
        which,
        None,
        lambda mesh, class_names: load(workdir, which, config, mesh, class_names),
        choose_splits,
        lambda folder, _: {**describe_run(config, folder), **initial.describe_start(workdir)},
    )


def of_model(
    model: str,
    dataset: str,
    *,
    protocol: str = "",
    drop_classes: Sequence[str] = (),
    data_dir: str = "",
    source: str = "",
) -> Subject:
    """Returns the network in a file, on any records whose classes it knows.

    Args:
      model: a file that `export` wrote (safetensors or npz), or the name of one in the package.
      dataset: "name" or "name/variant".
      protocol: of FERPlus's labels; if not given that of the model where it was trained on FERPlus,
        else "majority".
      drop_classes: of the records, whose images are left out.
      data_dir: where built records are, if not at the usual place.
      source: file or folder as downloaded.

    Raises:
      UserError: there is no such model or dataset.
    """
    path = find_model(model)
    manifest, variables = load_weights(path)
    training, config = manifest.training, get_config()
    data: Any = config.data
    data.dataset, data.drop_classes, data.source = dataset, tuple(drop_classes), source
    data.data_dir = data_dir or data.data_dir
    data.image_size, data.channels = manifest.image_size, manifest.channels
    is_ferplus = split_dataset(dataset)[0] == "ferplus"
    if protocol and not is_ferplus:
        raise UserError(f"--protocol is about FERPlus's votes, and --dataset is {dataset}")
    if is_ferplus:
        said = training.get("protocol")
        data.protocol = protocol or (said if isinstance(said, str) else "") or data.protocol
    validate(config)

    digest = _digest(path)
    # Nothing is written over the report of another network, or of other labels or classes.
    of_file = model if model in packaged_models() else f"{path.stem}-{digest[:8]}"
    kept = [f"without_{'_'.join(drop_classes)}"] if drop_classes else []
    folder = Path("evaluation", of_file, dataset, *[data.protocol] * is_ferplus, *kept)

    def load(mesh: Mesh, class_names: Sequence[str]) -> Loaded:
        del class_names  # the splits have those of the model
        eval_step = steps.make_eval_step(make_network(manifest), mesh)
        # Once, for all batches.
        whole = jax.make_array_from_process_local_data(sharding.replicated(mesh), variables)
        return (
            eval_step,
            FromFile(whole, _number(training, "step")),
            {"epoch": float(_number(training, "epoch"))},
        )

    def describe(records: Path, names: Sequence[str]) -> dict[str, Any]:
        found = describe_records(config, records)
        described = {"file": path.name, "sha256": digest, "training": dict(training)}
        seen = _seen(training, found["dataset"], names)
        return {**found, "model": described, **seen, "environment": describe_environment()}

    return Subject(
        config,
        folder,
        "best" if training.get("checkpoint") == "best" else "last",
        manifest.labels,
        load,
        lambda records: [reports.main_split(split_names(records))],
        describe,
    )


@dataclass(frozen=True)
class FromFile:
    """The weights of a file, as `scoring.Trained`.

    Attributes:
      variables: {"params", "batch_stats"}.
      step: that they are of; 0 where nothing says so.
    """

    variables: dict[str, Any]
    step: int

    @property
    def params(self) -> Any:
        """The network's parameters."""
        return self.variables["params"]

    def eval_variables(self) -> dict[str, Any]:
        """What the evaluation step takes."""
        return self.variables

    def class_centers(self) -> Any:
        """The class centers where they are parameters; others are in no file."""
        return self.params.get("centers")


def _number(training: Mapping[str, Any], name: str) -> Any:
    """A number that a file, which may be a stranger's, says of its training; 0 without any."""
    value = training.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


def _seen(training: Mapping[str, Any], dataset: str, names: Sequence[str]) -> dict[str, Any]:
    """Which of the splits a model was trained on, as far as its file says so."""
    known = trained_on(training).get(dataset, ())
    seen = [name for name in names if name in known]
    return {"seen": seen} if seen else {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
