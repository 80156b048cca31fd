"""An ablation of a tiny experiment, and what stands for its training."""

from pathlib import Path
from typing import Any

from dmfer_jax import ablation, config
from dmfer_jax.ablation import Ablation
from dmfer_jax.interruption import Interruption
from tests.made_up import leave_run, leave_stress

CONFIG = """
from tests.conftest import make_tiny_config

def get_config():
    config = make_tiny_config("records")
    config.data.test_splits = ("test",)
    config.model.scales, config.model.attention = "deep", "none"
    config.train.epochs = 1
    return config
"""
GRID = """
from dmfer_jax.grids import Grid

def get_grid():
    none = {"loss.name": "none"}
    return Grid("plain", {"plain": none, "cosine": {}, "shaken": none | {"augment.shift": 0.06}})
"""


def plan(
    folder: Path,
    seeds: int = 2,
    only: tuple[str, ...] = (),
    fields: dict[str, Any] | None = None,
    stress: bool = False,
) -> Ablation:
    path = str(folder / "tiny.py")
    changed = config.load_config(path)
    changed.update_from_flattened_dict(fields or {})
    grid, out = str(folder / "parts.py"), folder / "out"
    return ablation.plan(path, changed, grid, seeds, out, only, stress)


class Trainer:
    """Stands for training and scoring under harm: notes each, and leaves what it would leave."""

    def __init__(self, planned: Ablation, statuses: dict[str, int] | None = None):
        self._runs = {f"--workdir={run.workdir}": run for run in planned.runs}
        self._statuses = statuses or {}
        self.names: list[str] = []
        self.harmed: list[str] = []
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], interruption: Interruption) -> int:
        run = self._runs[command[-1]]
        if command[2] == "dmfer_jax.evaluate":
            assert "--stress" in command
            assert f"--data_dir={run.config.data.data_dir}" in command
            self.harmed.append(run.name)
            leave_stress(run.workdir)
            return 0
        self.names.append(run.name)
        self.commands.append(command)
        status = self._statuses.get(run.name, 0)
        if not status:
            leave_run(run.workdir, run.config, [1, 0, 1, run.config.seed])
        return status
