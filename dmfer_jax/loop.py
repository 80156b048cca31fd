"""The training loop: batch, step, log, evaluate, save, again and again."""

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

import dmfer_jax
from dmfer_jax import compiling, distributed, nonfinite, steps
from dmfer_jax.checkpoint import Checkpoints
from dmfer_jax.feeding import Batch
from dmfer_jax.interruption import Interruption
from dmfer_jax.reporting import console, writers
from dmfer_jax.reporting import report as reports
from dmfer_jax.run import Run
from dmfer_jax.scoring import score
from dmfer_jax.state import TrainState
from dmfer_jax.step_log import StepLog


def train_steps(
    run: Run,
    train_state: TrainState,
    note: dict[str, Any],
    checkpoints: Checkpoints,
    compiled_step: Callable[[], steps.TrainStep],
    eval_step: steps.EvalStep,
    began: float,
    clocks: Mapping[str, float],
    stop: Callable[..., NoReturn] = nonfinite.stop,
) -> tuple[TrainState, dict[str, Any]]:
    """Trains to the last step, in one order: batch, step, log, evaluate, save.

    Nothing crosses between host and devices that is not put or fetched by name: whatever would,
    is an error rather than a wait in every step.

    Args:
      run: that begins or goes on.
      train_state: to go on from.
      note: of its checkpoint.
      checkpoints: of the run.
      compiled_step: waits for the compiled step.
      eval_step: of `steps.make_eval_step`.
      began: when the command was given, by `time.monotonic`.
      clocks: of `read_clocks`, from when on the run's time counts.
      stop: what ends the run at a step whose loss or gradient is not finite.

    Returns:
      The last state and its note.

    Raises:
      UserError: a loss or gradient is not finite, or a checkpoint could not be written.
      SystemExit: interrupted; what was done is saved.
    """
    options, start = run.config.train, int(train_state.step)
    batches, progress = read_batches(run, start), make_progress(run, start)
    count_time = go_on_counting(note, clocks)
    guard = jax.transfer_guard("disallow")
    rates, skipped = list_learning_rates(run), int(train_state.skipped)
    opened = writers.RunLog(run.workdir, start, writes=distributed.is_main())
    with opened as log, progress, Interruption() as interruption, guard:
        step_log = StepLog(log, progress, rates, note, skipped, options.nonfinite == "skip")
        keeper = _Keeper(run, checkpoints, eval_step, count_time, log, progress, step_log)
        with progress.paused("compiling"):
            train_step = compiled_step()
            distributed.wait_for_others()
        for step in range(start + 1, run.total_steps + 1):
            epoch = int(np.searchsorted(run.epoch_ends, step)) + 1
            with progress.paused("first step") if step == start + 1 else nullcontext():
                with progress.waiting_for_input():
                    batch = next(batches)
                train_state, scalars = train_step(train_state, batch)
                if step == start + 1:
                    jax.block_until_ready(scalars)
                    progress.print(f"first step after {time.monotonic() - began:.1f} s")
                    progress.leave_out(step)
                    compiling.give_back_memory()
            step_log.add(scalars)
            checkpoints.raise_failed()

            stops = distributed.stops_here(step, interruption.signal is not None)
            ends_epoch = step == run.epoch_ends[epoch - 1]
            saves = stops or ends_epoch or _is_due(step, options.checkpoint_every)
            logs = ends_epoch or _is_due(step, options.log_every)
            bad = step_log.fetch(step) if saves or logs else None
            if bad is not None:
                with jax.transfer_guard("allow"):
                    stop(run, train_state, bad, note)
            if logs:
                step_log.write(step, epoch)
            valid_accuracy = keeper.validate(train_state, step, epoch) if ends_epoch else None
            if saves:
                note = keeper.save(train_state, step, valid_accuracy)
            if stops:
                keeper.leave(step, interruption.exit_status)
    checkpoints.wait()
    if interruption.signal is not None and jax.process_count() == 1:  # in the last validation
        print("Interrupted. The same command goes on with the report.")
        raise SystemExit(interruption.exit_status)
    distributed.wait_for_others()  # process 0 gives a checkpoint its name
    return train_state, note


class _Keeper(NamedTuple):
    """What keeps a run's scores and states as it goes."""

    run: Run
    checkpoints: Checkpoints
    eval_step: steps.EvalStep
    count_time: Callable[[], dict[str, float]]
    log: writers.RunLog
    progress: console.Progress
    step_log: StepLog

    def validate(self, train_state: TrainState, step: int, epoch: int) -> float | None:
        """Scores the validation split and logs what it scored, and at what time of the run.

        Returns:
          Its accuracy, None where there is no such split.
        """
        feed, progress = self.run.valid_feed, self.progress
        if not feed:
            return None
        with progress.paused("evaluating"):
            batch_size = self.run.config.train.eval_batch_size
            scored = score(self.eval_step, train_state.eval_variables(), feed, batch_size)
        headlines = {name: scored[name] for name in reports.HEADLINES}
        of_split = {"epoch": epoch, "split": feed.split.name}
        self.log.write(step, kind="eval", **of_split, **self.count_time(), **headlines)
        progress.end_epoch(
            epoch,
            f"{feed.split.name} accuracy {console.percent(scored['accuracy'])}, "
            f"loss {console.number(scored['loss'])}",
        )
        return scored["accuracy"]

    def save(
        self, train_state: TrainState, step: int, valid_accuracy: float | None
    ) -> dict[str, Any]:
        """Saves the state after a step, and returns its note."""
        run = self.run
        note = {
            **describe(run),
            "epoch": run.epochs_over(step),
            **self.count_time(),
            "input_wait": self.progress.input_wait,
            "pending": self.step_log.pending,
        }
        with jax.transfer_guard("allow"):  # Orbax fetches arrays in its own way
            self.checkpoints.save(train_state, note, valid_accuracy)
        return note

    def leave(self, step: int, status: int) -> NoReturn:
        """Ends the command between two steps, the latest of which is saved."""
        self.checkpoints.wait()
        self.progress.print(
            f"Interrupted. Saved at step {step} of {self.run.total_steps}; "
            "the same command goes on from there."
        )
        raise SystemExit(status)


def describe(run: Run) -> dict[str, Any]:
    """What a checkpoint says of the run that it belongs to, in JSON values."""
    config = json.loads(run.config.to_json_best_effort())
    return {
        "version": dmfer_jax.__version__,
        "labels": list(run.train.class_names),
        "config": config,
        "run": {key: value for key, value in run.description.items() if key != "config"},
    }


def go_on_counting(
    note: Mapping[str, Any], clocks: Mapping[str, float]
) -> Callable[[], dict[str, float]]:
    """Returns what tells the time that a run has taken, with that of its checkpoint.

    Args:
      note: of the checkpoint.
      clocks: of `read_clocks`, from when on the time counts.

    Returns:
      What returns `seconds` and `cpu_seconds`.
    """
    began = {name: since - note[name] for name, since in clocks.items()}

    def count() -> dict[str, float]:
        now = read_clocks()
        return {name: now[name] - since for name, since in began.items()}

    return count


def first_note() -> dict[str, Any]:
    """Returns the note of a run that begins: no time has passed."""
    return dict.fromkeys(read_clocks(), 0.0)


def read_clocks() -> dict[str, float]:
    """Returns `seconds` on the clock and `cpu_seconds` of all cores, both since some time."""
    return {"seconds": time.monotonic(), "cpu_seconds": _processor_seconds()}


def _processor_seconds() -> float:
    """Time of all cores in this process and in those that it has started and that have ended.

    Beside other work on the same machine it tells more than the clock does.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def list_learning_rates(run: Run) -> np.ndarray:
    """The learning rate of each update, for the log: float32 `[steps]`."""
    return np.asarray(jax.jit(jax.vmap(run.schedule))(np.arange(run.total_steps)))


def make_progress(run: Run, start: int) -> console.Progress:
    """What shows how far the run is."""
    return console.Progress(
        total_steps=run.total_steps,
        total_epochs=run.config.train.epochs,
        batch_size=run.config.train.batch_size,
        start_step=start,
    )


def read_batches(run: Run, start: int) -> Iterator[Batch]:
    """The batches on the devices, from that of step `start` on."""
    return run.train_feed.train_batches(
        run.config.train.batch_size,
        seed=run.config.seed,
        sampling=run.config.data.sampling,
        start_step=start,
        workers=run.config.data.workers,
    )


def _is_due(step: int, every: int) -> bool:
    """Whether something done every so many steps is due; never, if `every` is 0."""
    return every > 0 and step % every == 0
