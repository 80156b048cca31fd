"""Built records as splits: images, labels under the protocol chosen, and where each came from.

A split that fits in memory is decoded once into one uint8 array, which is kept on disk for the runs
to come and mapped from there; where a protocol leaves images out, positions lead to the others. A
larger split decodes an image whenever it is asked for. All are indexed in the same way, by position
in the split.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from dmfer_jax.data import protocols
from dmfer_jax.data.decoded import Decoded
from dmfer_jax.data.decoding import Decoders, Encoded
from dmfer_jax.data.images import decode_image
from dmfer_jax.data.records import Records, class_labels, open_records, read_fields
from dmfer_jax.errors import UserError


class Images(Protocol):
    """uint8 images by position: an array `[n, h, w, c]`, `ChosenImages` or `RecordImages`."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """The image at a position, a NumPy array; or those at an array of positions."""
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

    @property
    def identifiers(self) -> np.ndarray:
        """What tells each image from the others of its split: str `[n]`.

        Its name; "row 7", by its row in the source, where that has no name for it; and both where
        two images have one name.
        """
        _, position, count = np.unique(self.names, return_inverse=True, return_counts=True)
        rows = [f"row {row}" for row in self.rows.tolist()]
        named = zip(self.names.tolist(), rows, (count[position] > 1).tolist(), strict=True)
        return np.array(
            [f"{name} ({row})" if name and twice else name or row for name, row, twice in named]
        )


class ChosenImages:
    """Some images of an array that may lie on the disk; they are copied when they are asked for.

    Args:
      images: uint8 `[m, h, w, c]`.
      positions: int `[n]`, which of them.
    """

    def __init__(self, images: np.ndarray, positions: np.ndarray):
        self._images, self._positions = images, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._images[self._positions[index]]

    @property
    def nbytes(self) -> int:
        """What all of them take, in bytes."""
        return len(self) * self._images[0].nbytes


class RecordImages:
    """Images that are read and decoded when they are asked for.

    Args:
      records: of `open_records`.
      positions: int `[n]`, which of the records.
      size: height and width, in pixels.
      channels: 1 or 3.
      workers: processes that decode.
    """

    def __init__(
        self, records: Records, positions: np.ndarray, size: int, channels: int, workers: int
    ):
        self._records, self._positions = records, positions
        self._size, self._channels, self._workers = size, channels, workers
        self._decoders = Decoders(workers, size, channels)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen = self._positions[index]
        if chosen.ndim == 0:
            encoded = self._read(int(chosen))
            return decode_image(encoded.file, self._size, self._channels, encoded.name)
        return self._decoders.decode([self._read(int(position)) for position in chosen])

    def decode_all(self) -> np.ndarray:
        """Returns all images as one array `[n, size, size, channels]`."""
        images = np.empty((len(self), self._size, self._size, self._channels), np.uint8)
        self.decode_into(images)
        return images

    def decode_into(self, images: np.ndarray) -> None:
        """Writes all images into an array `[n, size, size, channels]`."""
        if len(self) <= _FEW:
            for index in range(len(self)):
                images[index] = self[index]
            return

        def fill(start: int) -> None:
            images[start : start + _PART] = self[start : start + _PART]

        # One more thread, which has read a part's records by the time a process is free for them.
        with ThreadPoolExecutor(self._workers + 1) as pool:
            list(pool.map(fill, range(0, len(self), _PART)))

    def _read(self, position: int) -> Encoded:
        record = self._records.read(position, ("image", "name", "row"))
        return Encoded(record["image"], f"{record['name'].decode()} (row {record['row']})")


_FEW = 256
"""Images that are decoded before a process that could do it would have started."""

_PART = 64
"""Images that a process decodes at a time."""


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
    sizes = [part.num_examples for part in parts]
    keep, labels, targets = _labels(fields, sizes, protocol, given.vote_power, len(classes))
    columns = _kept_columns(classes, given.drop_classes)
    if len(columns) < len(classes):
        keep, labels, targets = _without_columns(keep, targets, columns)
    positions = np.flatnonzero(keep)
    if given.limit:
        of = np.repeat(np.arange(len(sizes)), sizes)[positions]
        firsts = [positions[of == part][: given.limit] for part in range(len(sizes))]
        positions = np.concatenate(firsts)
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


def with_classes(split: Split, class_names: Sequence[str]) -> Split:
    """Returns a split whose labels are positions among other, perhaps more classes.

    Args:
      split: of any records.
      class_names: each of the split's, in any order, and others.

    Raises:
      UserError: a class of the split is none of them.
    """
    wanted = tuple(class_names)
    if unknown := [name for name in split.class_names if name not in wanted]:
        raise UserError(
            f"the records tell apart {', '.join(split.class_names)}, and the model "
            f"{', '.join(wanted)}: it does not know {', '.join(unknown)}. Leave what it does not "
            f"know out, with --drop_classes={','.join(unknown)}"
        )
    columns = [wanted.index(name) for name in split.class_names]
    targets = np.zeros((len(split), len(wanted)), np.float32)
    targets[:, columns] = split.targets
    labels = np.array(columns, np.int32)[split.labels]
    return replace(split, labels=labels, targets=targets, class_names=wanted)


def _load_images(records: Records, decoded: Decoded, positions: np.ndarray, options: Any) -> Images:
    """The images at some positions of the records, in memory if they fit."""
    size, channels, workers = options.image_size, options.channels, options.workers

    def fits(number: int) -> bool:
        return number * size**2 * channels <= options.memory_gib * 2**30

    encoded = RecordImages(records, positions, size, channels, workers)
    if not fits(len(positions)):
        return encoded
    # All are kept, not those of the protocol alone, so that they serve every protocol.
    everything = RecordImages(records, np.arange(len(records)), size, channels, workers)
    keeps = fits(len(records)) and not options.limit
    try:
        images = decoded.images(size, channels, everything.decode_into if keeps else None)
    except UserError:  # of an image that is damaged, but may not be asked for
        images = None
    if images is None:
        return encoded.decode_all()
    return images if len(positions) == len(images) else ChosenImages(images, positions)


def _labels(
    fields: dict[str, np.ndarray],
    sizes: list[int],
    protocol: str,
    vote_power: float,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which records count, their labels, and their target distributions."""
    if "votes_new" in fields:
        # Split by split: one of them may lack what the protocol counts.
        new, label_csv = (
            np.split(fields[name], np.cumsum(sizes)[:-1])
            for name in ("votes_new", "votes_label_csv")
        )
        of_splits = (
            protocols.apply_protocol(protocol, *votes, vote_power=vote_power)
            for votes in zip(new, label_csv, strict=True)
        )
        targets = protocols.Targets(*map(np.concatenate, zip(*of_splits, strict=True)))
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
