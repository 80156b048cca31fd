"""Draws what there is to see of a finished run, one figure at a time.

  python -m dmfer_jax.explain --figure=tsne --workdir=runs/with,runs/without --out=tsne.pdf
  python -m dmfer_jax.explain --figure=gradcam --workdir=runs/synthetic --out=gradcam.png

docs/explain.md says what each figure shows, how to read it, and what it does not show. Prints, as
its last line, the figure's numbers as one line of JSON.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from dmfer_jax import command
from dmfer_jax.errors import UserError
from dmfer_jax.explaining.faces import draw_attention, draw_gradcam
from dmfer_jax.explaining.geometry import draw_centers, draw_tsne
from dmfer_jax.explaining.scores import draw_confusion, draw_curves, draw_recall, draw_reliability
from dmfer_jax.explaining.subject import Asked
from dmfer_jax.reporting import drawing, plain_json

FIGURES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "tsne": draw_tsne,
    "gradcam": draw_gradcam,
    "attention": draw_attention,
    "reliability": draw_reliability,
    "recall": draw_recall,
    "confusion": draw_confusion,
    "curves": draw_curves,
    "centers": draw_centers,
}
"""Name -> what draws it and returns its numbers."""


def explain(figure: str, asked: Asked) -> dict[str, Any]:
    """Draws a figure.

    Args:
      figure: of `FIGURES`.
      asked: of what, and where to.

    Returns:
      `figure` and its `numbers`.

    Raises:
      UserError: something that the figure needs is not there; nothing is written then.
    """
    if asked.out.suffix not in drawing.FORMATS:
        raise UserError(
            f"--out is {asked.out}; expected a file that ends in {', '.join(drawing.FORMATS)}"
        )
    return {"figure": figure, "numbers": FIGURES[figure](asked)}


def main(argv: Sequence[str]) -> None:
    """Draws the figure that the flags name."""
    del argv
    options = flags.FLAGS
    asked = Asked(
        workdirs=[Path(workdir) for workdir in options.workdir],
        checkpoint=options.checkpoint,
        split=options.split,
        names=options.names,
        limit=options.limit,
        data_dir=options.data_dir,
        source=options.source,
        out=Path(options.out),
    )
    found = explain(options.figure, asked)
    print(f"wrote {asked.out}")
    print(plain_json.dump_line(found))


if __name__ == "__main__":
    flags.DEFINE_enum("figure", None, list(FIGURES), "What to draw.", required=True)
    flags.DEFINE_list(
        "workdir",
        None,
        "Folder of the run; for tsne and centers several, separated by commas.",
        required=True,
    )
    flags.DEFINE_string("out", None, "The picture: .png, .pdf or .svg.", required=True)
    flags.DEFINE_enum("checkpoint", "last", ("last", "best"), "Last epoch, or best on validation.")
    flags.DEFINE_string(
        "split",
        "",
        "To take images of; if not given, the validation split for tsne, gradcam and attention, "
        "and the test split for reliability, recall and confusion.",
    )
    flags.DEFINE_list(
        "names", [], "Names of the faces of gradcam, or of the one of attention, by commas."
    )
    flags.DEFINE_integer(
        "limit", 0, "Images at the most; if not given, 1,000 or 6 faces.", lower_bound=0
    )
    flags.DEFINE_string("data_dir", "", "Where built records are, if not where the run had them.")
    flags.DEFINE_string(
        "source", "", "Files as downloaded; read only where no records are built yet."
    )
    command.run(main)
