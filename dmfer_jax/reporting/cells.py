"""Tables of results in Markdown, and what stands in their cells."""

from collections.abc import Sequence

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


def mean_cell(values: Sequence[float], digits: int = 2, *, between: str = "±") -> str:
    """Returns the mean, and of two values or more the standard deviation of the sample, as text.

    Args:
      values: to show; "-" stands for none.
      digits: behind the point.
      between: what parts the two; "" leaves the deviation away.
    """
    if not values:
        return "-"
    mean = number(float(np.mean(values)), digits)
    if not between or len(values) == 1:
        return mean
    return f"{mean}{between}{number(float(np.std(values, ddof=1)), digits)}"


def seeds_cell(seeds: int) -> str:
    """Returns over how many seeds a difference is, marked if `ONE_SEED` is true of it."""
    return f"{seeds}{'*' * (seeds == 1)}"


ONE_SEED = "marked *: one seed, so the interval is over images alone; another may say otherwise"
"""What a reader must know of a difference of one seed."""


def difference_cell(interval: Interval) -> str:
    """Returns a difference in points, and the interval that it may lie in."""
    value, low, high = (100 * one for one in interval)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
