"""What a comparison consists of: its runs, where they are, and whether they can be done at all."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from dmfer_jax import ablation, compared_run, initial, reproduce
from dmfer_jax import config as configs
from dmfer_jax.compared_run import CENTERLESS, OURS, SYSTEMS
from dmfer_jax.errors import UserError
from dmfer_jax.pytorch import limits
from dmfer_jax.run_queue import QueuedRun


class Plan(NamedTuple):
    """What is compared, and where.

    Attributes:
      config_path: of the experiment.
      config: of that file, with changes; its seed is the first.
      out: folder of the comparison.
      systems: of `SYSTEMS`.
      seeds: how many.
      lists: file or folder of occlusion and pose lists, if last epochs are scored on them.
      stress: whether last epochs are scored under every kind of harm.
      predictions: {name: CSV file} of other systems, on the split that the table is of.
      python_torch: interpreter for systems in PyTorch; this one if "".
    """

    config_path: str
    config: ConfigDict
    out: Path
    systems: Sequence[str] = SYSTEMS
    seeds: int = 3
    lists: str = ""
    stress: bool = False
    predictions: Mapping[str, Path] = {}
    python_torch: str = ""

    @property
    def runs(self) -> list[tuple[str, int]]:
        """System and seed of each run, seed by seed, so that what is done can be compared early."""
        seeds = range(self.config.seed, self.config.seed + self.seeds)
        return [(system, seed) for seed in seeds for system in self.systems]

    def run_dir(self, system: str, seed: int) -> Path:
        """Returns the folder of a run."""
        return compared_run.run_dir(self.out, system, seed)

    def is_done(self, system: str, seed: int) -> bool:
        """Whether nothing of a run is left to do."""
        workdir = self.run_dir(system, seed)
        asked = zip(compared_run.EVALUATIONS, (self.lists, self.stress), strict=True)
        return (workdir / "report.json").is_file() and all(
            compared_run.is_scored(workdir, name, self.config, self.lists)
            for name, wanted in asked
            if wanted
        )

    def command(self, system: str, seed: int) -> list[str]:
        """Returns what does a run, as it is started here."""
        python = self.python_torch if self.python_torch and system != OURS else sys.executable
        run = [f"--comparison={self.out}", f"--system={system}", f"--seed={seed}"]
        asked = [f"--lists={self.lists}"] * bool(self.lists) + ["--stress"] * self.stress
        return [python, "-m", "dmfer_jax.compared_run", *run, *asked]

    def list_left(self) -> list[QueuedRun]:
        """Returns the runs of which something is left to do."""
        return [
            QueuedRun(
                f"{system}, seed {seed}", self.run_dir(system, seed), [self.command(system, seed)]
            )
            for system, seed in self.runs
            if not self.is_done(system, seed)
        ]

    def public_command(self, system: str, seed: int) -> str:
        """Returns what trains one run anew, without places on this machine."""
        config = self.config.copy_and_resolve_references()
        config.seed = seed
        text = reproduce.train_command(self.config_path, config)
        text = text.replace("dmfer_jax.train", "dmfer_jax.compare", 1)
        return f"{text} --systems={system} --seeds=1"


def check(plan: Plan) -> None:
    """Refuses what cannot be compared, before the first training.

    Raises:
      UserError: a system is unknown or named twice; they would not begin alike; PyTorch is
        missing, or has not what the config asks for; lists cannot be read or are of another
        dataset; predictions are not there or have the name of a system; nothing would be scored.
    """
    configs.validate(plan.config)
    ablation.check_scored(plan.config)
    if plan.lists:
        compared_run.digest_lists(plan.lists, plan.config.data.dataset)
    for name in plan.systems:
        if name not in SYSTEMS or list(plan.systems).count(name) > 1:
            raise UserError(
                f"--systems has {name!r}{' twice' if name in SYSTEMS else ''}; expected some of "
                f"{', '.join(SYSTEMS)}, each once"
            )
    if not plan.systems:
        raise UserError(f"--systems is empty; expected some of {', '.join(SYSTEMS)}")
    start = plan.config.init_from
    of_backbone = [name for name in plan.systems if name in CENTERLESS]
    if len(plan.systems) > len(of_backbone) > 0 and initial.holds_whole_network(start):
        raise UserError(
            f"config.init_from={start} is a whole network of this project, of which "
            f"{' and '.join(of_backbone)} could take the backbone alone, so the systems would not "
            "begin alike. Begin with a backbone, such as --config.init_from=face, or leave these "
            "out by --systems"
        )
    if in_torch := [name for name in plan.systems if name != OURS]:
        limits.check_type(plan.config)
        limits.check_training(plan.config)
        check_torch(in_torch, plan.python_torch)
    for name, path in plan.predictions.items():
        if name in SYSTEMS:
            raise UserError(f"--predictions={name}={path}: '{name}' is a system that is trained")
        if not path.is_file():
            raise UserError(f"--predictions={name}={path}: there is no such file")


def check_torch(systems: Sequence[str], python: str) -> None:
    """Refuses systems in PyTorch where it is not installed.

    Args:
      systems: that need it.
      python: interpreter that is to have it; this one if "".

    Raises:
      UserError: it is not there; the message says how to get it.
    """
    if not python:
        if importlib.util.find_spec("torch") is None:
            raise UserError(
                f"{', '.join(systems)}: PyTorch is not installed here. Install it (pip install "
                "'dmfer-jax[torch]'), name an interpreter that has it by --python_torch, or leave "
                f"these out by --systems={OURS}"
            )
        return
    try:
        found = subprocess.run(
            [python, "-c", "import torch, dmfer_jax.torch_run"], capture_output=True, text=True
        )
        reason = (found.stderr.strip().splitlines() or ["it failed"])[-1]
    except OSError as error:
        found, reason = None, str(error)
    if found is None or found.returncode:
        raise UserError(
            f"--python_torch={python} cannot train {systems[0]} ({reason}); expected an "
            "interpreter with torch and dmfer_jax"
        )
