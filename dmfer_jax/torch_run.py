"""Trains a system in PyTorch as `train` trains this project: the same loop, batches and report.

What differs is the step. The batches are ours, in our order, and so is their augmentation: it is
computed by JAX from (seed, step) and handed over as an array, so that both sides train on the very
same pixels. Evaluation counts with our metrics, log and report have our form.
"""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import config as configs
from dmfer_jax import (
    initial,
    loop,
    norm_statistics,
    run_folder,
    run_lock,
    sharding,
    state,
    steps,
)
from dmfer_jax.building import ensure_built
from dmfer_jax.data import augment
from dmfer_jax.errors import UserError
from dmfer_jax.finish import make_report, show_report
from dmfer_jax.reporting.console import number
from dmfer_jax.reporting.predictions import Predictions, write_run_predictions
from dmfer_jax.run import Run, check_goes_on, start_run
from dmfer_jax.trained import check_classes
from dmfer_jax.weights.pytorch import to_state_dict


class TorchState:
    """A `pytorch.training.Trainer`, as the loop and the scores look at a training state.

    Attributes:
      trainer: whose numbers these are; they change as it trains.
      skipped: steps left out, of which there are none.
    """

    skipped = 0

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    @property
    def step(self) -> int:
        """Steps done."""
        return self.trainer.steps

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The numbers that the network learns, by name."""
        learned = self.trainer.model.named_parameters()
        return {name: parameter.detach().cpu().numpy() for name, parameter in learned}

    def eval_variables(self) -> dict[str, Any]:
        """The network's numbers to evaluate with, by name."""
        return self.trainer.eval_variables()

    def class_centers(self) -> np.ndarray | None:
        """The class centers `[K, C]`; None if the loss has none."""
        centers = self.trainer.class_centers()
        return None if centers is None else centers.detach().cpu().numpy()


class Network(NamedTuple):
    """A system in PyTorch and its checkpoints."""

    trainer: Any  # pytorch.training.Trainer
    checkpoints: Any  # pytorch.saving.TorchCheckpoints

    def restore(self, step: int) -> TorchState:
        """Returns the state of a checkpoint, which the trainer goes back to."""
        from dmfer_jax.pytorch import systems

        self.trainer.load_state_dict(self.checkpoints.load(step, systems.find_device()))
        return TorchState(self.trainer)


def train(system: str, config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains a system, or goes on training it, and writes the report.

    Args:
      system: of `pytorch.systems.SYSTEMS`.
      config: of the experiment.
      workdir: gets what that of `train.train` gets, and torch_checkpoints instead of checkpoints.

    Returns:
      The report (see `reporting.report`), with `system` and its size.

    Raises:
      UserError: config, data or workdir cannot be used.
      SystemExit: interrupted; what was done is saved.
    """
    from dmfer_jax.pytorch import saving, systems

    began = time.monotonic()
    configs.validate(config)
    data = config.data
    with run_lock.lock(workdir):
        run = start_run(config, workdir, ensure_built(data.dataset, data.source, data.data_dir))
        clocks = loop.read_clocks()
        checkpoints: Any = saving.TorchCheckpoints(workdir)
        for message in checkpoints.tidy():
            print(message)
        trainer = make_trainer(run, system, begins=checkpoints.step("last") is None)
        network = Network(trainer, checkpoints)
        size = systems.measure(trainer.model, data.image_size, data.channels)
        run = describe_system(run, system, size)
        eval_step: Any = make_eval_step(trainer.model)
        train_state: Any
        train_state, note = begin_or_restore(run, network)
        train_state, note = loop.train_steps(
            run,
            train_state,
            note,
            checkpoints,
            lambda: make_train_step(run, trainer),
            eval_step,
            began,
            clocks,
            stop=stop,
        )
        said: dict[str, Predictions] = {}
        report = make_report(run, train_state, note, checkpoints, eval_step, network.restore, said)
        write_run_predictions(workdir / "predictions.npz", run.train.class_names, said)
        show_report(workdir, report)
    return report


def load_trained(
    workdir: Path, which: str, config: ConfigDict, mesh: Mesh, class_names: Sequence[str]
) -> tuple[steps.EvalStep, TorchState, dict[str, Any]]:
    """The `subjects.Loader` of the checkpoints of a system in PyTorch.

    Args:
      workdir: of the run.
      which: "last" or "best".
      config: of the run.
      mesh: not used.
      class_names: of the records, in label order.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or its classes are others.
    """
    from dmfer_jax.pytorch import saving, systems

    del mesh
    checkpoints = saving.TorchCheckpoints(workdir)
    step = checkpoints.step(which)
    if step is None:
        raise UserError(f"{workdir} has no {which} checkpoint of a system in PyTorch")
    note = checkpoints.note(step)
    check_classes(checkpoints.path(step), note, class_names)
    run_folder.check_same_config(checkpoints.path(step), note["config"], config)
    trainer = systems.new_trainer(note["run"]["system"], config, len(class_names))
    state = Network(trainer, checkpoints).restore(step)
    return make_eval_step(trainer.model), state, note


def describe_system(run: Run, system: str, size: dict[str, int]) -> Run:
    """Returns the run with what its report says of a system in PyTorch, which is printed, too.

    Args:
      run: of the system.
      system: its name.
      size: its `parameters` and `flops`.
    """
    from dmfer_jax.pytorch import systems

    description = {"system": system, **size, **run.description}
    description["environment"] = {**description["environment"], **systems.describe_device()}
    print(
        f"\n{system}: {size['parameters']:,} parameters, {number(size['flops'] / 1e6, 0)} MFLOPs "
        f"an image; {len(run.train):,} training images; {run.total_steps:,} steps of "
        f"{run.config.train.batch_size} images; seed {run.config.seed}\n"
    )
    return run._replace(description=description)


def make_trainer(run: Run, system: str, begins: bool) -> Any:
    """Returns a system before its first step, with the weights that this project begins with.

    Args:
      run: of which config and classes are.
      system: of `pytorch.systems.SYSTEMS`.
      begins: whether the run does; one that goes on has its weights from its checkpoint.
    """
    from dmfer_jax.pytorch import systems

    def draw() -> state.TrainState:
        # The optimizer's state is PyTorch's own.
        return state.init_state(run.config, run.model, run.optimizer).replace(
            opt_state=(), ema=None
        )

    first = jax.jit(draw, out_shardings=sharding.replicated(run.mesh))()
    classes = run.train.class_names
    dataset = run.description["dataset"]
    if weights := initial.read_initial_weights(
        run.config,
        run.workdir,
        first,
        classes,
        begins,
        dataset,
        backbone_alone=system != systems.TWIN,
    ):
        first = weights.put_into(first)
        if not weights.fitted:
            first = norm_statistics.fit_backbone(run, first)
    first = jax.device_get(first)
    balanced = run.config.loss.class_weights == "balanced"
    trainer = systems.new_trainer(
        system,
        run.config,
        len(run.train.class_names),
        run.total_steps,
        class_weights=steps.balanced_weights(run.train.targets) if balanced else None,
    )
    weights_of_all = to_state_dict({"params": first.params, "batch_stats": first.batch_stats})
    systems.begin_with(trainer, weights_of_all, first.centers)
    return trainer


def begin_or_restore(run: Run, network: Network) -> tuple[TorchState, dict[str, Any]]:
    """Returns the state and note of a run that begins, or those of its latest checkpoint.

    Raises:
      UserError: the checkpoint is of other classes, another config or other records.
    """
    step = network.checkpoints.step("last")
    if step is None:
        return TorchState(network.trainer), loop.first_note()
    note = network.checkpoints.note(step)
    check_goes_on(run, network.checkpoints.path(step), note)
    print(f"going on from step {step} of {run.total_steps} in {run.workdir}")
    return network.restore(step), note


def make_train_step(run: Run, trainer: Any) -> Callable[..., Any]:
    """Returns the step: our augmentation, then what `Trainer.step` does.

    Args:
      run: that is trained.
      trainer: that does the steps.
    """
    from dmfer_jax.pytorch import systems

    augment_batch = jax.jit(functools.partial(steps.augment_batch, run.config))

    def step(train_state: TorchState, batch: loop.Batch) -> tuple[TorchState, dict[str, Any]]:
        with jax.transfer_guard("allow"):
            done = np.int32(trainer.steps)
            augmented = augment_batch(done, batch["image"], batch["target"])
            images, targets = jax.device_get(augmented)
        return train_state, systems.train_on(trainer, images, targets)

    return step


def make_eval_step(network: Any) -> steps.EvalStep:
    """Returns what `steps.make_eval_step` returns, the logits being PyTorch's.

    Args:
      network: whose variables are given to the step.
    """
    from dmfer_jax.pytorch import systems

    add, normalize = jax.jit(steps.add_to_totals), jax.jit(augment.normalize)

    def step(variables: Any, batch: loop.Batch, totals: Any) -> tuple[Any, jax.Array]:
        with jax.transfer_guard("allow"):
            images = jax.device_get(normalize(batch["image"]))
            return add(systems.predict(network, variables, images), batch, totals)

    return step


def stop(run: Run, train_state: TorchState, step: int, note: dict[str, Any]) -> NoReturn:
    """Ends a run at a step whose loss or gradient is not finite; what was saved stays.

    Raises:
      UserError: always.
    """
    raise UserError(
        f"the loss or the gradient of step {step} is not finite, in {run.workdir}. A lower "
        "optimizer.learning_rate helps most often."
    )
