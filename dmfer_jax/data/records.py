"""Built records by position, each a dict of its features, its image as it lies in a file."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dmfer_jax.data import builds
from dmfer_jax.errors import UserError


class Records:
    """The records of a split.

    They are flat: numbers, arrays of them, texts, and images that are encoded already. TFDS's own
    reading of them goes through several layers, which take four times as long as what is read.

    Args:
      serialized: `tf.train.Example` messages by position.
      dataset_info: TFDS's description of the build.

    Attributes:
      dataset_info: as given.
    """

    def __init__(self, serialized: Any, dataset_info: Any):
        from tensorflow_datasets.proto import tf_example_pb2

        self.dataset_info = dataset_info
        self._serialized = serialized
        self._parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
        self._specs: dict[str, Any] = dict(dataset_info.features.get_serialized_info())

    def __len__(self) -> int:
        return len(self._serialized)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.read(position, self._specs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[position] for position in range(len(self)))

    def read(self, position: int, names: Collection[str]) -> dict[str, Any]:
        """Returns some features of a record.

        Args:
          position: of the record.
          names: of the features.

        Returns:
          {name: value}: bytes of texts and images, NumPy's numbers and arrays of the rest.

        Raises:
          UserError: the record is damaged.
        """
        try:
            fields = self._parse(self._serialized[position]).features.feature
            return {name: self._value(name, fields[name]) for name in names}
        except Exception as error:  # of array_record, protobuf and NumPy
            reason = f"record {position}: {' '.join(str(error).split())[:200]}"
            folder = Path(self.dataset_info.data_dir)
            raise builds.unreadable(folder, reason) from error

    def _value(self, name: str, field: Any) -> Any:
        spec = self._specs[name]
        if field.HasField("bytes_list"):
            (value,) = field.bytes_list.value
            return value
        values = getattr(field, field.WhichOneof("kind") or "int64_list").value
        return np.asarray(values, spec.np_dtype).reshape(spec.shape)[()]


def open_records(dataset_dir: Path, name: str) -> Records:
    """Opens the records of a split.

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
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return Records(builder.as_data_source(split=name, deserialize_method=raw), builder.info)


def split_names(dataset_dir: Path) -> list[str]:
    """Returns the names of the splits that a build has."""
    return list(builds.open_build(dataset_dir).info.splits)


def class_labels(records: Records) -> dict[str, tuple[str, ...]]:
    """Returns the names of the values of each field that is one of several: {field: names}.

    "label" is the class; any other is an attribute of the person or the image, such as "gender".
    """
    import tensorflow_datasets as tfds

    return {
        field: tuple(feature.names)
        for field, feature in records.dataset_info.features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    }


def read_fields(records: Records) -> dict[str, np.ndarray]:
    """Returns what decides over the records and names them, as arrays `[n, ...]` over all of them.

    Args:
      records: of `open_records`.

    Returns:
      `label`, `name`, `row`; `first_row`, the votes and the fields of `class_labels` where the
      dataset has them.

    Raises:
      UserError: the records are damaged.
    """
    names = _FIELDS & records.dataset_info.features.keys() | class_labels(records).keys()
    with builds.readable_build(Path(records.dataset_info.data_dir)):
        found = [records.read(position, names) for position in range(len(records))]
        for record in found:
            record["name"] = record["name"].decode()
    return {name: np.asarray([record[name] for record in found]) for name in names}


_FIELDS = {"label", "name", "row", "first_row", "votes_new", "votes_label_csv"}
