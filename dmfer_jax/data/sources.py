"""Built records as splits: images, labels under the protocol chosen, and where each came from.

A split that fits in memory is decoded once into one uint8 array; a larger one decodes an image
whenever it is asked for. Both are indexed in the same way, by position in the split.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from dmfer_jax.data import protocols
from dmfer_jax.data.images import decode_image
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES


class Images(Protocol):
    """uint8 images `[h, w, c]` by position: an array `[n, h, w, c]`, or `RecordImages`."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """The image at a position, a NumPy array."""
        ...


@dataclass(frozen=True)
class Split:
    """One split of a dataset, as the protocol leaves it.

    Attributes:
      name: such as "train".
      images: n images.
      labels: int32 `[n]`, canonical expressions.
      targets: float32 `[n, K]`, what training aims at; rows sum to 1.
      rows: int64 `[n]`, position in the source.
      repeated: bool `[n]`, whether an earlier row of the source has the same pixels.
      class_names: the K names, in label order.
    """

    name: str
    images: Images
    labels: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    repeated: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class RecordImages:
    """Images that are read and decoded when they are asked for."""

    def __init__(self, records: Any, positions: np.ndarray, size: int, channels: int):
        """Serves the records at `positions` as `[size, size, channels]`."""
        self._records, self._positions = records, positions
        self._size, self._channels = size, channels

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> np.ndarray:
        record = self._records[int(self._positions[index])]
        name = f"{_text(record['name'])} (row {record['row']})"
        return decode_image(record["image"], self._size, self._channels, name)

    def decode_all(self, threads: int) -> np.ndarray:
        """Returns all images as one uint8 array `[n, size, size, channels]`."""
        images = np.empty((len(self), self._size, self._size, self._channels), np.uint8)

        def fill(index: int) -> None:
            images[index] = self[index]

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(len(self)), chunksize=256))
        return images


def load_split(dataset_dir: Path, name: str, options: ConfigDict, *, train: bool) -> Split:
    """Reads one split of a built dataset.

    Args:
      dataset_dir: the version folder that the builder made.
      name: of the split.
      options: `config.data`.
      train: whether labels follow `train_protocol` rather than `protocol`.

    Raises:
      UserError: the build has no such split, or the protocol keeps none of its images.
    """
    records = open_records(dataset_dir, name)
    fields = read_fields(records)
    protocol = (train and options.train_protocol) or options.protocol
    keep, labels, targets = _labels(fields, protocol)
    positions = np.flatnonzero(keep)
    if options.limit:
        positions = positions[: options.limit]
    if not len(positions):
        raise UserError(f"split '{name}' of {dataset_dir} has no image under '{protocol}'")

    encoded = RecordImages(records, positions, options.image_size, options.channels)
    size = len(positions) * options.image_size**2 * options.channels  # bytes
    fits = size <= options.memory_gib * 2**30
    images: Images = encoded.decode_all(options.workers) if fits else encoded
    rows = fields["row"]
    return Split(
        name=name,
        images=images,
        labels=labels[positions].astype(np.int32),
        targets=targets[positions].astype(np.float32),
        rows=rows[positions],
        repeated=(fields.get("first_row", rows) < rows)[positions],
        class_names=EXPRESSION_NAMES,
    )


def split_names(dataset_dir: Path) -> list[str]:
    """Returns the names of the splits that a build has."""
    import tensorflow_datasets as tfds

    return list(tfds.builder_from_directory(dataset_dir).info.splits)


def open_records(dataset_dir: Path, name: str) -> Any:
    """Returns the records of one split by position, their images as encoded bytes.

    Raises:
      UserError: the build has no such split.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(dataset_dir)
    if name not in builder.info.splits:
        raise UserError(
            f"{dataset_dir} has no split '{name}'; it has {', '.join(builder.info.splits)}"
        )
    # TFDS would decode otherwise with or without cv2 installed; see data/images.py.
    return builder.as_data_source(split=name, decoders={"image": tfds.decode.SkipDecoding()})


def read_fields(records: Any) -> dict[str, np.ndarray]:
    """Returns everything but the images and names, as arrays over all records."""
    fields: dict[str, list[Any]] = {}
    for record in records:
        for key in record.keys() & {"label", "row", "first_row", "votes_new", "votes_label_csv"}:
            fields.setdefault(key, []).append(record[key])
    return {key: np.asarray(values) for key, values in fields.items()}


def _labels(
    fields: dict[str, np.ndarray], protocol: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which records count, their labels, and their target distributions."""
    if "votes_new" in fields:
        targets = protocols.apply_protocol(protocol, fields["votes_new"], fields["votes_label_csv"])
        if protocol == "votes":
            return targets.keep, targets.label, targets.distribution
        keep, labels = targets.keep, targets.label
    else:
        labels = fields["label"]
        keep = np.ones(len(labels), bool)
    return keep, labels, np.eye(len(EXPRESSION_NAMES), dtype=np.float32)[labels]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
