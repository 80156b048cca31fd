"""Tables in a page, such as README.md, made from rows of results.

A page says where: between the two lines

    <!-- results: results/runs.csv -->
    <!-- end of results -->

stands what is made from the rows of that file. The name of a folder stands for the ablation or the
comparison that it holds. Nothing in it is written by hand, so that a number in a
page is that of a run.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dmfer_jax.errors import UserError
from dmfer_jax.reporting import comparison
from dmfer_jax.reporting.ablation_table import SCORES, Row
from dmfer_jax.reporting.bootstrap import CONFIDENCE
from dmfer_jax.reporting.cells import (
    ONE_SEED,
    SOME_SEEDS,
    are_of_some,
    markdown_table,
    mean_cell,
    seeds_cell,
)
from dmfer_jax.reporting.differences import (
    COMPARED,
    Difference,
    interval_cells,
    read_differences,
)
from dmfer_jax.reporting.rows import STRESS, numbers, read_rows, scaled

_BLOCK = re.compile(
    r"(?P<begin><!-- results: (?P<file>\S+) -->\n)(?:(?!<!-- results: ).)*?"
    r"(?P<end><!-- end of results -->)",
    re.DOTALL,
)
_NAMES = ("experiment", "variant")
_HEADER = (
    "run",
    "scored on",
    "images",
    "epoch",
    "accuracy",
    "dedup.",
    "mean-class",
    "macro-F1",
    *STRESS.values(),
    "seeds",
    "hours",
)


def render_page(page: str, folder: Path) -> str:
    """Returns a page with its tables made anew.

    Args:
      page: Markdown.
      folder: of the page; the files that it names lie there or below.

    Raises:
      UserError: the page has no place for a table, or one that is not whole, or a file has no rows
        or cannot be read.
    """
    places = len(_BLOCK.findall(page))
    begun, ended = (page.count(f"<!-- {words}") for words in ("results: ", "end of results -->"))
    if places and not places == begun == ended:
        raise UserError(
            f"{begun} results start by a line '<!-- results: FILE -->', {ended} end by a "
            f"line '<!-- end of results -->', and {places} do both; mend the others"
        )
    if not places:
        raise UserError(
            "the page has no place for results; expected a line such as '<!-- results: "
            "results/runs.csv -->', and behind it a line '<!-- end of results -->'"
        )

    def render(found: re.Match[str]) -> str:
        path = folder / found["file"]
        if (path / comparison.ROWS).is_file():
            table = comparison.render_comparison(comparison.read_comparison(path))
        else:
            table = _render_runs(path, found["file"])
        return f"{found['begin']}{table}\n{found['end']}"

    return _BLOCK.sub(render, page)


def _render_runs(path: Path, name: str) -> str:
    """The table of a file of results or of an ablation, which the page calls by a name."""
    rows = read_rows(path / "runs.csv" if path.is_dir() else path)
    if not any(row["epoch_rule"] == "last" for row in rows):
        raise UserError(f"{name}, which the page shows, has no rows of a last epoch")
    if path.is_dir():
        return render_ablation(rows, read_differences(path))
    return render_table(rows)


def render_table(rows: Sequence[Row]) -> str:
    """Returns a table of the last epochs, and the command of each line, in Markdown.

    A line is of all seeds of a run on one split: means, and with two seeds or more the standard
    deviation of the sample. A column that nothing is known of is left away. Runs chosen on the
    validation split are in the file alone.

    Args:
      rows: of `rows.read_rows`, in the order in which they are to stand.
    """
    groups = _group_last(rows)
    table = [_HEADER, *(_cells(group) for group in groups.values())]
    columns = [column for column in zip(*table, strict=True) if set(column[1:]) != {"-"}]
    header, *cells = zip(*columns, strict=True)
    lines = markdown_table(header, cells, texts=2)
    commands: dict[str, str] = {}
    for group in groups.values():
        more = [row["seed"] for row in group[1:]]
        others = f" (and seed{'s' * (len(more) > 1)} {', '.join(more)})" * bool(more)
        commands.setdefault(_run(group[0]), f"`{group[0]['command']}`{others}")
    return "\n".join([*lines, "", *(f"- {run}: {text}" for run, text in commands.items())])


def render_ablation(rows: Sequence[Row], differences: Sequence[Difference]) -> str:
    """Returns tables of an ablation's last epochs, one for each split, and what a reader must know.

    Args:
      rows: of `rows.read_rows`, in the order in which they are to stand.
      differences: those from the baseline first.
    """
    baseline = differences[0].against if differences else ""
    groups = list(_group_last(rows).values())
    last = [row for group in groups for row in group]
    scores = SCORES | {name: title for name, title in STRESS.items() if numbers(last, name)}
    columns = [*scores.values(), *(f"{title} - `{baseline}`" for title in COMPARED.values())]
    lines, of_some = [], False
    for split in dict.fromkeys(group[0]["split"] for group in groups):
        of_split = [group for group in groups if group[0]["split"] == split]
        compared = [one for one in differences if one.split == split]
        found = {one.variant: one for one in compared if one.against == baseline}
        cells = [_variant_cells(one, scores, found.get(one[0]["variant"])) for one in of_split]
        of_some |= are_of_some(cells)
        first = of_split[0][0]
        images = f"{int(first['images']):,} images"
        epochs = {row["epoch"] for group in of_split for row in group}
        which = f"epoch {first['epoch']}, the last" if len(epochs) == 1 else "the last epoch"
        lines.append(f"{_scored_on(first)}, {images}, {which}; percent:\n")
        lines += [*markdown_table(["variant", *columns, "seeds"], cells), ""]
        if steps := [_step_cells(one) for one in compared if one.against != baseline]:
            header = ["each step by itself", "from", *COMPARED.values(), "seeds"]
            lines += [*markdown_table(header, steps, texts=2), ""]
    hours = mean_cell(numbers(last, "cpu_hours"), between="")
    notes = [
        "Mean ± standard deviation over the seeds",
        f"[low, high]: the {100 * CONFIDENCE:g} % interval over images and seeds, in points",
        *([ONE_SEED] if any(len(one.seeds) == 1 for one in differences) else []),
        *([SOME_SEEDS] if of_some else []),
        f"{hours} CPU hours a run",
        "the first row's command",
    ]
    return "\n".join([*lines, f"{'; '.join(notes)}:", f"`{last[0]['command']}`"])


def _variant_cells(
    of_variant: Sequence[Row], columns: Iterable[str], difference: Difference | None
) -> list[str]:
    scores = (scaled(of_variant, name, 100) for name in columns)
    return [
        f"`{of_variant[0]['variant']}`",
        *(mean_cell(score, between=" ± ") for score in scores),
        *interval_cells(difference.intervals if difference else {}),
        _seeds(len(of_variant), difference),
    ]


def _step_cells(step: Difference) -> list[str]:
    cells = interval_cells(step.intervals)
    return [f"`{step.variant}`", f"`{step.against}`", *cells, seeds_cell(len(step.seeds))]


def _seeds(number: int, difference: Difference | None) -> str:
    """How many seeds a variant was run with, and of how many its difference is."""
    if difference is None:
        return str(number)
    compared = seeds_cell(len(difference.seeds))
    return compared if len(difference.seeds) == number else f"{number} ({compared} compared)"


def _group_last(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """The rows of last epochs by run and split, those of all seeds together."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["epoch_rule"] == "last":
            groups.setdefault((*(row[name] for name in _NAMES), row["split"]), []).append(row)
    return groups


def _run(row: Row) -> str:
    return " ".join(f"`{row[name]}`" for name in _NAMES if row[name])


def _cells(group: Sequence[Row]) -> list[str]:
    first = group[0]
    return [
        _run(first),
        _scored_on(first),
        f"{int(first['images']):,}",
        first["epoch"],
        *(mean_cell(scaled(group, column, 100), between=" ± ") for column in _PERCENT),
        str(len(group)),
        mean_cell(scaled(group, "hours"), between=""),
    ]


def _scored_on(row: Row) -> str:
    labels = f", {row['protocol']}" if row["protocol"] else ""
    return f"{row['dataset']} {row['split']}{labels}"


_PERCENT = (
    "accuracy",
    "deduplicated_accuracy",
    "mean_class_accuracy",
    "macro_f1",
    *STRESS,
)
