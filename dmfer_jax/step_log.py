"""The scalars of training steps, on their way from the devices to the logs.

A line of the log is a mean over the steps since the line before. The scalars stay on the devices
until a line or a checkpoint is due; those that no line tells of yet are kept in the checkpoint. So
a run that is interrupted between two lines writes the same lines as one that is not.
"""

from typing import Any

import jax
import numpy as np

from dmfer_jax.reporting import console, writers

_AHEAD = 2
"""Steps that the host has given to the devices and that they need not have done."""

_HOPELESS = 20
"""Steps left out one after the other from which a run stops all the same: no later one will do."""


class StepLog:
    """Gathers the scalars of steps, and writes their means.

    Args:
      log: of the run.
      progress: shows how far the run is, and knows its speed.
      learning_rates: float `[steps]`, of each update.
      note: of the checkpoint that the run goes on from, with `pending` of then.
      skipped: steps left out so far.
      goes_on: whether a step that was left out does not stop the run.

    Attributes:
      pending: scalars of the fetched steps that no line tells of yet, {name: float} each.
      skipped: steps left out so far, as far as they were fetched.
      in_a_row: how many of the latest fetched ones were left out, one after the other.
    """

    def __init__(
        self,
        log: writers.RunLog,
        progress: console.Progress,
        learning_rates: np.ndarray,
        note: dict[str, Any],
        skipped: int,
        goes_on: bool = False,
    ):
        self.pending: list[dict[str, float]] = list(note.get("pending", []))
        self.skipped = skipped
        self.in_a_row = 0
        self._log, self._progress, self._learning_rates = log, progress, learning_rates
        self._goes_on = goes_on
        self._waiting: list[dict[str, jax.Array]] = []

    def add(self, scalars: dict[str, jax.Array]) -> None:
        """Takes the scalars of the next step, on the device, and waits for those of an earlier one.

        A host that ran further ahead would fill the devices with batches of a streamed split, and
        would see itself wait for input while the devices are busy.
        """
        self._waiting.append(scalars)
        if len(self._waiting) > _AHEAD:
            jax.block_until_ready(self._waiting[-1 - _AHEAD])

    def fetch(self, step: int) -> int | None:
        """Fetches the scalars of all steps so far, from the devices to the host.

        Args:
          step: the latest one.

        Returns:
          The step at which the run stops: the first of these whose loss or gradient was not
          finite, or, where the run goes on all the same, the latest if too many in a row were
          not. None if it does not stop.
        """
        first = step - len(self._waiting) + 1
        rows = [
            {name: value.item() for name, value in row.items()}
            for row in jax.device_get(self._waiting)
        ]
        self._waiting = []
        bad = None
        for number, row in enumerate(rows, start=first):
            before, self.skipped = self.skipped, row.pop("skipped")
            if self.skipped == before:
                self.pending.append(row)
                self.in_a_row = 0
                continue
            self.in_a_row += 1
            bad = bad or number
        if self._goes_on:
            return step if self.in_a_row >= _HOPELESS else None
        return bad

    def write(self, step: int, epoch: int) -> None:
        """Writes the means over the pending steps, those left out excepted.

        Args:
          step: the latest one, whose scalars have been fetched.
          epoch: the one it belongs to, counted from 1.
        """
        names = self.pending[0] if self.pending else ()
        means = {name: float(np.mean([row[name] for row in self.pending])) for name in names}
        self.pending = []
        self._progress.update(step, epoch, loss=means.get("loss"), accuracy=means.get("accuracy"))
        # A step that was left out takes no learning rate from the schedule.
        learning_rate = float(self._learning_rates[max(step - 1 - self.skipped, 0)])
        self._log.write(
            step,
            kind="train",
            epoch=epoch,
            learning_rate=learning_rate,
            images_per_second=self._progress.images_per_second,
            input_wait=self._progress.input_wait,
            skipped=self.skipped,
            **means,
        )
