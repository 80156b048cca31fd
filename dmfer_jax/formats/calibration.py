"""Images to take the ranges of int8 activations of: aligned faces, as the network will see them."""

from pathlib import Path
from typing import Any

import numpy as np

from dmfer_jax import run_folder
from dmfer_jax.building import ensure_built
from dmfer_jax.data import sources
from dmfer_jax.data.images import open_image, resized
from dmfer_jax.errors import UserError
from dmfer_jax.photo_files import list_photos
from dmfer_jax.weights.sealing import Manifest

MOST_IMAGES = 256
"""Of a source; they are spread over it evenly."""


def images_of_folder(folder: Path, manifest: Manifest) -> np.ndarray:
    """Returns images of the files in a folder and in folders below it.

    Args:
      folder: of pictures, each a crop of one face, aligned as the network's training images were.
      manifest: of the network, for the size and the channels.

    Returns:
      uint8 `[m, h, w, c]`, m up to `MOST_IMAGES`.

    Raises:
      UserError: there is no such folder, or none of its files is named as a picture, or one cannot
        be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; expected one of aligned faces")
    files = list_photos([str(folder)]).photos
    if not files:
        raise UserError(f"{folder} holds no picture; expected aligned faces, such as 1.png")
    chosen = [_read(files[at], manifest) for at in _spread(len(files))]
    return np.stack(chosen).reshape(-1, manifest.image_size, manifest.image_size, manifest.channels)


def _read(path: Path, manifest: Manifest) -> np.ndarray:
    try:
        return resized(open_image(path.read_bytes(), manifest.channels), manifest.image_size)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); expected an aligned face. Replace the file, or take "
            "it out of the folder"
        ) from error


def images_of_run(workdir: Path) -> np.ndarray:
    """Returns images of a run's validation split, uint8 `[m, h, w, c]`.

    Raises:
      UserError: there is no such run, or its records are not there and cannot be built.
    """
    data: Any = run_folder.load_config(workdir).data
    folder = ensure_built(data.dataset, data.source, data.data_dir)
    split = sources.load_split(folder, data.valid_split, data, train=False)
    return np.asarray(split.images[_spread(len(split))])


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(int))
