"""Trains this project and PyTorch baselines alike, and makes one table of what came out.

  python -m dmfer_jax.compare --config=configs/synthetic.py --seeds=3
  python -m dmfer_jax.compare --config=configs/synthetic.py --predictions=other=said.csv

Every system trains on the same records, protocol, schedule, augmented batches and seeds, each run
in a process of its own:

  dmfer_jax    this project
  dmfer_torch  the same network and losses in PyTorch
  plain_torch  the config's backbone, global average pooling, a linear layer, cross-entropy
  dan_torch    the config's backbone under four cross-attention heads (see pytorch/dan.py)

The systems in PyTorch get their batches from our pipeline, augmented by JAX, so that all see the
same pixels. That counts in their time and memory; `benchmarks/end_to_end.py` compares the speed of
both sides with an input pipeline of their own each.

The same command goes on where it was interrupted; another one adds systems, seeds or predictions
to those that are in its folder. The others are compared with plain_torch, or without it with the
first of the list above that there is. In the folder of `--out`: `table.md`,
`compare.csv` with the rows of results, `costs.csv`, and a folder for each run.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from dmfer_jax import command, compare_results, run_folder, run_lock, run_queue
from dmfer_jax.building import ensure_built
from dmfer_jax.compare_plan import Plan, check
from dmfer_jax.compared_run import SYSTEMS
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import comparison


def compare(plan: Plan, train: run_queue.Train = run_queue.train_apart) -> None:
    """Trains what is not trained yet, and writes and prints the table.

    Args:
      plan: what to compare.
      train: see `run_queue.do_all`.

    Raises:
      UserError: something cannot be used, another process works on a run, or some runs failed.
      SystemExit: interrupted; what was done is saved.
    """
    check(plan)
    found: comparison.Comparison | None = None

    def finish(name: str) -> None:
        del name
        nonlocal found
        found = _write_table(plan)

    with run_lock.lock(plan.out, "--out"):
        _save_config(plan)
        data = plan.config.data
        folder = ensure_built(data.dataset, data.source, data.data_dir)
        compare_results.check_predictions(plan, folder)
        failed = run_queue.do_all(plan.list_left(), finish, train)
        if found := found or _write_table(plan):
            comparison.print_comparison(found)
            print(f"Table: {plan.out / 'table.md'}   Rows: {plan.out / 'compare.csv'}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(plan.runs)} runs failed, which said why when they did: "
            f"{'; '.join(failed)}. The same command tries them again."
        )


def _write_table(plan: Plan) -> comparison.Comparison | None:
    """Writes the table of what is done, and returns what it is of."""
    if found := compare_results.find(plan):
        comparison.write_comparison(plan.out, found)
    return found


def _save_config(plan: Plan) -> None:
    """Keeps the config for the runs; data may have moved since."""
    path = plan.out / "config.json"
    if path.is_file():
        before = run_folder.load_config(plan.out)
        before.seed = plan.config.seed  # seeds that are added later belong to it, too
        if differences := run_folder.find_unlike(before, plan.config):
            raise UserError(
                f"{plan.out} holds a comparison of another config: {'; '.join(differences)}. Give "
                "another --out, or set these back to go on with it."
            )
    run_folder.write_config(plan.out, plan.config)


def _read_named_paths(texts: Sequence[str]) -> dict[str, Path]:
    """What `--predictions` gives, as {name: path}."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not (name and path) or name in found:
            raise UserError(f"--predictions={text}: expected NAME=FILE.csv, each name once")
        found[name] = Path(path)
    return found


def main(argv: Sequence[str]) -> None:
    """Compares what the flags name."""
    del argv
    options = flags.FLAGS
    path = config_flags.get_config_filename(options["config"])
    plan = Plan(
        path,
        options.config,
        Path(options.out or f"runs/{Path(path).stem}_compare"),
        options.systems,
        options.seeds,
        options.lists,
        options.stress,
        _read_named_paths(options.predictions),
        options.python_torch,
    )
    compare(plan)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/synthetic.py.")
    flags.mark_flag_as_required("config")
    flags.DEFINE_string("out", "", "Folder; runs/<config>_compare if not given.")
    flags.DEFINE_list("systems", list(SYSTEMS), "What is trained, separated by commas.")
    flags.DEFINE_integer("seeds", 3, "How many seeds; config.seed is the first.", lower_bound=1)
    flags.DEFINE_string("lists", "", "File or folder of RAN's lists; last epochs are scored on it.")
    flags.DEFINE_bool("stress", False, "Also scores last epochs under eleven kinds of harm.")
    flags.DEFINE_multi_string(
        "predictions", [], "NAME=FILE.csv of another system on the same split; may be repeated."
    )
    flags.DEFINE_string("python_torch", "", "Interpreter for PyTorch, if this one is without it.")
    command.run(main)
