"""Draws what there is to see of a finished run, one figure at a time.

  python -m dmfer_jax.explain --figure=tsne --workdir=runs/with,runs/without --out=tsne.pdf
  python -m dmfer_jax.explain --figure=gradcam --workdir=runs/synthetic --out=gradcam.png

docs/explain.md says what each figure shows, how to read it, and what it does not show. Prints, as
its last line, the figure's numbers as one line of JSON.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from dmfer_jax import command
from dmfer_jax.errors import UserError
from dmfer_jax.explaining.faces import draw_attention, draw_gradcam
from dmfer_jax.explaining.geometry import draw_centers, draw_tsne
from dmfer_jax.explaining.scores import draw_confusion, draw_curves, draw_recall, draw_reliability
from dmfer_jax.explaining.subject import Asked
from dmfer_jax.reporting import drawing, plain_json


class Figure(NamedTuple):
    """A figure that can be drawn.

    Attributes:
      draw: draws it and returns its numbers.
      reads: of the flags, beside `--workdir` and `--out`, those that make a difference to it.
    """

    draw: Callable[[Asked], dict[str, Any]]
    reads: tuple[str, ...] = ()


_IMAGES = ("checkpoint", "split", "data_dir", "source")
FIGURES = {
    "tsne": Figure(draw_tsne, (*_IMAGES, "limit")),
    "gradcam": Figure(draw_gradcam, (*_IMAGES, "names", "limit")),
    "attention": Figure(draw_attention, (*_IMAGES, "names", "limit")),
    "reliability": Figure(draw_reliability, _IMAGES),
    "recall": Figure(draw_recall, ("checkpoint", "split")),
    "confusion": Figure(draw_confusion, ("checkpoint", "split")),
    "curves": Figure(draw_curves),
    "centers": Figure(draw_centers, ("checkpoint",)),
}


def explain(figure: str, asked: Asked) -> dict[str, Any]:
    """Draws a figure.

    Args:
      figure: of `FIGURES`.
      asked: of what, and where to.

    Returns:
      `figure` and its `numbers`.

    Raises:
      UserError: something that the figure needs is not there, or what is asked makes no difference
        to it; nothing is written then.
    """
    reads = FIGURES[figure].reads
    for name, value in asked._asdict().items():
        if name not in (*reads, "workdirs", "out") and value and value != "last":
            flags_read = ", ".join(f"--{flag}" for flag in ("workdir", "out", *reads))
            raise UserError(f"--{name} makes no difference to {figure}, which reads {flags_read}")
    if asked.out.suffix not in drawing.FORMATS:
        raise UserError(
            f"--out is {asked.out}; expected a file that ends in {', '.join(drawing.FORMATS)}"
        )
    return {"figure": figure, "numbers": FIGURES[figure].draw(asked)}


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
