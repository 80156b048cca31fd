"""One run of a comparison, in a process of its own: `compare` starts it, and so may anyone.

  python -m dmfer_jax.compared_run --comparison=runs/compare --system=plain_torch --seed=0

Trains one system with one seed, or goes on, then scores it on lists and under stress where asked.
What is done already is not done again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dmfer_jax import command, evaluate, run_folder, run_lock, state, torch_run, train, usage
from dmfer_jax.models import summary
from dmfer_jax.reporting import report as reports

OURS = "dmfer_jax"
SYSTEMS = (OURS, "dmfer_torch", "plain_torch", "dan_torch")
"""This project, its twin in PyTorch, a plain network, and one in the manner of DAN."""

CENTERLESS = ("plain_torch", "dan_torch")
"""Systems that have no use for the config's center loss and for what stands on the backbone."""


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


def evaluation_path(workdir: Path, lists: str, stress: bool) -> Path:
    """Returns where a run's scores on lists and under stress are kept."""
    asked = ["lists"] * bool(lists) + ["stress"] * stress
    return workdir / "evaluation" / f"{'_'.join(['compared', *asked])}.json"


def run(comparison: Path, system: str, seed: int, *, lists: str = "", stress: bool = False) -> None:
    """Does what of a run is not done: `report.json`, `usage.json`, `size.json`, the evaluation.

    Args:
      comparison: its folder, with the config.
      system: of `SYSTEMS`.
      seed: of the run.
      lists: file or folder of occlusion and pose lists, if the last epoch is scored on them.
      stress: whether it is scored under every kind of harm.

    Raises:
      UserError: the comparison, its data or the run cannot be used.
    """
    config = config_of(run_folder.load_config(comparison), system, seed)
    workdir = run_dir(comparison, system, seed)
    if not (workdir / "report.json").is_file():
        with usage.recorded(workdir / "usage.json"):
            if system == OURS:
                train.train(config, workdir)
            else:
                torch_run.train(system, config, workdir)
    if not (lists or stress):
        return
    path = evaluation_path(workdir, lists, stress)
    if path.is_file():
        return
    trained = reports.read_report(workdir / "report.json")["checkpoints"]["last"]["splits"]
    tests: Any = config.data.test_splits
    names = [name for name in tests if name in trained] or list(trained)
    with run_lock.lock(workdir):
        load = None if system == OURS else torch_run.load_trained
        found = evaluate.evaluate(workdir, "last", names, lists=lists, stress=stress, load=load)
        reports.write_report(path, found)


def measure(config: ConfigDict, report: dict[str, Any]) -> dict[str, int]:
    """Returns `parameters` and `flops` of a run's network.

    Args:
      config: of the run.
      report: of the run; one of a system in PyTorch says it.
    """
    if "system" in report:
        return {"parameters": report["parameters"], "flops": report["flops"]}
    scored = next(iter(report["checkpoints"]["last"]["splits"].values()))
    model = state.make_model(config, len(scored["labels"]))
    found = summary.summarize(model, config.data.image_size, config.data.channels)
    return {"parameters": found.parameters, "flops": found.flops}


def main(argv: Sequence[str]) -> None:
    """Does the run that the flags name."""
    del argv
    options = flags.FLAGS
    run(
        Path(options.comparison),
        options.system,
        options.seed,
        lists=options.lists,
        stress=options.stress,
    )


if __name__ == "__main__":
    flags.DEFINE_string("comparison", None, "Folder of the comparison.", required=True)
    flags.DEFINE_enum("system", None, SYSTEMS, "What is trained.", required=True)
    flags.DEFINE_integer("seed", None, "Of the run.", required=True)
    flags.DEFINE_string("lists", "", "File or folder of RAN's lists, whose images are scored, too.")
    flags.DEFINE_bool("stress", False, "Also scores under eleven kinds of harm.")
    command.run(main)
