"""The runs of an ablation: which there are, how far each is, and what is kept of each.

Each is an ordinary run of `dmfer_jax.train` in a folder of its own, `<out>/<variant>/seed<n>`, and
the command in its row is the one that was run.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dmfer_jax import grids, reproduce, run_folder, run_queue
from dmfer_jax.config import get_config
from dmfer_jax.errors import UserError
from dmfer_jax.loss_options import idle_fields
from dmfer_jax.reporting import rows
from dmfer_jax.reporting.run_report import read_run_report

ROWS = "runs.csv"
"""In the folder of an ablation, the rows of its finished runs."""


class PlannedRun(NamedTuple):
    """One run of an ablation.

    Attributes:
      variant: its name.
      config: with the variant's fields and the seed.
      workdir: its folder.
    """

    variant: str
    config: ConfigDict
    workdir: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.variant}, seed {self.config.seed}"


class Ablation(NamedTuple):
    """What is to be run, and where.

    Attributes:
      experiment: its name in rows and tables.
      config_path: the config file that it is of.
      config: of that file, with changes, and without a variant's fields.
      out: its folder.
      baseline: the variant that the others are compared with.
      variants: {name: the fields that it sets}, without those that set nothing of their own.
      same: the names of those, which are the baseline itself.
      runs: all, seed by seed, so that what has been done can be compared early.
      stress: whether the last epoch is scored under harm, too, on the validation split.
      steps: {variant: the one that it is a step from}, see `grids.Grid`.
    """

    experiment: str
    config_path: str
    config: ConfigDict
    out: Path
    baseline: str
    variants: dict[str, dict[str, object]]
    same: tuple[str, ...]
    runs: list[PlannedRun]
    stress: bool
    steps: dict[str, str]

    def run(self, variant: str, seed: int) -> PlannedRun:
        """Returns what a variant's run with a seed is to be."""
        of_seed = grids.apply(self.config, variant, self.variants[variant])
        of_seed.seed = seed
        return PlannedRun(variant, of_seed, self.out / variant / f"seed{seed}")


def plan(
    config_path: str,
    config: ConfigDict,
    grid_name: str,
    seeds: int,
    out: Path,
    only: Sequence[str],
    stress: bool = False,
) -> Ablation:
    """Lists the runs of an ablation.

    Args:
      config_path: of the experiment.
      config: of that file, with changes.
      grid_name: see `grids.load_grid`.
      seeds: how many; they are 0, 1, ...
      out: folder of the ablation.
      only: variants to run; all if none is named.
      stress: whether the last epochs are scored under harm, too.

    Raises:
      UserError: there is no such grid or variant, the config makes no sense with one of them, a
        variant would be scored on other images or labels, or nothing would be scored.
    """
    check_scored(config)
    grid = grids.load_grid(grid_name)
    configs = {name: grids.apply(config, name, of) for name, of in grid.variants.items()}
    for name, one in configs.items():
        _check_comparable(name, one, grid.baseline, configs[grid.baseline])
    digests = {name: reproduce.config_digest(_without_idle(one)) for name, one in configs.items()}
    same = tuple(
        name
        for name, digest in digests.items()
        if name != grid.baseline
        and digest == digests[grid.baseline]
        and configs[name].init_from == configs[grid.baseline].init_from  # of it names alone count
    )
    variants = {name: of for name, of in grid.variants.items() if name not in same}
    for name in only:
        if name not in variants:
            reason = "is the baseline itself here" if name in same else "is no variant of the grid"
            raise UserError(f"--only: '{name}' {reason}; there are {', '.join(variants)}")
    planned = Ablation(
        experiment=f"{Path(config_path).stem}-{Path(grid_name).stem}",
        config_path=config_path,
        config=config,
        out=out,
        baseline=grid.baseline,
        variants=variants,
        same=same,
        runs=[],
        stress=stress,
        steps={name: one for name, one in grid.steps.items() if {name, one} <= variants.keys()},
    )
    chosen = [*dict.fromkeys(only)] or [*variants]
    runs = [planned.run(variant, seed) for seed in range(seeds) for variant in chosen]
    return planned._replace(runs=runs)


def check_scored(config: ConfigDict) -> None:
    """Refuses runs that leave nothing to compare.

    Raises:
      UserError: the validation split is trained on, and no test split is named.
    """
    data: Any = config.data
    if data.valid_split in data.train_splits and not data.test_splits:
        raise UserError(
            f"config.data.train_splits has '{data.valid_split}' and config.data.test_splits is "
            "empty: nothing would be left to score"
        )


def _without_idle(config: ConfigDict) -> ConfigDict:
    """The config with the fields of the loss that make no difference at their default."""
    config = config.copy_and_resolve_references()
    default = get_config().loss
    for field in idle_fields(config.loss):
        config.loss[field] = default[field]
    return config


def _check_comparable(
    name: str, config: ConfigDict, baseline: str, of_baseline: ConfigDict
) -> None:
    """Refuses a variant whose scores could not be compared with those of the baseline."""
    for field in ("dataset", "protocol", "drop_classes", "limit", "valid_split", "test_splits"):
        one, other = config.data[field], of_baseline.data[field]
        if one != other:
            raise UserError(
                f"the variant '{name}' has data.{field}={one!r}, and '{baseline}' has {other!r}: "
                "it would be scored on other images or labels, which cannot be compared. Make an "
                "ablation of each, or take it out of the grid"
            )


def list_unharmed(ablation: Ablation) -> list[str]:
    """Returns the runs that `--stress` asks for in vain: they are over, and not to be harmed now.

    Raises:
      UserError: as of `find_states`.
    """
    if not ablation.stress:
        return []
    harmed = {
        (row["variant"], row["seed"]) for row in read_own_rows(ablation) if row["stress_accuracy"]
    }
    states = find_states(ablation)
    return [
        run.name
        for run in ablation.runs
        if states[run.name] == "done" and (run.variant, str(run.config.seed)) not in harmed
    ]


def read_own_rows(ablation: Ablation) -> list[dict[str, str]]:
    """Returns the rows that are in the folder of an ablation.

    Raises:
      UserError: they are of another experiment, or of runs of other configs, whether these are to
        be run now or not: all stand in one table. The message lists the fields that differ.
    """
    there = rows.read_rows(ablation.out / ROWS)
    digests: dict[tuple[str, str], set[str]] = {}
    for row in there:
        if row["experiment"] != ablation.experiment:
            raise UserError(
                f"{ablation.out / ROWS} is of the experiment '{row['experiment']}', and this one "
                f"is '{ablation.experiment}'; give another --out"
            )
        if row["variant"] in ablation.variants and row["seed"].isdecimal():
            digests.setdefault((row["variant"], row["seed"]), set()).add(row["config_digest"])
    for (variant, seed), found in digests.items():
        _check_same(ablation.run(variant, int(seed)), found)
    return there


def find_states(ablation: Ablation) -> dict[str, str]:
    """Returns how far each run is: {name: "done", "trained", "begun" or "left"}.

    One that is "trained" has its report, and not all rows yet, or is yet to be scored under harm.

    Raises:
      UserError: the folder holds another experiment, or runs of other configs; the message lists
        the fields that differ.
    """
    there = read_own_rows(ablation)
    told, states = {_told(row) for row in there}, {}
    finished = {(row["variant"], row["seed"]) for row in there}
    for run in ablation.runs:
        _check_same(run, set())
        if (run.workdir / "report.json").is_file():
            made = _rows_of(ablation, run)
            left = _lacks_stress(ablation, run, made) or not {_told(row) for row in made} <= told
            states[run.name] = "trained" if left else "done"
        elif (run.variant, str(run.config.seed)) in finished:
            states[run.name] = "done"  # whose folder was removed
        else:
            states[run.name] = "begun" if (run.workdir / "checkpoints").is_dir() else "left"
    return states


def run_all(
    ablation: Ablation,
    train: run_queue.Train = run_queue.train_apart,
    keep_checkpoints: bool = False,
) -> list[str]:
    """Does what is left, and adds the rows of each run when it is over.

    Args:
      ablation: of `plan`.
      train: see `run_queue.do_all`.
      keep_checkpoints: whether they stay when the rows of their run are there.

    Returns:
      The names of the runs that failed.

    Raises:
      UserError: the folder holds something else, or another process works on one of its runs.
      SystemExit: interrupted; what was done is saved.
    """
    states = find_states(ablation)
    left = {run.name: run for run in ablation.runs if states[run.name] != "done"}

    def queued(run: PlannedRun) -> run_queue.QueuedRun:
        python, workdir = (sys.executable, "-m"), f"--workdir={run.workdir}"
        commands = []
        if trains := states[run.name] != "trained":
            overrides = reproduce.override_flags(ablation.config_path, run.config)
            config = f"--config={ablation.config_path}"
            commands.append([*python, "dmfer_jax.train", config, *overrides, workdir])
        if ablation.stress and (trains or _lacks_stress(ablation, run, _rows_of(ablation, run))):
            data: Any = run.config.data  # that of the folder may be of before the records moved
            places = [f"--data_dir={data.data_dir}", f"--source={data.source}"]
            commands.append([*python, "dmfer_jax.evaluate", "--stress", *places, workdir])
        return run_queue.QueuedRun(run.name, run.workdir, commands)

    def finish(name: str) -> None:
        rows.append_rows(ablation.out / ROWS, _rows_of(ablation, left[name]))
        if not keep_checkpoints:
            shutil.rmtree(left[name].workdir / "checkpoints", ignore_errors=True)

    return run_queue.do_all([queued(run) for run in left.values()], finish, train)


def _rows_of(ablation: Ablation, run: PlannedRun) -> list[dict[str, str]]:
    """The rows of a run that has its report, with what it scored under harm."""
    report = read_run_report(run.workdir)
    run_folder.check_alike(run.workdir / "report.json", run.workdir, report["config"], run.config)
    return rows.rows_of_report(
        report,
        experiment=ablation.experiment,
        variant=run.variant,
        config_digest=reproduce.config_digest(report["config"]),
        command=reproduce.train_command(ablation.config_path, run.config),
    )


def _lacks_stress(ablation: Ablation, run: PlannedRun, made: Sequence[Mapping[str, str]]) -> bool:
    """Whether a run of these rows is to be scored under harm, is not, and can be."""
    kept = (run.workdir / "checkpoints").is_dir()
    return ablation.stress and kept and not any(row["stress_accuracy"] for row in made)


def _told(row: Mapping[str, str]) -> tuple[str, ...]:
    """What a row of results is of, and what it says of harm."""
    return (*rows.row_key(row), row["stress_accuracy"])


def _check_same(run: PlannedRun, digests: set[str]) -> None:
    """Refuses a run of another config than what is in its folder, or in its rows."""
    way_out = "Give another --out, or set these back."
    if (run.workdir / "config.json").is_file():
        old = run_folder.load_config(run.workdir)
        if differences := run_folder.find_unlike(old, run.config):
            raise UserError(
                f"{run.workdir} is of a run of another config: {'; '.join(differences)}. {way_out}"
            )
    elif digests - {digest := reproduce.config_digest(run.config)}:
        raise UserError(
            f"the rows of {run.name} are of a config of digest {', '.join(sorted(digests))}, and "
            f"this one has {digest}. What differs would stand in {run.workdir}/config.json, which "
            f"is not there. {way_out}"
        )
