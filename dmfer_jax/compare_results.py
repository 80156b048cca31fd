"""What the runs of a comparison left behind, gathered for its table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmfer_jax import compared_run, predicted, reproduce, run_folder
from dmfer_jax.building import ensure_built
from dmfer_jax.compare_plan import Plan
from dmfer_jax.compared_run import SYSTEMS
from dmfer_jax.data import sources
from dmfer_jax.data.records import split_names
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import comparison, rows, writers
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting.predictions import Predictions, read_predictions, read_run_predictions
from dmfer_jax.reporting.run_report import read_run_report


def find(plan: Plan) -> comparison.Comparison | None:
    """Gathers what is known from the runs that are done; None where none is.

    All that are in the folder count, whether they are asked for now or were before, and so do
    predictions that joined before.

    Raises:
      UserError: what a run left is damaged or of another config, or predictions cannot be used.
    """
    done = [(system, seed) for system in SYSTEMS for seed in _seeds_done(plan.out / system)]
    if not done:
        return None
    known = {*plan.systems} | {system for system, _ in done}
    baseline = "plain_torch" if "plain_torch" in known else min(known, key=SYSTEMS.index)
    logs = {run: writers.read_jsonl(plan.run_dir(*run) / "metrics.jsonl") for run in done}
    found, costs = [], []
    for system, seed in done:
        workdir = plan.run_dir(system, seed)
        report = read_run_report(workdir)
        config = compared_run.config_of(plan.config, system, seed)
        run_folder.check_alike(workdir, workdir, report["config"], config)
        found += rows.rows_of_report(
            report,
            experiment=f"{Path(plan.config_path).stem}-compare",
            variant=system,
            config_digest=reproduce.config_digest(config),
            command=plan.public_command(system, seed),
        )
        of_baseline = comparison.list_validations(logs.get((baseline, seed), []))
        goal = of_baseline[-1]["accuracy"] if of_baseline else None
        cost = compared_run.read_cost(workdir)
        costs.append(comparison.list_cost(system, report, logs[system, seed], cost, goal))
    said: dict[tuple[str, str], Mapping[str, Predictions]] = {
        (system, str(seed)): read_run_predictions(plan.run_dir(system, seed) / "predictions.npz")[1]
        for system, seed in done
    }
    leads = comparison.find_differences(baseline, found, lambda system, seed: said[system, seed])
    split = reports.main_split([row["split"] for row in found])
    like = next(row for row in found if row["split"] == split)
    joined = {
        row["variant"]: row
        for row in rows.read_rows(plan.out / comparison.ROWS)
        if row["epoch_rule"] == comparison.PREDICTIONS and row["split"] == split
    }
    joined |= {name: score_predictions(plan, name, like) for name in plan.predictions}
    return comparison.Comparison(baseline, [*found, *joined.values()], costs, leads)


def _seeds_done(folder: Path) -> list[int]:
    """The seeds with which a system's runs are over."""
    names = (path.parent.name for path in folder.glob("seed*/report.json"))
    return sorted(int(seed) for name in names if (seed := name.removeprefix("seed")).isdecimal())


def score_predictions(plan: Plan, name: str, like: Mapping[str, str]) -> dict[str, str]:
    """Returns the row of results of another system's predictions.

    Args:
      plan: of the comparison.
      name: of the system.
      like: a row of the split that they are of.

    Raises:
      UserError: the file cannot be used.
    """
    data = plan.config.data
    folder = ensure_built(data.dataset, data.source, data.data_dir)
    split = sources.load_split(folder, like["split"], data, train=False)
    return comparison.list_predicted_row(name, _score(plan.predictions[name], split), like)


def check_predictions(plan: Plan, folder: Path) -> None:
    """Refuses predictions that cannot join the table, before the first training.

    Args:
      plan: of the comparison.
      folder: of the records.

    Raises:
      UserError: a file cannot be used, or is of another split than the table.
    """
    data: Any = plan.config.data
    built = {*split_names(folder)} - {*data.train_splits}
    scored = [name for name in (data.valid_split, *data.test_splits) if name in built]
    if plan.predictions and scored:
        split = sources.load_split(folder, reports.main_split(scored), data, train=False)
        for path in plan.predictions.values():
            _score(path, split)


def _score(path: Path, split: Split) -> dict[str, Any]:
    """The summary of predictions of a split."""
    names, probabilities = read_predictions(path, split.class_names)
    try:
        return predicted.score_predictions(split, names, probabilities)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
