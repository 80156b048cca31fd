"""Runs the variants of an experiment with several seeds, and tells what each part of it is worth.

  python -m dmfer_jax.ablate --config=configs/ferplus_cpu.py --grid=components --seeds=3
  python -m dmfer_jax.ablate --config=configs/ferplus_cpu.py --grid=losses --dry_run
  python -m dmfer_jax.ablate --config=configs/ferplus_cpu.py --grid=my_grid.py --only=plain,erase

The same command goes on where an interrupted one stopped, and runs nothing twice. In the folder of
`--out`: `runs.csv` with the rows of each finished run, `table.md` and `differences.csv`, and the
figure `ablation.png` and `.pdf`; and `<variant>/seed<n>/` of each run. A run that another ablation
did already may be copied there; `--stress` harms those whose checkpoints are there. Nothing is
chosen on a test split.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from dmfer_jax import ablation, command, run_lock
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import ablation_table, console
from dmfer_jax.reporting.differences import DIFFERENCES, read_differences
from dmfer_jax.reporting.predictions import Predictions, read_run_predictions


def show_findings(planned: ablation.Ablation) -> None:
    """Writes and prints what is known from the finished runs.

    Raises:
      UserError: no run of the grid is finished, or what was written of one is damaged.
    """
    there, gone = ablation.read_own_rows(planned), list[str]()
    if not any(row["variant"] in planned.variants for row in there):
        raise UserError(f"{planned.out / ablation.ROWS} has no row of this grid: nothing is done")

    def said(variant: str, seed: str) -> dict[str, Predictions]:
        path = planned.out / variant / f"seed{seed}" / "predictions.npz"
        if not path.exists():
            print(f"{path} is gone, so {variant}, seed {seed} is compared with nothing anew")
            gone.append(variant)
            return {}
        return read_run_predictions(path)[1]

    findings = ablation_table.find(
        planned.experiment, planned.baseline, planned.variants, there, said, planned.steps
    )
    if gone and (planned.out / DIFFERENCES).is_file():
        findings = ablation_table.keep_known(findings, read_differences(planned.out))
    ablation_table.print_findings(findings)
    ablation_table.write_findings(planned.out, findings)
    from dmfer_jax.reporting import ablation_figure  # matplotlib takes long to import

    ablation_figure.draw_findings(planned.out, findings)
    print(f"Table: {planned.out / 'table.md'}   Figure: {planned.out / 'ablation.png'}")


def print_plan(planned: ablation.Ablation) -> None:
    """Prints the variants, and how far each run is.

    Raises:
      UserError: the folder holds something else.
    """
    states = ablation.find_states(planned)
    out = console.Console(highlight=False)
    for name, fields in planned.variants.items():
        text = ", ".join(f"{field}={value}" for field, value in fields.items())
        out.print(f"{name}: {text or 'as the config says'}", markup=False, soft_wrap=True)
    cells = [[run.name, states[run.name]] for run in planned.runs]
    console.print_table(out, f"{planned.experiment}, in {planned.out}", ["run", "state"], cells)
    count = Counter(states.values())
    left = len(states) - count["done"]
    print(f"\n{len(states)} runs: {count['done']} done, {left} to do")


def main(argv: Sequence[str]) -> None:
    """Runs the ablation that the flags describe."""
    del argv
    options = flags.FLAGS
    # pyright does not see what the package takes from its own module.
    given: Any = config_flags
    if "seed" in given.get_override_values(options["config"]):
        raise UserError("--config.seed cannot be given: --seeds=3 runs seeds 0, 1 and 2")
    path = config_flags.get_config_filename(options["config"])
    out = Path(options.out or f"runs/{Path(path).stem}_{Path(options.grid).stem}")
    planned = ablation.plan(
        path, options.config, options.grid, options.seeds, out, options.only, options.stress
    )
    if planned.same:
        print(f"the same as {planned.baseline} here, and not run: {', '.join(planned.same)}")
    if unharmed := ablation.list_unharmed(planned):
        print(
            f"not scored under harm, as their checkpoints are gone: {', '.join(unharmed)}. "
            "--keep_checkpoints keeps those of runs to come; these have to be run anew in another "
            "--out"
        )
    if options.dry_run:
        print_plan(planned)
        return
    failed: list[str] = []
    if not options.table:
        with run_lock.lock(out, "--out"):
            failed = ablation.run_all(planned, keep_checkpoints=options.keep_checkpoints)
    if not failed or (out / ablation.ROWS).is_file():
        show_findings(planned)
    if failed:
        raise UserError(
            f"{len(failed)} runs failed, which said why when they did: {'; '.join(failed)}. The "
            "same command tries them again; --only leaves variants out."
        )


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/synthetic.py.")
    flags.mark_flag_as_required("config")
    flags.DEFINE_string(
        "grid",
        None,
        "components, losses or sensitivity; or a Python file whose get_grid() returns a Grid.",
        required=True,
    )
    flags.DEFINE_integer("seeds", 3, "How many seeds: 0, 1, ...", lower_bound=1)
    flags.DEFINE_string("out", "", "Folder; runs/<config>_<grid> if not given.")
    flags.DEFINE_list("only", [], "Variants to run, separated by commas; all if not given.")
    flags.DEFINE_bool("dry_run", False, "Only lists the runs, and which are done.")
    flags.DEFINE_bool("table", False, "Only makes table and figure, of the runs that are done.")
    flags.DEFINE_bool(
        "stress", False, "Also scores last epochs on the validation split, under harm."
    )
    flags.DEFINE_bool(
        "keep_checkpoints", False, "Keeps the checkpoints of finished runs, as evaluate needs them."
    )
    command.run(main)
