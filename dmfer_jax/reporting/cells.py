"""Tables of results in Markdown, and what stands in their cells."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from dmfer_jax.reporting.bootstrap import Interval
from dmfer_jax.reporting.console import number


def markdown_table(
    header: Sequence[str], cells: Sequence[Sequence[str]], texts: int = 1
) -> list[str]:
    """Returns the lines of a table.

    Args:
      header: names of the columns.
      cells: of each row.
      texts: how many columns, from the first on, hold text; the others are numbers, to the right.
    """
    rule = "|---" * texts + "|--:" * (len(header) - texts) + "|"
    first, *rest = (f"| {' | '.join(row)} |" for row in [header, *cells])
    return [first, rule, *rest]


def mean_cell(values: Sequence[float | None], digits: int = 2, *, between: str = "±") -> str:
    """Returns the mean, and of two values or more the standard deviation of the sample, as text.

    Args:
      values: to show, one for each seed; those that are None are not known. "-" stands for none,
        and " (2/3)" behind the rest tells of how many seeds it is if not of all.
      digits: behind the point.
      between: what parts the two; "" leaves the deviation away.
    """
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    some = f" ({len(known)}/{len(values)})" * (len(known) < len(values))
    mean = number(float(np.mean(known)), digits)
    if not between or len(known) == 1:
        return f"{mean}{some}"
    return f"{mean}{between}{number(float(np.std(known, ddof=1)), digits)}{some}"


def whole_cell(values: Sequence[float | None], digits: int = 2) -> str:
    """Returns what `mean_cell` does where all values are known, else "-".

    It is for the epochs chosen on the validation split: of them lists and harm are scored with
    those seeds alone whose best epoch is the last one, and their mean is no mean of the others.
    """
    return "-" if None in values else mean_cell(values, digits)


def seeds_cell(seeds: int) -> str:
    """Returns over how many seeds a difference is, marked if `ONE_SEED` is true of it."""
    return f"{seeds}{'*' * (seeds == 1)}"


ONE_SEED = "marked *: one seed, so the interval is over images alone; another may say otherwise"
"""What a reader must know of a difference of one seed."""

SOME_SEEDS = "(2/3): of two seeds of three, as the others have no such score"
"""What a reader must know of a mean that is not of all seeds."""


def are_of_some(cells: Iterable[Sequence[str]]) -> bool:
    """Whether `SOME_SEEDS` is true of a cell of these rows."""
    return any(re.search(r" \(\d+/\d+\)$", cell) for row in cells for cell in row)


def difference_cell(interval: Interval) -> str:
    """Returns a difference in points, and the interval that it may lie in."""
    value, low, high = (100 * one for one in interval)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
