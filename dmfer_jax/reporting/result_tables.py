"""Tables in a page, such as README.md, made from rows of results.

A page says where: between the two lines

    <!-- results: results/runs.csv -->
    <!-- end of results -->

stands what is made from the rows of that file. Nothing in it is written by hand, so that a number
in a page is that of a run.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.cells import markdown_table, mean_cell
from dmfer_jax.reporting.rows import numbers

_BLOCK = re.compile(
    r"(?P<begin><!-- results: (?P<file>\S+) -->\n).*?(?P<end><!-- end of results -->)", re.DOTALL
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
    "stress",
    "seeds",
    "hours",
)


def render_page(page: str, read: Callable[[str], Sequence[Mapping[str, str]]]) -> str:
    """Returns a page with its tables made anew.

    Args:
      page: Markdown.
      read: takes the name of a file in the page, and returns its rows, as `rows.read_rows` does.

    Raises:
      UserError: the page has no place for a table, or a file has no rows.
    """
    if not _BLOCK.search(page):
        raise UserError(
            "the page has no place for results; expected a line such as '<!-- results: "
            "results/runs.csv -->', and behind it a line '<!-- end of results -->'"
        )

    def render(found: re.Match[str]) -> str:
        rows = read(found["file"])
        if not rows:
            raise UserError(f"{found['file']}, which the page shows, has no rows")
        return f"{found['begin']}{render_table(rows)}\n{found['end']}"

    return _BLOCK.sub(render, page)


def render_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns a table of the last epochs, and the command of each line, in Markdown.

    A line is of all seeds of a run on one split: means, and with two seeds or more the standard
    deviation of the sample. Runs chosen on the validation split are in the file alone.

    Args:
      rows: of `rows.read_rows`, in the order in which they are to stand.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        if row["epoch_rule"] == "last":
            groups.setdefault((*(row[name] for name in _NAMES), row["split"]), []).append(row)
    lines = markdown_table(_HEADER, [_cells(group) for group in groups.values()], texts=2)
    commands: dict[str, str] = {}
    for group in groups.values():
        others = f" (and seeds {', '.join(row['seed'] for row in group[1:])})" * (len(group) > 1)
        commands.setdefault(_run(group[0]), f"`{group[0]['command']}`{others}")
    return "\n".join([*lines, "", *(f"- {run}: {text}" for run, text in commands.items())])


def _run(row: Mapping[str, str]) -> str:
    return " ".join(f"`{row[name]}`" for name in _NAMES if row[name])


def _cells(group: Sequence[Mapping[str, str]]) -> list[str]:
    first = group[0]
    labels = f", {first['protocol']}" if first["protocol"] else ""
    return [
        _run(first),
        f"{first['dataset']} {first['split']}{labels}",
        f"{int(first['images']):,}",
        first["epoch"],
        *(
            mean_cell([100 * value for value in numbers(group, column)], between=" ± ")
            for column in _PERCENT
        ),
        str(len(group)),
        mean_cell(numbers(group, "hours"), between=""),
    ]


_PERCENT = (
    "accuracy",
    "deduplicated_accuracy",
    "mean_class_accuracy",
    "macro_f1",
    "stress_accuracy",
)
