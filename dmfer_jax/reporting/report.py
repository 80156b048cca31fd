"""What a run or an evaluation found: report.json, the same as tables, and as one line of JSON.

A report is a plain dict:

    dataset, protocol, seed; train_protocol where the training labels follow another protocol
    system, flops of a system in PyTorch: its name, and the operations of one image's forward pass
    model         of the network in a file, in place of seed and config: file, sha256, and training,
                  what the file says of it
    seen          the scored splits that such a network was trained on; absent where there are none
    init_from     of a run that began with weights: the file, what was taken of it, and trained_on,
                  {dataset: its splits} that it says it was trained on
    differs       where the records are not as published, sentences; where they are not
    train_splits  splits trained on, where it is not "train" alone
    limit         examples of each split used, at the most; where it is not all
    drop_classes  names of the classes left out; where there are any
    sampling, class_weights   as in the configuration; where examples or losses were balanced
    config        the configuration, as a dict
    environment   what it ran on, of `environment.describe_environment`
    scored_in     the same of a finished run whose command was given again elsewhere, or later
    not_scored    of a run: test splits that the build does not have
    train         epochs, steps, examples, seconds, cpu_seconds (of all cores), images_per_second,
                  and input_wait_share, the share of its time that the loop waited for input;
                  absent for an evaluation
    checkpoints   {"last": ..., "best": ...}, or the one that was evaluated. Each has epoch, step,
                  parameters, splits {split: summary}, centers (`metrics.center_report`, or None),
                  and "best" may say in `chosen_on` which split chose it ("valid" unless it says
                  so);
                  stress {split: `stress.score_stress`'s dict} where it was put to that test
    lists_not_scored  {list: why none of its images was found}; absent where there is none

A summary is what `metrics.summarize` returns. It may carry `deduplicated`, a second summary of the
same split without the images whose pixels stand in an earlier row too; `groups`, the accuracy of
groups of its images (`scoring.accuracy_by_group`); and `list`, of how the images of an occlusion
or pose list were found (`subset_tables.LIST_COUNTS`, `repeated_lines` and `missing_names`).
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dmfer_jax import files
from dmfer_jax.errors import UserError
from dmfer_jax.reporting import plain_json
from dmfer_jax.reporting.console import duration, hundredths, number, percent, print_table
from dmfer_jax.reporting.subset_tables import LIST_COUNTS, print_groups, print_lists

HEADLINES = ("accuracy", "mean_class_accuracy", "macro_f1", "ece", "loss")
"""The numbers of a summary that stand in tables and in the line of JSON."""


def write_report(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Writes a report as JSON, keys in the order given; the file is whole or not there.

    Args:
      path: where to; an older report is replaced.
      report: as described above. NaN and infinity become null.
    """
    text = json.dumps(plain_json.to_plain(report), indent=2, ensure_ascii=False, allow_nan=False)
    files.write_text(path, _join_number_lists(text) + "\n")


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `write_report` wrote.

    Raises:
      UserError: there is no such file, or it is no report.
    """
    path = Path(path)
    try:
        report = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. A report is written when training ends; expected the path of "
            f"a report.json."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: found text that is not JSON ({error}), expected a report."
        ) from None
    if not isinstance(report, dict) or "checkpoints" not in report:
        raise UserError(f"{path}: found no `checkpoints`, expected a report of this project.")
    return report


def json_line(report: Mapping[str, Any]) -> str:
    """Returns the headline numbers as one line of JSON, for programs that read the output.

    Returns:
      dataset, protocol, seed (and what else decides over the numbers, where used) and, per
      checkpoint, epoch, step, mean_center_cosine and per split the number of examples, `HEADLINES`
      and deduplicated_accuracy (None where it was not computed), the `LIST_COUNTS` of a list, and
      stress_mean_accuracy where it was put to stress.
    """
    checkpoints = {}
    for name, checkpoint in report["checkpoints"].items():
        centers = checkpoint.get("centers") or {}
        checkpoints[name] = {
            "epoch": checkpoint["epoch"],
            "step": checkpoint["step"],
            "mean_center_cosine": centers.get("mean_cosine"),
            "splits": {
                split: {
                    "examples": summary["examples"],
                    **{key: summary[key] for key in HEADLINES},
                    "deduplicated_accuracy": _deduplicated(summary, "accuracy"),
                    **_list_counts(summary),
                    **_stress_mean(checkpoint.get("stress", {}).get(split)),
                }
                for split, summary in checkpoint["splits"].items()
            },
        }
    head = {key: report.get(key) for key in ("dataset", "protocol", "seed")}
    head |= {
        key: report[key]
        for key in ("model", "seen", "differs", "train_splits", "limit", "drop_classes", *_IN_WORDS)
        if report.get(key)
    }
    tail = {key: report[key] for key in ("lists_not_scored",) if key in report}
    return plain_json.dump_line({**head, "checkpoints": checkpoints, **tail})


def main_split(splits: Sequence[str] | Mapping[str, Any]) -> str:
    """Returns the split whose details are shown: the test split, else valid, else the first."""
    names = list(splits)
    return next((name for name in ("test", "valid") if name in names), names[0])


def titled_checkpoints(report: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Returns what to show: {name: (title, checkpoint)}.

    A title says which epoch it is and how it was chosen, since that decides what its numbers are
    worth. When the last epoch is also the one chosen, it is shown once.
    """
    checkpoints = report["checkpoints"]
    last = checkpoints.get("last", {"step": None})
    shown = {}
    for name, checkpoint in checkpoints.items():
        chosen_on = checkpoint.get("chosen_on", "valid")
        twice = "best" in checkpoints and checkpoints["best"]["step"] == last["step"]
        if name == "best" and twice:
            continue
        how = {"last": "Last epoch", "best": f"Epoch chosen on {chosen_on}"}
        title = how.get(name, f"Checkpoint {name}")
        if twice:
            title += f", also the one chosen on {checkpoints['best'].get('chosen_on', 'valid')}"
        # Not a whole number when a run was stopped within an epoch.
        at = f"epoch {round(checkpoint['epoch'], 2):g}, step {checkpoint['step']}"
        shown[name] = (f"{title} ({at})", checkpoint)
    return shown


def print_report(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a report as tables that fit 80 columns.

    Args:
      report: as described above.
      console: where to; standard output unless told.
    """
    console = console or Console(highlight=False)

    def say(text: str = "") -> None:
        console.print(text, markup=False)

    for line in _heading(report):
        say(line)
    shown = [one for one in titled_checkpoints(report).values() if one[1]["splits"]]
    if not shown:
        say("Nothing was scored: the validation split was trained on, and no test split is named.")
        return
    for title, checkpoint in shown:
        _print_splits(console, title, checkpoint["splits"])
        if line := center_line(checkpoint.get("centers")):
            say(line)
    title, checkpoint = shown[0]
    print_lists(console, checkpoint["splits"])
    for reason in report.get("lists_not_scored", {}).values():
        say(reason)
    split = main_split(checkpoint["splits"])
    summary = checkpoint["splits"][split]
    _print_classes(console, f"Per class on {split}: {title}", summary)
    for attribute, groups in summary.get("groups", {}).items():
        print_groups(console, f"Accuracy by {attribute.replace('_', ' ')} on {split}", groups)
    say()
    say("accuracy, recall, precision: in percent")
    say("mean-class, macro-F1: means of recall, F1 over the classes that the split has")
    if _has_deduplicated(report):
        say("dedup.: accuracy without the images whose pixels stand in an earlier row too")


def center_line(centers: Mapping[str, Any] | None) -> str:
    """Returns the sentence about the centers' cosines; empty where there are no centers."""
    if not centers or centers["mean_cosine"] is None:
        return ""
    return (
        f"cosine between centers: mean {centers['mean_cosine']:.3f}, "
        f"max {centers['max_cosine']:.3f}, ideal {centers['ideal_cosine']:.3f}"
    )


def _heading(report: Mapping[str, Any]) -> list[str]:
    system = report.get("system") or report.get("model", {}).get("file")
    first = [f"{system} on {report['dataset']}" if system else report["dataset"]]
    if report.get("protocol"):
        first.append(f"protocol {report['protocol']}")
        if report.get("train_protocol", report["protocol"]) != report["protocol"]:
            first.append(f"trained on protocol {report['train_protocol']}")
    if report.get("drop_classes"):
        first.append(f"without {' and '.join(report['drop_classes'])}")
    if report.get("limit"):
        first.append(f"the first {report['limit']:,} examples of each split")
    if report.get("train_splits"):
        first.append(f"trained on {' and '.join(report['train_splits'])}")
    first += [_IN_WORDS[key][report[key]] for key in _IN_WORDS if report.get(key)]
    if report.get("seed") is not None:
        first.append(f"seed {report['seed']}")
    lines = [", ".join(first)]
    if seen := report.get("seen"):
        lines.append(f"the model was trained on {' and '.join(seen)}: these are no new faces")
    scored = {name for entry in report["checkpoints"].values() for name in entry["splits"]}
    before = report.get("init_from", {}).get("trained_on", {})
    if seen := sorted(scored & {*before.get(report["dataset"], ())}):
        lines.append(f"it began with weights of {' and '.join(seen)}: these are no new faces")
    if differs := report.get("differs"):
        lines.append(f"records differ from what is published: {'; '.join(differs)}")
    if train := report.get("train"):
        lines.append(
            f"trained {train['epochs']} epochs ({train['steps']:,} steps) in "
            f"{duration(train['seconds'])} at {number(train['images_per_second'], 0)} images/s"
            f"{_input_wait(train.get('input_wait_share'))}"
        )
    return lines


def _input_wait(share: float | None) -> str:
    return "" if share is None else f", waiting for input {percent(share, 1)} of the time"


_IN_WORDS = {
    "sampling": {"balanced": "class-balanced sampling", "square_root": "square-root sampling"},
    "class_weights": {"balanced": "balanced loss weights"},
}


def _print_splits(console: Console, title: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
    deduplicated = any("deduplicated" in summary for summary in splits.values())
    header = ["split", "images", "accuracy", "mean-class", "macro-F1", "ECE", "loss"]
    if deduplicated:
        header.insert(3, "dedup.")
    rows = []
    for split, summary in splits.items():
        accuracy, mean_class, f1, ece, loss = (summary[key] for key in HEADLINES)
        row = [split, f"{summary['examples']:,}", hundredths(accuracy), hundredths(mean_class)]
        row += [number(f1), number(ece), number(loss)]
        if deduplicated:
            row.insert(3, hundredths(_deduplicated(summary, "accuracy")))
        rows.append(row)
    print_table(console, title, header, rows)


def _print_classes(console: Console, title: str, summary: Mapping[str, Any]) -> None:
    rows = []
    for index, (name, row) in enumerate(summary["per_class"].items()):
        rows.append(
            [
                name,
                f"{row['examples']:,}",
                hundredths(row["recall"]),
                hundredths(row["precision"]),
                number(row["f1"]),
                _most_often_taken_for(summary, index),
            ]
        )
    header = ["class", "images", "recall", "precision", "F1", "most often taken for"]
    print_table(console, title, header, rows)


def _stress_mean(found: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"stress_mean_accuracy": found["mean_accuracy"]} if found else {}


def _list_counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = summary.get("list")
    return {"list": {key: found[key] for key in LIST_COUNTS}} if found else {}


def _most_often_taken_for(summary: Mapping[str, Any], index: int) -> str:
    row = summary["confusion"][index]
    wrong = [0 if column == index else count for column, count in enumerate(row)]
    most = max(wrong)
    if not most:
        return "-"
    return f"{summary['labels'][wrong.index(most)]} {100 * most / sum(row):.1f} %"


def _deduplicated(summary: Mapping[str, Any], key: str) -> Any:
    return (summary.get("deduplicated") or {}).get(key)


def _has_deduplicated(report: Mapping[str, Any]) -> bool:
    checkpoints = report["checkpoints"].values()
    return any("deduplicated" in s for c in checkpoints for s in c["splits"].values())


_NUMBER = r"(?:-?\d[\d.eE+-]*|null)"
# Begins with a newline, which no JSON string can hold: only lists are found, never text.
_NUMBER_LIST = re.compile(rf"\[\n\s*({_NUMBER}(?:,\n\s*{_NUMBER})*)\n\s*\]")


def _join_number_lists(text: str) -> str:
    """Puts lists of plain numbers on one line: a confusion matrix reads as a matrix."""
    return _NUMBER_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
