"""What a run consists of before its first step: data, network, optimizer, and what it is told by.

Everything here stays the same while a run trains, so that whatever cannot be used is found before
hours are spent on it.
"""

import bisect
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import distributed, run_folder, sharding, state
from dmfer_jax.data import pipeline, sources
from dmfer_jax.data.records import split_names
from dmfer_jax.data.sources import Split
from dmfer_jax.describe import describe_run
from dmfer_jax.errors import UserError
from dmfer_jax.feeding import Feed
from dmfer_jax.models import face_resnet, summary
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.reporting import console
from dmfer_jax.trained import check_classes


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: ConfigDict
    workdir: Path
    dataset_dir: Path
    description: dict[str, Any]  # of `describe.describe_run`
    mesh: Mesh
    model: Dmfer
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    train_feed: Feed
    valid_feed: Feed | None  # none where it is trained on
    epoch_ends: list[int]  # the step at which each epoch is over

    @property
    def train(self) -> Split:
        """What is trained on."""
        return self.train_feed.split

    @property
    def valid(self) -> Split | None:
        """What the best epoch is chosen on."""
        return self.valid_feed.split if self.valid_feed else None

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epoch_ends[-1]

    def epochs_over(self, step: int) -> float:
        """Returns how many epochs are over after a step; a whole number where one ends."""
        over = bisect.bisect_right(self.epoch_ends, step)
        if over == len(self.epoch_ends):
            return float(over)
        begun, end = [0, *self.epoch_ends][over : over + 2]
        return over + (step - begun) / (end - begun)


def check_image_size(config: ConfigDict) -> None:
    """Refuses images that are too small for the backbone to learn from.

    Raises:
      UserError: naming the size that it needs.
    """
    size: Any = config.data.image_size
    if config.model.backbone == "face_resnet" and size < face_resnet.SMALLEST:
        raise UserError(
            f"config.data.image_size is {size}; face_resnet needs {face_resnet.SMALLEST} at least"
        )


def start_run(config: ConfigDict, workdir: Path, dataset_dir: Path) -> Run:
    """Reads the data and makes what the run consists of.

    Args:
      config: of `config.get_config`, with changes.
      workdir: gets the config, or has that of the same run.
      dataset_dir: of the records.

    Raises:
      UserError: config, data or workdir cannot be used.
    """
    check_image_size(config)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.train.batch_size, "train.batch_size", mesh)
    options = config.data
    joined = "+".join(options.train_splits)
    train_split = sources.load_split(dataset_dir, joined, options, train=True)
    valid_split = None
    if options.valid_split not in options.train_splits:
        valid_split = sources.load_split(dataset_dir, options.valid_split, options, train=False)
    elif options.test_splits and not set(options.test_splits) & set(split_names(dataset_dir)):
        raise UserError(
            f"config.data.train_splits has '{options.valid_split}', and no split of "
            "config.data.test_splits is there: nothing would be left to score. To train a model "
            "all the same, such as one to hand over, give --config.data.test_splits=()"
        )
    train = config.train
    epoch_ends = pipeline.epoch_ends(len(train_split), train.batch_size, train.epochs)
    if not epoch_ends[0]:
        raise UserError(
            f"config.train.batch_size is {config.train.batch_size}, more than the "
            f"{len(train_split)} training examples; give fewer, such as "
            f"--config.train.batch_size={max(len(train_split) // 4, 1)}"
        )
    for name in {*options.test_splits} & {*split_names(dataset_dir)}:
        sources.load_split(dataset_dir, name, options, train=False)  # else found out at the end
    description = describe_run(config, dataset_dir)
    if distributed.is_main():
        run_folder.save_config(workdir, config)
    else:
        distributed.check_shared(workdir / "config.json")
        run_folder.check_config_of_main(workdir, config)
    schedule = make_schedule(config, epoch_ends[-1])
    return Run(
        config=config,
        workdir=workdir,
        dataset_dir=dataset_dir,
        description=description,
        mesh=mesh,
        model=state.make_model(config, len(train_split.class_names)),
        optimizer=make_optimizer(config, schedule),
        schedule=schedule,
        train_feed=Feed(train_split, mesh, options.device_gib),
        valid_feed=Feed(valid_split, mesh, options.device_gib) if valid_split else None,
        epoch_ends=epoch_ends,
    )


def check_goes_on(run: Run, folder: Path, note: dict[str, Any]) -> None:
    """Refuses to go on from a checkpoint of another run.

    Args:
      run: that goes on.
      folder: of the checkpoint.
      note: of the checkpoint.

    Raises:
      UserError: its classes, its config or its records are others.
    """
    check_classes(folder, note, run.train.class_names)
    run_folder.check_same_config(folder, note["config"], run.config)
    before, now = note["run"], run.description
    for field in ("dataset", "records_sha256"):
        if before[field] != now[field]:
            raise UserError(
                f"{run.workdir} was trained on {before['dataset']} with records of digest "
                f"{before['records_sha256'][:16]}; those in {run.dataset_dir} are "
                f"{now['dataset']} of digest {now['records_sha256'][:16]}. Give the records that "
                "it was trained on by --config.data.data_dir, or another --workdir."
            )


def print_summary(run: Run) -> None:
    """Prints the network's parts with their parameters, and what it will be trained on.

    On a map of 1 x 1 a query or key of length 1 is +1 or -1, so it gets no gradient; a note says
    so.
    """
    options = run.config.data
    found = summary.summarize(run.model, options.image_size, options.channels)
    table = [[part.name, part.output, f"{part.parameters:,}"] for part in found.parts]
    table.append(["all", "", f"{found.parameters:,}"])
    size = f"{options.image_size} x {options.image_size} x {options.channels}"
    console.print_table(
        console.Console(highlight=False),
        f"DMFER: images {size}, {found.flops / 1e6:,.0f} MFLOPs each",
        ["part", "output", "parameters"],
        table,
    )
    if {part.name: part.output for part in found.parts}.get("attention", "").startswith("1 x 1 "):
        print(
            "note: the deep scale has a single position, of which channel attention can learn no "
            "queries and keys; larger images have more"
        )
    if isinstance(run.train.images, sources.RecordImages):
        gib = len(run.train) * options.image_size**2 * options.channels / 2**30
        print(
            f"note: training images are decoded anew in each epoch; all take {gib:.1f} GiB, more "
            f"than config.data.memory_gib, {options.memory_gib:g}"
        )
    validation = f"{len(run.valid):,}" if run.valid else "no"
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    print(
        f"\n{options.dataset}: {len(run.train):,} training and {validation} validation images; "
        f"{run.total_steps:,} steps of {run.config.train.batch_size} images on "
        f"{run.mesh.size} {jax.devices()[0].device_kind} device(s){hosts}; seed {run.config.seed}\n"
    )
