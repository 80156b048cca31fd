"""A trained network as one function of pictures, for whatever writes programs; and files of them.

The function is what `predictor.Predictor` computes: pixels are normalised, BatchNorm is folded into
the convolutions, and probabilities come out.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmfer_jax.data import preprocessing
from dmfer_jax.data.augment import normalize
from dmfer_jax.errors import UserError
from dmfer_jax.folding import fold_batch_norm
from dmfer_jax.loading import make_network
from dmfer_jax.predictor import Predictions, check_images
from dmfer_jax.weights.sealing import Manifest

OUTPUTS = Predictions._fields
"""Names of what a program gives, in this order."""


def describe(manifest: Manifest) -> Manifest:
    """Returns what a program's file says of a network: the program normalises by itself."""
    before = preprocessing.describe(manifest.image_size, manifest.channels, of_program=True)
    return replace(manifest, preprocessing=before)


def make_function(
    manifest: Manifest, variables: Mapping[str, Any]
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the function of a network, in float32.

    Args:
      manifest: of the network.
      variables: its {"params", "batch_stats"}.

    Returns:
      What takes uint8 `[n, h, w, c]`, and gives probabilities `[n, K]` and the embedding `[n, C]`.

    Raises:
      UserError: this release has no such network.
    """
    model, folded = fold_batch_norm(make_network(manifest).clone(dtype=jnp.float32), variables)

    def predict(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs: Any = model.apply(folded, normalize(images))
        return jax.nn.softmax(outputs.logits), outputs.embedding

    return predict


class Loaded:
    """A program that was read from a file, called as a `Predictor` is.

    Args:
      manifest: of the network.
      batches: takes n, gives the sizes of the calls that take n images.
      call: runs the program on uint8 `[m, h, w, c]`.

    Attributes:
      manifest: as given.
      class_names: of the K classes, in the order of the probabilities.
      image_shape: (h, w, c) of the images.
    """

    def __init__(
        self,
        manifest: Manifest,
        batches: Callable[[int], list[int]],
        call: Callable[[np.ndarray], Any],
    ) -> None:
        self.manifest, self.class_names = manifest, manifest.labels
        self.image_shape = (manifest.image_size, manifest.image_size, manifest.channels)
        self._batches, self._call = batches, call

    def __call__(self, images: np.ndarray) -> Predictions:
        """Predicts images.

        Args:
          images: uint8 `[n, h, w, c]`, n from 0 on.

        Raises:
          UserError: the images have another type or shape.
        """
        check_images(images, self.image_shape)
        n, done, parts = len(images), 0, []
        for size in self._batches(n) or [1]:
            batch = images[done : done + size]
            missing = size - len(batch)
            if missing:
                black = np.zeros((missing, *images.shape[1:]), np.uint8)
                batch = np.concatenate([batch, black])
            parts.append([np.asarray(one) for one in self._call(batch)])
            done += size
        return Predictions(*(np.concatenate(one)[:n] for one in zip(*parts, strict=True)))


@contextmanager
def reading(path: Path, written_by: str) -> Iterator[None]:
    """Makes errors of a file that is read ones of the user's, with its name.

    Args:
      path: of the file.
      written_by: the command that writes such files.

    Raises:
      UserError: for an OSError or a ValueError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise UserError(
            f"{path}: {error}. Expected a file that `{written_by}` wrote; export it again, or "
            "fetch it again from where it came from"
        ) from None


def missing_package(error: ImportError, extra: str) -> UserError:
    """Returns the error of a package that comes with an extra of this one."""
    return UserError(
        f"the package {error.name!r} is not installed; `pip install 'dmfer-jax[{extra}]'` brings it"
    )
