"""Records are serialized to what TFDS itself would write."""

import io
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from data_builders.common.serialization import Serializer

FEATURES: Any = tfds.features.FeaturesDict(
    {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=["sad", "happy"]),
        "name": tfds.features.Text(),
        "row": np.int64,
        "valence": np.float32,
        "votes": tfds.features.Tensor(shape=(3,), dtype=np.int32),
        "landmarks": tfds.features.Tensor(shape=(2, 2), dtype=np.float32),
    }
)
EXAMPLE: dict[str, Any] = {
    "image": b"\xff\xd8 a JPEG",
    "label": 1,
    "name": "Ünal.jpg",
    "row": 2**40,
    "valence": np.float32(-0.1),
    "votes": np.array([1, -2, 3], np.int32),
    "landmarks": [[0.5, 1.5], [np.nan, 3.0]],
}


def as_tfds_writes(example: dict[str, Any]) -> bytes:
    serializer: Any = ExampleSerializer(FEATURES.get_serialized_info())
    landmarks = np.array(example["landmarks"], np.float32)
    return serializer.serialize_example(
        FEATURES.encode_example({**example, "landmarks": landmarks})
    )


def parsed(serialized: bytes) -> str:
    example: Any = tf_example_pb2
    return str(example.Example.FromString(serialized))


@pytest.mark.parametrize("as_file", [False, True])
def test_message_is_the_one_that_tfds_makes(as_file):
    given = {**EXAMPLE, "image": io.BytesIO(EXAMPLE["image"])} if as_file else EXAMPLE

    serialized = Serializer(FEATURES)(given)

    assert parsed(serialized) == parsed(as_tfds_writes(EXAMPLE))


def test_tfds_reads_it_back():
    read = FEATURES.deserialize_example_np(
        Serializer(FEATURES)(EXAMPLE), decoders={"image": tfds.decode.SkipDecoding()}
    )

    assert read["image"] == EXAMPLE["image"]
    assert read["name"].decode() == "Ünal.jpg"
    assert (read["label"], read["row"]) == (1, 2**40)
    assert read["votes"].tolist() == [1, -2, 3]
    np.testing.assert_array_equal(read["landmarks"], np.array(EXAMPLE["landmarks"], np.float32))


def test_missing_or_unknown_feature_is_refused():
    without = {name: value for name, value in EXAMPLE.items() if name != "row"}
    with pytest.raises(ValueError, match="its features are"):
        Serializer(FEATURES)(without)
    with pytest.raises(ValueError, match="its features are"):
        Serializer(FEATURES)({**EXAMPLE, "age": 30})


def test_array_of_another_size_is_refused():
    with pytest.raises(ValueError, match="'votes' has 2 values; expected 3"):
        Serializer(FEATURES)({**EXAMPLE, "votes": [1, 2]})


def test_every_process_writes_the_same_bytes():
    """The order of a message's map is drawn anew in each, and tells records of two builds apart."""
    serialized = Serializer(FEATURES)(EXAMPLE)
    assert serialized == Serializer(FEATURES)(dict(reversed(EXAMPLE.items())))
    places = [serialized.index(bytes([10, len(name)]) + name.encode()) for name in sorted(EXAMPLE)]
    assert places == sorted(places)
