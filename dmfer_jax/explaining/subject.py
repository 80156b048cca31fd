"""What a figure is of: a run's network and some of its images, or what was written of the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from dmfer_jax import run_folder, sharding
from dmfer_jax.building import ensure_built
from dmfer_jax.config import validate
from dmfer_jax.data import sources
from dmfer_jax.data.records import split_names
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.predictor import Predictions, Predictor
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting import writers
from dmfer_jax.reporting.run_report import is_of_run
from dmfer_jax.state import TrainState
from dmfer_jax.trained import load_trained


class Asked(NamedTuple):
    """What is to be drawn, as the flags say it.

    Attributes:
      workdirs: folders of the runs.
      checkpoint: "last" or "best".
      split: to take images of; "" is the figure's own choice.
      names: of images, as their source calls them; none is the figure's own choice.
      limit: images at the most; 0 is the figure's own choice.
      data_dir: where built records are, if not where the run had them.
      source: file or folder as downloaded, if not where the run had it.
      out: the picture to write.
    """

    workdirs: Sequence[Path]
    checkpoint: str
    split: str
    names: Sequence[str]
    limit: int
    data_dir: str
    source: str
    out: Path


@dataclass(frozen=True)
class Subject:
    """A trained network and the images to look at it with.

    Attributes:
      name: of the run.
      title: which checkpoint of it.
      config: of the run.
      model: the network.
      state: of the checkpoint.
      splits: those asked for.
    """

    name: str
    title: str
    config: ConfigDict
    model: Dmfer
    state: TrainState
    splits: list[Split]

    def predict(self, split: Split, positions: np.ndarray | None = None) -> Predictions:
        """Returns the predictions for the images of a split, or for some positions in it."""
        positions = np.arange(len(split)) if positions is None else positions
        parts = [self._predictor(split.images[part]) for part in chunks(positions)]
        return Predictions(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(
            self.model,
            self.state.eval_variables(),
            self.config.data.image_size,
            self.config.data.channels,
            self.splits[0].class_names,
            buckets=(CHUNK,),
        )


POINTS = 1000
"""Examples of a map of embeddings, or of a mean over faces, unless told."""

CHUNK = 64
"""Images that a program takes at a time."""


def chunks(positions: np.ndarray) -> list[np.ndarray]:
    """Returns positions in pieces of `CHUNK`; the last one may be shorter."""
    return [positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK)]


def the_one_run(asked: Asked) -> Path:
    """Returns the one run that a figure is of.

    Raises:
      UserError: there are several.
    """
    if len(asked.workdirs) != 1:
        raise UserError(
            f"--workdir names {len(asked.workdirs)} runs; this figure is of one. Those of several "
            "side by side are tsne and centers"
        )
    return asked.workdirs[0]


def name_runs(workdirs: Sequence[Path]) -> list[str]:
    """Returns a name for each run: its folder's, or the path where two folders are named alike."""
    names = [workdir.resolve().name for workdir in workdirs]
    if len(set(names)) == len(names):
        return names
    return [str(workdir) for workdir in workdirs]


def load_network(workdir: Path, asked: Asked, class_names: Sequence[str] | None = None) -> Any:
    """Returns config, network, state and title of a run's checkpoint, on one device.

    Args:
      workdir: of the run.
      asked: of which the checkpoint is read.
      class_names: of the records, in label order, if there are any.

    Raises:
      UserError: there is no such run or checkpoint.
    """
    config = run_folder.load_config(workdir)
    validate(config)
    mesh = sharding.make_mesh(jax.devices()[:1])
    model, state, note = load_trained(workdir, asked.checkpoint, config, mesh, class_names)
    title = f"{asked.checkpoint} checkpoint: epoch {note['epoch']:.4g}, step {int(state.step):,}"
    return config, model, state, title


def open_run(workdir: Path, asked: Asked, splits: Sequence[str], name: str = "") -> Subject:
    """Returns the network of a run, and splits of its records.

    Args:
      workdir: of the run.
      asked: of which checkpoint, data_dir and source are read.
      splits: names of the splits to load.
      name: of the run, where several are drawn.

    Raises:
      UserError: there is no such run, checkpoint or split, or the records are of other classes
        than the run.
    """
    data: Any = run_folder.load_config(workdir).data
    folder = _find_records(data, asked)
    loaded = [sources.load_split(folder, split, data, train=False) for split in splits]
    config, model, state, title = load_network(workdir, asked, loaded[0].class_names)
    return Subject(name, title, config, model, state, loaded)


def _find_records(data: Any, asked: Asked) -> Path:
    data_dir, source = asked.data_dir or data.data_dir, asked.source or data.source
    return ensure_built(data.dataset, source, data_dir)


def find_main_split(workdir: Path, asked: Asked) -> str:
    """Returns the main one of the run's test splits that the records have, or that for validation.

    Raises:
      UserError: there is no run, or there are no records.
    """
    data: Any = run_folder.load_config(workdir).data
    there = split_names(_find_records(data, asked))
    tests = [name for name in data.test_splits if name in there]
    return reports.main_split(tests or [data.valid_split])


def split_or_valid(asked: Asked, workdir: Path) -> str:
    """Returns the split asked for, else that for validation, which may be looked at at any time."""
    data: Any = run_folder.load_config(workdir).data
    return asked.split or data.valid_split


def find_names(split: Split, names: Sequence[str]) -> np.ndarray:
    """Returns the positions of images by what their source calls them, in the order given.

    Raises:
      UserError: the split has no image of a name.
    """
    known = {str(name): position for position, name in enumerate(split.names)}
    for name in names:
        if name not in known:
            raise UserError(
                f"split '{split.name}' has no image named {name!r}; its names are such as "
                f"{', '.join(map(repr, list(known)[:3]))}"
            )
    return np.array([known[name] for name in names], int)


def find_scores(workdir: Path, which: str, split: str) -> tuple[str, dict[str, Any]]:
    """Returns what was found of a split by the run itself, or by an evaluation of it later.

    Args:
      workdir: of the run.
      which: "last" or "best".
      split: its name; "" is the report's main one.

    Returns:
      Split and checkpoint as a title, and the split's summary (`metrics.summarize`).

    Raises:
      UserError: there is no run, or nobody has scored the split.
    """
    run_folder.load_config(workdir)
    paths = [workdir / "report.json", *sorted((workdir / "evaluation").glob("*.json"))]
    scored: list[str] = []
    found = [reports.read_report(path) for path in paths if path.is_file()]
    has_own = paths[0].is_file()  # else the run is not over
    for report in found:
        if has_own and not is_of_run(report, found[0]):
            continue
        splits = report["checkpoints"].get(which, {"splits": {}})["splits"]
        scored += [name for name in splits if name not in scored]
        chosen = split or (reports.main_split(splits) if splits else "")
        if chosen in splits:
            titles = reports.titled_checkpoints(report)
            # Of "best", where it is the last one too, the title stands under "last".
            title, _ = titles.get(which) or titles["last"]
            return f"{chosen}\n{title}", splits[chosen]
    raise UserError(
        f"{workdir} holds no scores of {repr(split) if split else 'any split'} by its {which} "
        f"checkpoint; scored are: {', '.join(scored) or 'none'}. `python -m dmfer_jax.evaluate "
        f"--workdir={workdir} --checkpoint={which} --splits={split or 'valid'}` scores one"
    )


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's log.

    Raises:
      UserError: there is no run, or no step of it has been logged.
    """
    run_folder.load_config(workdir)
    rows = writers.read_jsonl(workdir / "metrics.jsonl")
    if not any(row.get("kind") == "train" for row in rows):
        raise UserError(f"{workdir / 'metrics.jsonl'} has no line of a training step")
    return rows
