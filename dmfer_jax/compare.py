"""Trains this project and PyTorch baselines alike, and makes one table of what came out.

  python -m dmfer_jax.compare --config=configs/synthetic.py --seeds=3 --out=runs/compare

Every system trains on the same records, protocol, schedule, augmented batches and seeds, each run
in a process of its own:

  dmfer_jax    this project
  dmfer_torch  the same network and losses in PyTorch
  plain_torch  the config's backbone, global average pooling, a linear layer, cross-entropy
  dan_torch    the config's backbone under four cross-attention heads (see pytorch/dan.py)

The systems in PyTorch get their batches from our pipeline, augmented by JAX, so that all see the
same pixels. That counts in their time and memory; `benchmarks/end_to_end.py` compares the speed of
both sides with an input pipeline of their own each.

The same command goes on where it was interrupted. `<out>/<system>/seed<n>/` is a run's folder;
`compare.csv` has a row for each run and checkpoint, `table.md` their means.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from dmfer_jax import command, compared_run, predicted, run_folder, run_lock, usage
from dmfer_jax import config as configs
from dmfer_jax.compared_run import OURS, SYSTEMS
from dmfer_jax.data import sources
from dmfer_jax.errors import UserError
from dmfer_jax.interruption import Interruption
from dmfer_jax.prepare import ensure_built
from dmfer_jax.pytorch import limits
from dmfer_jax.reporting import comparison, writers
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting.predictions import read_predictions


def compare(
    config: ConfigDict,
    out: Path,
    systems: Sequence[str] = SYSTEMS,
    seeds: int = 3,
    *,
    lists: str = "",
    stress: bool = False,
    predictions: Mapping[str, Path] | None = None,
    python_torch: str = "",
) -> list[dict[str, Any]]:
    """Trains what is not trained yet, and writes and prints the table.

    Args:
      config: of all systems; their seeds are `config.seed` and those that follow.
      out: folder of the comparison.
      systems: of `SYSTEMS`.
      seeds: how many.
      lists: file or folder of occlusion and pose lists, if last epochs are scored on them.
      stress: whether last epochs are scored under every kind of harm.
      predictions: {name: CSV file} of other systems, on the split that the table is of.
      python_torch: interpreter for systems in PyTorch; this one, unless told.

    Returns:
      The rows of `compare.csv`.

    Raises:
      UserError: something cannot be used, or some runs failed.
      SystemExit: interrupted; what was done is saved.
    """
    configs.validate(config)
    check_systems(config, systems, python_torch)
    check_predictions(predictions or {}, systems)
    with run_lock.lock(out, "--out"):
        run_folder.save_config(out, config)
        data = config.data
        ensure_built(data.dataset, data.source, data.data_dir)
        failed = []
        asked = [f"--lists={lists}"] * bool(lists) + ["--stress"] * stress
        planned = [(system, config.seed + n) for n in range(seeds) for system in systems]
        rows = []
        for system, seed in planned:
            if not _is_done(out, system, seed, lists, stress):
                print(f"\n--- {system}, seed {seed}", flush=True)
                status = run_process(_command(out, system, seed, asked, python_torch))
                if status:
                    failed.append(f"{system} with seed {seed} (status {status})")
            rows = write_tables(out, config, planned, lists, stress, predictions or {})
    if rows:
        comparison.print_comparison(rows)
        print(f"\nTable: {out / 'table.md'}   Rows: {out / 'compare.csv'}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(planned)} runs failed: {', '.join(failed)}; what each of them "
            "said stands above. The same command tries them again."
        )
    return rows


def check_systems(config: ConfigDict, systems: Sequence[str], python_torch: str) -> None:
    """Refuses systems that cannot be trained, before the first one is.

    Raises:
      UserError: one is unknown or named twice, PyTorch is missing, or has not what the config asks.
    """
    for name in systems:
        if name not in SYSTEMS or list(systems).count(name) > 1:
            raise UserError(
                f"--systems has {name!r}{'' if name not in SYSTEMS else ' twice'}; expected each "
                f"of {', '.join(SYSTEMS)} at most once"
            )
    if not systems:
        raise UserError(f"--systems is empty; expected some of {', '.join(SYSTEMS)}")
    in_torch = [name for name in systems if name != OURS]
    if not in_torch:
        return
    limits.check_type(config)
    limits.check_training(config)
    if python_torch:
        code = "import torch, dmfer_jax.train"
        try:
            found = subprocess.run([python_torch, "-c", code], capture_output=True, text=True)
            reason = (found.stderr.strip().splitlines() or [""])[-1] if found.returncode else ""
        except OSError as error:
            reason = str(error)
        if reason:
            raise UserError(
                f"--python_torch={python_torch} cannot train {in_torch[0]}: {reason}; expected an "
                "interpreter that has both torch and dmfer_jax"
            )
    elif importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{', '.join(in_torch)} need PyTorch, which is not installed here: pip install "
            "'dmfer-jax[torch]', or name another interpreter with --python_torch, or leave them "
            f"out with --systems={OURS}"
        )


def check_predictions(predictions: Mapping[str, Path], systems: Sequence[str]) -> None:
    """Refuses names that are taken and files that are not there.

    Raises:
      UserError: naming it.
    """
    for name, path in predictions.items():
        if name in systems:
            raise UserError(f"--predictions has {name!r}, which is the name of a system trained")
        if not path.is_file():
            raise UserError(f"--predictions={name}={path}: there is no such file")


def run_process(arguments: Sequence[str]) -> int:
    """Runs one training in a process of its own, and returns its status.

    Raises:
      SystemExit: this process was asked to end; the other was, too, and has saved what it did.
    """
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    # A group of its own: Ctrl-C in a terminal goes to all of a group, and twice is at once.
    process = subprocess.Popen(arguments, env=environment, process_group=0)
    with Interruption() as interruption:
        told = False
        while process.poll() is None:
            if interruption.signal and not told:
                process.send_signal(interruption.signal)
                told = True
            try:
                process.wait(_LOOKS_EVERY)
            except subprocess.TimeoutExpired:
                continue
    if interruption.signal:
        raise SystemExit(interruption.exit_status)
    return process.returncode


_LOOKS_EVERY = 0.5  # seconds between two looks for a signal


def write_tables(
    out: Path,
    config: ConfigDict,
    planned: Sequence[tuple[str, int]],
    lists: str,
    stress: bool,
    predictions: Mapping[str, Path],
) -> list[dict[str, Any]]:
    """Writes `compare.csv` and `table.md` of the runs that are done, and returns the rows.

    Args:
      out: folder of the comparison.
      config: of the comparison.
      planned: system and seed of each run.
      lists: as of `compare`; the scores on them were asked for.
      stress: likewise.
      predictions: of other systems.
    """
    runs = [
        read_run(out, config, system, seed, lists, stress)
        for system, seed in sorted(planned, key=lambda one: SYSTEMS.index(one[0]))
        if (compared_run.run_dir(out, system, seed) / "report.json").is_file()
    ]
    if not runs:
        return []
    rows = comparison.list_rows(runs)
    rows += [score_predictions(config, name, path, rows[0]) for name, path in predictions.items()]
    comparison.write_csv(out / "compare.csv", rows)
    comparison.write_markdown(out / "table.md", rows)
    return rows


def read_run(
    out: Path, config: ConfigDict, system: str, seed: int, lists: str, stress: bool
) -> comparison.RunResult:
    """Reads what a run left behind; the arguments are those of `write_tables`."""
    workdir = compared_run.run_dir(out, system, seed)
    report = reports.read_report(workdir / "report.json")
    evaluation = compared_run.evaluation_path(workdir, lists, stress)
    asked = [f"--lists={Path(lists).name}"] * bool(lists) + ["--stress"] * stress
    return comparison.RunResult(
        system=system,
        seed=seed,
        report=report,
        evaluation=reports.read_report(evaluation) if evaluation.is_file() else None,
        log=writers.read_jsonl(workdir / "metrics.jsonl"),
        usage=usage.total(usage.read_usage(workdir / "usage.json")),
        size=compared_run.measure(compared_run.config_of(config, system, seed), report),
        command=shlex.join(_command(Path(out.name), system, seed, asked, "python")),
    )


def score_predictions(
    config: ConfigDict, name: str, path: Path, row: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the row of another system's predictions.

    Args:
      config: of the comparison.
      name: of the system.
      path: of its CSV file.
      row: of a run, which says what split is scored.

    Raises:
      UserError: the file cannot be used.
    """
    data = config.data
    folder = ensure_built(data.dataset, data.source, data.data_dir)
    split = sources.load_split(folder, row["split"], data, train=False)
    names, probabilities = read_predictions(path, split.class_names)
    try:
        summary = predicted.score_predictions(split, names, probabilities)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return comparison.list_predicted_row(name, summary, row)


def _is_done(out: Path, system: str, seed: int, lists: str, stress: bool) -> bool:
    workdir = compared_run.run_dir(out, system, seed)
    if not (workdir / "report.json").is_file():
        return False
    return not (lists or stress) or compared_run.evaluation_path(workdir, lists, stress).is_file()


def _command(
    out: Path, system: str, seed: int, asked: Sequence[str], python_torch: str
) -> list[str]:
    python = python_torch if python_torch and system != OURS else sys.executable
    run = [f"--comparison={out}", f"--system={system}", f"--seed={seed}"]
    return [python, "-m", "dmfer_jax.compared_run", *run, *asked]


def _read_named_paths(texts: Sequence[str]) -> dict[str, Path]:
    """What `--predictions` gives, as {name: path}."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in found:
            raise UserError(f"--predictions={text}: expected NAME=FILE.csv, each name once")
        found[name] = Path(path)
    return found


def main(argv: Sequence[str]) -> None:
    """Compares what the flags name."""
    del argv
    options = flags.FLAGS
    compare(
        options.config,
        Path(options.out),
        options.systems,
        options.seeds,
        lists=options.lists,
        stress=options.stress,
        predictions=_read_named_paths(options.predictions),
        python_torch=options.python_torch,
    )


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/synthetic.py.")
    flags.mark_flag_as_required("config")
    flags.DEFINE_string("out", None, "Folder of the comparison.", required=True)
    flags.DEFINE_list("systems", list(SYSTEMS), "What is trained, separated by commas.")
    flags.DEFINE_integer("seeds", 3, "How many seeds; config.seed is the first.", lower_bound=1)
    flags.DEFINE_string("lists", "", "File or folder of RAN's lists; last epochs are scored on it.")
    flags.DEFINE_bool("stress", False, "Also scores last epochs under eleven kinds of harm.")
    flags.DEFINE_multi_string(
        "predictions", [], "NAME=FILE.csv of another system on the same split; may be repeated."
    )
    flags.DEFINE_string("python_torch", "", "Interpreter for PyTorch, if this one is without it.")
    command.run(main)
