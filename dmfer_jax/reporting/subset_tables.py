"""Tables about parts of a split: groups of people, and the images of occlusion and pose lists."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from dmfer_jax.reporting.console import hundredths, print_table

LIST_COUNTS = ("lines", "distinct", "published", "repeated", "found", "missing", "relabelled")
"""What is counted of an occlusion or pose list: its lines, its distinct names, how many of these it
has as published, lines that repeat an earlier one, names found and not found among the records, and
names found whose record has another label."""

_NAMES_SHOWN = 3


def print_groups(console: Console, title: str, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a table of how well each group of images is recognised.

    Args:
      console: where to.
      title: a line above it.
      groups: {group: {examples, accuracy, mean_class_accuracy}}.
    """
    rows = [
        [
            name,
            f"{group['examples']:,}",
            hundredths(group["accuracy"]),
            hundredths(group["mean_class_accuracy"]),
        ]
        for name, group in groups.items()
    ]
    print_table(console, title, ["group", "images", "accuracy", "mean-class"], rows)


def print_lists(console: Console, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints what was found of each list, and below it what a reader of its score must know.

    Args:
      console: where to.
      splits: {split: summary}; those with a `list` are shown.
    """
    lists = {name: summary["list"] for name, summary in splits.items() if "list" in summary}
    if not lists:
        return
    rows = [[name, *(f"{found[key]:,}" for key in LIST_COUNTS)] for name, found in lists.items()]
    print_table(console, "Lists", ["list", *LIST_COUNTS], rows)
    for name, found in lists.items():
        notes = []
        if found["distinct"] != found["published"]:
            notes.append("not the list as published")
        if found["repeated"]:
            notes.append(
                f"lines that repeat an earlier one, counted once: {_first(found['repeated_lines'])}"
            )
        if found["missing"]:
            notes.append(
                f"missing among the records and not scored: {_first(found['missing_names'])}"
            )
        if found["relabelled"]:
            notes.append(
                f"{found['relabelled']:,} of its labels differ from the records', which count"
            )
        if found["found"] != found["published"]:
            notes.append("incomplete: its score cannot stand beside other people's")
        for note in notes:
            console.print(f"{name}: {note}", markup=False)


def _first(values: Sequence[Any]) -> str:
    shown = ", ".join(map(str, values[:_NAMES_SHOWN]))
    more = len(values) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
