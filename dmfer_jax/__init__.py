"""Discriminative multiscale facial expression recognition in JAX and Flax.

Importing this package is quick: it pulls in neither JAX nor TensorFlow.
"""

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dmfer_jax.expression_model import ExpressionModel
    from dmfer_jax.faces import FaceFinder

__version__ = "0.1.0"

IMPORTED_AT = time.monotonic()
"""When a command began: it imports this package before anything else."""


def load(
    model: "str | os.PathLike[str]",
    *,
    finder: "FaceFinder | None" = None,
    buckets: "Sequence[int] | None" = None,
) -> "ExpressionModel":
    """Returns a trained network that tells the expressions of the faces in photos.

    >>> model = dmfer_jax.load("model.safetensors")  # doctest: +SKIP
    >>> faces = model("photo.jpg")  # doctest: +SKIP
    >>> faces[0].expression  # doctest: +SKIP
    'happiness'

    Args:
      model: the name of a model that this package carries, or the path of a file that
        `python -m dmfer_jax.export` wrote.
      finder: of faces; one as it comes if not given.
      buckets: how many faces are predicted together, as of `predictor.Predictor`; as it comes if
        not given. A program (.onnx, .stablehlo) needs none.

    Raises:
      UserError: there is no such model, or the file cannot be used.
    """
    from dmfer_jax.expression_model import load_model

    return load_model(os.fspath(model), finder=finder, buckets=buckets)
