"""The card of a model: what it was trained on, how good it is, and what it must not be used for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from dmfer_jax.errors import UserError
from dmfer_jax.weights.sealing import trained_on

_MOST_CHARACTERS = 2**20


def read_card(path: Path, name: str, manifest: Mapping[str, Any]) -> str:
    """Returns the card of a model in Markdown: the file beside it, else what its manifest says.

    Args:
      path: of the model; its card has the same name and ends in `.md`.
      name: of the model.
      manifest: of the model, as plain JSON values.

    Raises:
      UserError: the card beside it cannot be read.
    """
    beside = path.with_suffix(".md")
    if not beside.is_file():
        return _write_card(name, manifest)
    try:
        return beside.read_text(encoding="utf-8")[:_MOST_CHARACTERS]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{beside}, the card of the model, cannot be read: {error}") from None


def render_card(card: str) -> str:
    """Returns Markdown as HTML for the page; HTML and pictures in it stand there as text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(card)


_SCORES = {
    "accuracy": ("Accuracy", "percent"),
    "mean_class_accuracy": ("Mean of the classes' accuracies", "percent"),
    "macro_f1": ("Macro F1", "percent"),
    "ece": ("Calibration error (ECE)", "percent"),
    "loss": ("Cross-entropy", "number"),
}


def _write_card(name: str, manifest: Mapping[str, Any]) -> str:
    training, scores = manifest["training"], manifest["scores"] or {}
    rows = [
        (title, f"{value:.1%}" if kind == "percent" else f"{value:.3f}")
        for key, (title, kind) in _SCORES.items()
        if isinstance(value := scores.get(key), int | float)
    ]
    colour = "grey" if manifest["channels"] == 1 else "colour"
    split = _plain(scores.get("split", ""))
    known = split in trained_on(training).get(str(training.get("dataset")), ())
    seen = ", which it was trained on, too" if known else ""
    parts = [
        f"# {_plain(name)}",
        "Nobody has written a card for this model. This one is made of what its file says.",
        "## What it tells apart",
        ", ".join(map(_plain, manifest["labels"])),
        "## What it was trained on",
        _table(
            ("What", "Value"),
            [(key, value) for key, value in training.items() if value is not None],
        ),
        "## How good it is",
        f"On the images of its split *{split}*{seen}:" if rows else "",
        _table(("Measure", "Value"), rows) if rows else "The file has no scores.",
        "How often it is right in other photos, and of other people, is not known.",
        "## What it sees",
        f"Faces in {colour}, {manifest['image_size']} x {manifest['image_size']} pixels. "
        + _plain(manifest["preprocessing"].get("in_words", "")),
        "## Licence",
        _plain(manifest["licence"]) or "The file names none. Ask whoever gave it to you.",
        "## Notes" if manifest["notes"] else "",
        _plain(manifest["notes"]),
        "## What it must not be used for",
        "To decide about people, to watch them, or on people who have not agreed to it. A label "
        "says which word people most likely would choose for the picture; it does not say what a "
        "person feels.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: tuple[str, str], rows: list[tuple[str, Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|---|"]
    for key, value in rows:
        said = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        lines.append(f"| {_plain(key.replace('_', ' '))} | {_plain(said)} |")
    return "\n".join(lines)


def _plain(text: Any) -> str:
    """Text of a file, on one line, with what Markdown would take for its own escaped."""
    line = " ".join(str(text)[:2000].split())
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&.-])", r"\\\1", line)
