"""Discriminative multiscale facial expression recognition in JAX and Flax.

Importing this package is quick: it pulls in neither JAX nor TensorFlow.
"""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmfer_jax.predictor import Predictor

__version__ = "0.1.0"

IMPORTED_AT = time.monotonic()
"""When a command began: it imports this package before anything else."""


def load(model: str, **options: Any) -> "Predictor":
    """Returns a predictor of a trained network.

    Args:
      model: the name of a model that this package carries, or the path of a file that
        `python -m dmfer_jax.export` wrote.
      **options: of `loading.load_predictor`.

    Raises:
      UserError: there is no such model, or the file cannot be used.
    """
    from dmfer_jax import loading

    return loading.load_predictor(loading.find_model(model), **options)
