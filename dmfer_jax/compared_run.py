"""One run of a comparison, in a process of its own: `compare` starts it, and so may anyone.

  python -m dmfer_jax.compared_run --comparison=runs/compare --system=plain_torch --seed=0

Trains one system with one seed, or goes on, then scores it on lists and under stress where asked.
What is done already is not done again.
"""

import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dmfer_jax import command, evaluate, run_folder, run_lock, state, torch_run, train
from dmfer_jax.models import summary
from dmfer_jax.reporting import plain_json
from dmfer_jax.reporting import report as reports

OURS = "dmfer_jax"
SYSTEMS = (OURS, "dmfer_torch", "plain_torch", "dan_torch")
"""This project, its twin in PyTorch, a plain network, and one in the manner of DAN."""

CENTERLESS = ("plain_torch", "dan_torch")
"""Systems that have no use for the config's center loss and for what stands on the backbone."""

COST = "cost.json"
"""In the folder of a run: `peak_bytes`, the most memory that a process of it had resident, and
`flops`, floating point operations of the forward pass of one image."""

EVALUATIONS = ("lists", "stress")
"""What a last epoch may be scored on besides; its report is in `evaluation/compared_NAME.json`."""


def config_of(config: ConfigDict, system: str, seed: int) -> ConfigDict:
    """Returns the experiment of one run: the comparison's, but for what the system is without.

    Args:
      config: of the comparison.
      system: of `SYSTEMS`.
      seed: of the run.
    """
    changed = config.copy_and_resolve_references()
    changed.seed = seed
    if system in CENTERLESS:
        changed.loss.name, changed.loss.centers = "none", "state"
        changed.model.scales, changed.model.attention = "deep", "none"
    return changed


def run_dir(comparison: Path, system: str, seed: int) -> Path:
    """Returns the folder of a run."""
    return comparison / system / f"seed{seed}"


def evaluation_path(workdir: Path, name: str) -> Path:
    """Returns where the report of one of `EVALUATIONS` is."""
    return workdir / "evaluation" / f"compared_{name}.json"


def run(comparison: Path, system: str, seed: int, *, lists: str = "", stress: bool = False) -> None:
    """Does what of a run is not done.

    Args:
      comparison: its folder, with the config.
      system: of `SYSTEMS`.
      seed: of the run.
      lists: file or folder of occlusion and pose lists, if the last epoch is scored on them.
      stress: whether it is scored under every kind of harm, on the split of the first table.

    Raises:
      UserError: the comparison, its data or the run cannot be used.
    """
    config = config_of(run_folder.load_config(comparison), system, seed)
    workdir = run_dir(comparison, system, seed)
    if not (workdir / "report.json").is_file():
        try:
            if system == OURS:
                report = train.train(config, workdir)
            else:
                report = torch_run.train(system, config, workdir)
        finally:
            if workdir.is_dir():
                keep_cost(workdir, peak_bytes=peak_bytes())
        keep_cost(workdir, flops=report.get("flops") or count_flops(config, report))
    trained = reports.read_report(workdir / "report.json")["checkpoints"]["last"]["splits"]
    tests: Any = config.data.test_splits
    names = [name for name in tests if name in trained] or list(trained)
    load = None if system == OURS else torch_run.load_trained
    asked: dict[str, tuple[list[str], dict[str, Any]]] = {
        "lists": (names, {"lists": lists}),
        "stress": ([reports.main_split(names)], {"stress": stress}),
    }
    for name, (splits, options) in asked.items():
        path = evaluation_path(workdir, name)
        if options[name] and not path.is_file():
            with run_lock.lock(workdir):
                found = evaluate.evaluate(workdir, "last", splits, load=load, **options)
                reports.write_report(path, found)


def peak_bytes() -> int:
    """Returns the most memory that this process had resident so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the process was before it became this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def count_flops(config: ConfigDict, report: dict[str, Any]) -> int:
    """Returns the floating point operations of our network's forward pass of one image."""
    scored = next(iter(report["checkpoints"]["last"]["splits"].values()))
    model = state.make_model(config, len(scored["labels"]))
    return summary.summarize(model, config.data.image_size, config.data.channels).flops


def read_cost(workdir: Path) -> dict[str, int]:
    """Returns what is known of a run's cost; see `COST`."""
    path = workdir / COST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep_cost(workdir: Path, **values: int) -> None:
    """Keeps the largest of each number; a run may take several processes."""
    old = read_cost(workdir)
    new = old | {name: max(value, old.get(name, 0)) for name, value in values.items()}
    plain_json.write_text(workdir / COST, plain_json.dump_line(new) + "\n")


def main(argv: Sequence[str]) -> None:
    """Does the run that the flags name."""
    del argv
    options = flags.FLAGS
    if options.system != OURS:  # else JAX takes most of an accelerator's memory for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    folder = Path(options.comparison)
    run(folder, options.system, options.seed, lists=options.lists, stress=options.stress)


if __name__ == "__main__":
    flags.DEFINE_string("comparison", None, "Folder of the comparison.", required=True)
    flags.DEFINE_enum("system", None, SYSTEMS, "What is trained.", required=True)
    flags.DEFINE_integer("seed", None, "Of the run.", required=True)
    flags.DEFINE_string("lists", "", "File or folder of RAN's lists, whose images are scored, too.")
    flags.DEFINE_bool("stress", False, "Also scores under eleven kinds of harm.")
    command.run(main)
