"""Built records as splits: images, labels under the protocol chosen, and where each came from.

A split that fits in memory is decoded once into one uint8 array, which is kept on disk for the runs
to come; a larger one decodes an image whenever it is asked for. Both are indexed in the same way,
by position in the split.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from dmfer_jax.data import builds, protocols
from dmfer_jax.data.decoded import Decoded
from dmfer_jax.data.images import decode_image
from dmfer_jax.errors import UserError


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
      labels: int32 `[n]`, positions in `class_names`.
      targets: float32 `[n, K]`, what training aims at; rows sum to 1.
      rows: int64 `[n]`, position in the source.
      repeated: bool `[n]`, whether an earlier row of the source has the same pixels.
      names: str `[n]`, what the source calls each image.
      groups: {attribute: str `[n]`}, such as {"gender": ["female", "unknown", ...]}, by which
        accuracy can be reported; "unknown" where the source does not say.
      class_names: the K names, in label order.
    """

    name: str
    images: Images
    labels: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    repeated: np.ndarray
    names: np.ndarray
    groups: dict[str, np.ndarray]
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
      name: of the split, or of several joined by "+".
      options: `config.data`.
      train: whether labels follow `train_protocol` rather than `protocol`.

    Raises:
      UserError: the build has no such split or class, or the protocol keeps none of its images.
    """
    given: Any = options  # pyright reads a union of all types from a ConfigDict
    records = open_records(dataset_dir, name)
    parts = [records.dataset_info.splits[part] for part in name.split("+")]
    shards = [Path(path) for part in parts for path in part.filepaths]
    decoded = Decoded(dataset_dir, name, shards, len(records))
    fields, built = decoded.fields(lambda: read_fields(records)), class_labels(records)
    classes = built["label"]
    protocol = (train and given.train_protocol) or given.protocol
    keep, labels, targets = _labels(fields, protocol, len(classes))
    columns = _kept_columns(classes, given.drop_classes)
    if len(columns) < len(classes):
        keep, labels, targets = _without_columns(keep, targets, columns)
    positions = np.flatnonzero(keep)
    if given.limit:
        positions = positions[: given.limit]
    if not len(positions):
        of_votes = f" under '{protocol}'" if "votes_new" in fields else ""
        dropped = f" without {', '.join(given.drop_classes)}" if given.drop_classes else ""
        raise UserError(f"split '{name}' of {dataset_dir} has no image{of_votes}{dropped}")

    rows = fields["row"]
    return Split(
        name=name,
        images=_load_images(records, decoded, positions, given),
        labels=labels[positions].astype(np.int32),
        targets=targets[positions].astype(np.float32),
        rows=rows[positions],
        repeated=(fields.get("first_row", rows) < rows)[positions],
        names=fields["name"][positions],
        groups={
            # The -1 of what is not known picks the last one.
            attribute: np.array([*values, "unknown"])[fields[attribute][positions]]
            for attribute, values in built.items()
            if attribute != "label"
        },
        class_names=tuple(classes[column] for column in columns),
    )


def split_names(dataset_dir: Path) -> list[str]:
    """Returns the names of the splits that a build has."""
    return list(builds.open_build(dataset_dir).info.splits)


def open_records(dataset_dir: Path, name: str) -> Any:
    """Returns the records of a split by position, their images as encoded bytes.

    Args:
      dataset_dir: the version folder that the builder made.
      name: of the split, or of several joined by "+".

    Raises:
      UserError: the build has no such split, or is damaged.
    """
    import tensorflow_datasets as tfds

    builder: Any = builds.open_build(dataset_dir)
    for part in name.split("+"):
        if part not in builder.info.splits:
            raise UserError(
                f"{dataset_dir} has no split '{part}'; it has {', '.join(builder.info.splits)}"
            )
    # TFDS would decode otherwise with or without cv2 installed; see data/images.py.
    return builder.as_data_source(split=name, decoders={"image": tfds.decode.SkipDecoding()})


def class_labels(records: Any) -> dict[str, tuple[str, ...]]:
    """Returns the names of the values of each field that is one of several: {field: names}.

    "label" is the class; any other is an attribute of the person or the image, such as "gender".
    """
    import tensorflow_datasets as tfds

    return {
        field: tuple(feature.names)
        for field, feature in records.dataset_info.features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    }


def read_fields(records: Any) -> dict[str, np.ndarray]:
    """Returns what decides over the records and names them, as arrays `[n, ...]` over all of them.

    Args:
      records: of `open_records`.

    Returns:
      `label`, `name`, `row`; `first_row`, the votes and the fields of `class_labels` where the
      dataset has them.

    Raises:
      UserError: the records are damaged.
    """
    fields = {key: [] for key in _FIELDS & records.dataset_info.features.keys()}
    fields |= {key: [] for key in class_labels(records)}
    with builds.readable_build(Path(records.dataset_info.data_dir)):
        for record in records:
            if record["label"] is None:  # what array_record gives for some files cut short
                raise ValueError("a record is empty")
            for key, values in fields.items():
                values.append(_text(record[key]) if key == "name" else record[key])
    return {key: np.asarray(values) for key, values in fields.items()}


def _load_images(records: Any, decoded: Decoded, positions: np.ndarray, options: Any) -> Images:
    """The images at some positions of the records, in memory if they fit."""
    size, channels, threads = options.image_size, options.channels, options.workers

    def fits(number: int) -> bool:
        return number * size**2 * channels <= options.memory_gib * 2**30

    encoded = RecordImages(records, positions, size, channels)
    if not fits(len(positions)):
        return encoded
    # All are kept, not those of the protocol alone, so that they serve every protocol.
    everything = RecordImages(records, np.arange(len(records)), size, channels)
    keeps = fits(len(records)) and not options.limit
    try:
        images = decoded.images(
            size, channels, (lambda: everything.decode_all(threads)) if keeps else None
        )
    except UserError:  # of an image that is damaged, but may not be asked for
        images = None
    if images is None:
        return encoded.decode_all(threads)
    return images if len(positions) == len(images) else images[positions]


_FIELDS = {"label", "name", "row", "first_row", "votes_new", "votes_label_csv"}


def _labels(
    fields: dict[str, np.ndarray], protocol: str, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which records count, their labels, and their target distributions."""
    if "votes_new" in fields:
        targets = protocols.apply_protocol(protocol, fields["votes_new"], fields["votes_label_csv"])
        if protocol == "votes":
            return targets.keep, targets.label, targets.distribution
        keep, labels = targets.keep, targets.label
    else:
        labels = fields["label"]
        keep = labels >= 0
    return keep, labels, np.eye(num_classes, dtype=np.float32)[labels]


def _kept_columns(classes: tuple[str, ...], dropped: Sequence[str]) -> list[int]:
    """Positions of the classes that are not left out."""
    unknown = [name for name in dropped if name not in classes]
    if unknown:
        raise UserError(
            f"config.data.drop_classes names {unknown[0]!r}, which is no class of this dataset; "
            f"its classes are {', '.join(classes)}. Several are given as \"('a', 'b')\"."
        )
    columns = [column for column, name in enumerate(classes) if name not in dropped]
    if len(columns) < 2:
        raise UserError(
            f"config.data.drop_classes leaves {len(columns)} of the classes "
            f"{', '.join(classes)}; at least two must remain"
        )
    return columns


def _without_columns(
    keep: np.ndarray, targets: np.ndarray, columns: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_labels` of the classes in `columns` alone; those with no share in them do not count."""
    shares = targets[:, columns]
    total = shares.sum(axis=1, keepdims=True)
    shares = shares / np.where(total > 0, total, 1)
    return keep & (total[:, 0] > 0), shares.argmax(axis=1), shares


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
