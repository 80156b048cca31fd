"""Adds runs to a file of results, and makes the tables of a page from such files.

  python -m dmfer_jax.record --reports=runs/ferplus_cpu --config=configs/ferplus_cpu.py
  python -m dmfer_jax.record --reports=RUN0,RUN1,RUN2 --config=configs/rafdb.py --variant=wide
  python -m dmfer_jax.record --page=README.md

Each row names the command, the commit, the time and the machine; of a run's folder also what
`evaluate --lists` and `--stress` found there. A row of the same run, seed and split is replaced.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dmfer_jax import command, files, reproduce, run_folder
from dmfer_jax.config import find_config, validate
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import result_tables, rows
from dmfer_jax.reporting.report import read_report
from dmfer_jax.reporting.run_report import read_run_report


def add_report(report_path: Path, config_path: str, variant: str, out: Path) -> int:
    """Adds the rows of a run to a file of results.

    Args:
      report_path: the run's folder, or its report.json.
      config_path: the config file that it was trained by.
      variant: what it is called beside other runs of this config; "" for the config as it is.
      out: the CSV.

    Returns:
      How many rows were added.

    Raises:
      UserError: the report or the config cannot be read, what is in the CSV are no rows, or rows
        of another config have this name.
    """
    read = read_run_report if report_path.is_dir() else read_report
    report = read(report_path)
    if system := report.get("system"):
        raise UserError(
            f"{report_path} is of {system}, which train does not train; its rows are in the "
            "compare.csv of its comparison"
        )
    config = _config_of(report, report_path)
    path, digest = find_config(config_path), reproduce.config_digest(config)
    experiment = Path(path).stem
    for row in rows.read_rows(out):
        same = (row["experiment"], row["variant"]) == (experiment, variant)
        if same and (row["config_digest"], row["dataset"]) != (digest, report["dataset"]):
            what = "config" if row["config_digest"] != digest else "dataset or release"
            called = variant or "without a variant"
            raise UserError(
                f"{report_path} is of another {what} than the rows of {experiment}, {called}, in "
                f"{out}; name what differs with --variant, or delete those rows"
            )
    added = rows.rows_of_report(
        {**report, "config": config.to_dict()},
        experiment=experiment,
        variant=variant,
        config_digest=digest,
        command=reproduce.train_command(path, config),
    )
    rows.append_rows(out, added)
    return len(added)


def _config_of(report: dict[str, Any], path: Path) -> ConfigDict:
    """The config of a run's report, such as training would take today."""
    if not isinstance(report.get("config"), dict):
        raise UserError(f"{path} names no config; expected the report that training wrote")
    try:
        config = run_folder.complete(report["config"])
        validate(config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is of a config that this release does not know: {reason}"
        ) from error
    return config


def update_page(page: Path) -> None:
    """Makes the tables of a page anew, from the files that it names.

    Args:
      page: in Markdown; the files that it names lie beside it or below.

    Raises:
      UserError: the page or a file cannot be used.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"{page}: {reason}; expected a page in Markdown") from error
    try:
        made = result_tables.render_page(text, page.parent)
    except UserError as error:
        raise UserError(f"{page}: {error}") from error
    files.write_text(page, made)


def main(argv: Sequence[str]) -> None:
    """Does what the flags ask for."""
    del argv
    options = flags.FLAGS
    if not options.reports and not options.page:
        raise UserError("nothing to do: give --reports and --config, or --page, or both")
    if options.reports and not options.config:
        raise UserError("--reports needs --config, the file that the runs were trained by")
    for report in options.reports:
        count = add_report(Path(report), options.config, options.variant, Path(options.out))
        print(f"{report}: {count} rows in {options.out}")
    if options.page:
        update_page(Path(options.page))
        print(f"{options.page}: tables made anew")


if __name__ == "__main__":
    flags.DEFINE_list("reports", [], "Folders of finished runs, or report.json files.")
    flags.DEFINE_string("config", "", "The config file that they were trained by.")
    flags.DEFINE_string("variant", "", "What they are called beside others of this config.")
    flags.DEFINE_string("out", "results/runs.csv", "The file of results.")
    flags.DEFINE_string("page", "", "A page whose tables are made anew, such as README.md.")
    command.run(main)
