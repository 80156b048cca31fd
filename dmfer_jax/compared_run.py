"""One run of a comparison, in a process of its own: `compare` starts it, and so may anyone.

  python -m dmfer_jax.compared_run --comparison=runs/compare --system=plain_torch --seed=0

Trains one system with one seed, or goes on, then scores it on lists and under stress where asked.
What is done already is not done again.
"""

import hashlib
import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dmfer_jax import (
    command,
    evaluate,
    files,
    run_folder,
    run_lock,
    state,
    subjects,
    torch_run,
    train,
)
from dmfer_jax.data.lists import read_lists
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

LISTS = "lists_sha256"
"""In the report of `EVALUATIONS` on lists, which ones."""

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
                train.train(config, workdir)
            else:
                torch_run.train(system, config, workdir)
        finally:
            if workdir.is_dir():
                keep_cost(workdir, peak_bytes=peak_bytes())
    report = reports.read_report(workdir / "report.json")
    if "flops" not in read_cost(workdir):
        keep_cost(workdir, flops=report.get("flops") or count_flops(config, report))
    trained = report["checkpoints"]["last"]["splits"]
    tests: Any = config.data.test_splits
    names = [name for name in tests if name in trained] or list(trained)
    load = subjects.load_ours if system == OURS else torch_run.load_trained
    asked: dict[str, tuple[list[str], dict[str, Any]]] = {
        "lists": (names, {"lists": lists}),
        "stress": ([reports.main_split(trained)], {"stress": stress}),
    }
    data: Any = config.data
    places = {"data_dir": data.data_dir, "source": data.source}  # those of the run may be old
    for name, (splits, options) in asked.items():
        if options[name] and not is_scored(workdir, name, config, lists):
            with run_lock.lock(workdir):
                subject = subjects.of_run(workdir, "last", load=load, **places)
                found = evaluate.evaluate(subject, splits, **options)
            for reason in found.get("lists_not_scored", {}).values():
                print(reason)
            if name == "lists":
                found[LISTS] = digest_lists(lists, data.dataset)
            reports.write_report(evaluation_path(workdir, name), found)


def is_scored(workdir: Path, name: str, config: ConfigDict, lists: str) -> bool:
    """Whether one of `EVALUATIONS` of a run is there, and of the same lists."""
    path = evaluation_path(workdir, name)
    if not path.is_file() or name != "lists":
        return path.is_file()
    data: Any = config.data
    return reports.read_report(path).get(LISTS) == digest_lists(lists, data.dataset)


def digest_lists(path: str, dataset: str) -> str:
    """Returns the SHA-256 of what occlusion and pose lists name.

    Raises:
      UserError: they cannot be read, or are of another dataset.
    """
    digest = hashlib.sha256()
    for one in read_lists(path, dataset):
        digest.update(repr((one.name, one.entries)).encode())
    return digest.hexdigest()


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
    files.write_text(workdir / COST, plain_json.dump_line(new) + "\n")


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
