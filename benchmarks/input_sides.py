"""The sides of `benchmarks/input.py`: our ways of having batches, and PyTorch's.

Each library is imported by its own functions only.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import both_networks
from benchmarks.side_by_side import Turn, serve

CACHED_SPLIT = 28_000  # images, as many as FERPlus has
CACHED_SHAPE = (48, 48, 1)
CACHED_BATCH = 128

DECODING = ("ours, to an array", "ours, streamed", "torch, DataLoader")
BATCH = 64  # of decoded images
DECODED_SIZE = 112
COMPARED_IMAGES = 64


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes a side ready, its workers running.

    Args:
      options: `side`, `workers`; `folder`, or `device_gib`.

    Returns:
      Facts, and the turn: takes `batches`; returns the `seconds` until all of them were there.
    """
    kinds = {"cached": prepare_cached, DECODING[0]: prepare_array, DECODING[1]: prepare_stream}
    facts, take = kinds.get(options["side"], prepare_torch)(options)

    def turn(batches: int) -> dict[str, Any]:
        began = time.perf_counter()
        take(batches)
        return {"seconds": time.perf_counter() - began}

    turn(4)
    return {**facts, "workers": options["workers"]}, turn


Prepared = tuple[dict[str, Any], Callable[[int], None]]
"""Facts of a side, and what takes a number of batches."""


def prepare_cached(options: dict[str, Any]) -> Prepared:
    """Ours, of random images in memory."""
    from dmfer_jax.data.sources import Split

    random = np.random.default_rng(0)
    shape = (CACHED_SPLIT, *CACHED_SHAPE)
    rows = np.arange(CACHED_SPLIT)
    labels = (rows % 8).astype(np.int32)
    split = Split(
        name="train",
        images=random.integers(0, 256, shape, dtype=np.uint8),
        labels=labels,
        targets=np.eye(8, dtype=np.float32)[labels],
        rows=rows,
        repeated=np.zeros(CACHED_SPLIT, bool),
        names=rows.astype(str),
        groups={},
        class_names=tuple("abcdefgh"),
    )
    take = take_from_feed(split, CACHED_BATCH, options["device_gib"], options["workers"])
    return {"versions": both_networks.versions("jax", "grain")}, take


def prepare_array(options: dict[str, Any]) -> Prepared:
    """Ours, decoded into an array."""
    from dmfer_jax.data.records import open_records
    from dmfer_jax.data.sources import RecordImages

    split, dataset_dir = load_records(options)
    records = open_records(dataset_dir, "train")

    images = RecordImages(records, np.arange(len(records)), DECODED_SIZE, 3, options["workers"])

    def take(batches: int) -> None:
        del batches  # a round is all of them
        images.decode_all()

    return facts_of_records(split), take


def prepare_stream(options: dict[str, Any]) -> Prepared:
    """Ours, decoded while batches are asked for."""
    split, _ = load_records(options)
    return facts_of_records(split), take_from_feed(split, BATCH, 0.0, options["workers"])


def take_from_feed(
    split: Any, batch_size: int, device_gib: float, workers: int
) -> Callable[[int], None]:
    """Returns what takes batches from a feed, until they are on the device."""
    import jax

    from dmfer_jax import sharding
    from dmfer_jax.feeding import Feed

    feed = Feed(split, sharding.make_mesh(), device_gib)
    batches = feed.train_batches(
        batch_size, seed=0, sampling="natural", start_step=0, workers=workers
    )

    def take(number: int) -> None:
        for batch in itertools.islice(batches, number):
            jax.block_until_ready(batch)

    return take


def load_records(options: dict[str, Any]) -> tuple[Any, Path]:
    """Returns the training split of the drawn images, not in memory, and the build's folder."""
    from dmfer_jax.building import ensure_built
    from dmfer_jax.data import sources

    folder = Path(options["folder"])
    dataset_dir = ensure_built("folder", str(folder / "faces"), str(folder / "records"))
    changes = {"data.dataset": "folder", "data.memory_gib": 0.0, "data.workers": options["workers"]}
    config = both_networks.make_config({**changes, "data.image_size": DECODED_SIZE})
    return sources.load_split(dataset_dir, "train", config.data, train=True), dataset_dir


def facts_of_records(split: Any) -> dict[str, Any]:
    """Returns facts of a side of ours that decodes."""
    some = np.argsort(split.names)[:COMPARED_IMAGES]
    pixels = [int(split.images[position].sum()) for position in some]
    return {"versions": both_networks.versions("jax", "grain", "pillow"), "pixels": pixels}


def prepare_torch(options: dict[str, Any]) -> Prepared:
    """A DataLoader of PyTorch that reads the files."""
    import torch  # pyright: ignore[reportMissingImports]
    from PIL import Image

    paths = sorted((Path(options["folder"]) / "faces" / "train").rglob("*.jpg"))

    class Faces(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            with Image.open(paths[index]) as file:
                image = file.convert("RGB")
            image = image.resize((DECODED_SIZE, DECODED_SIZE), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1), index % 2

    faces = Faces()
    workers = options["workers"]
    loader = torch.utils.data.DataLoader(
        faces,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def without_end() -> Iterator[Any]:
        while True:
            yield from loader

    batches = without_end()

    def take(number: int) -> None:
        for _ in itertools.islice(batches, number):
            pass

    pixels = [int(faces[index][0].sum()) for index in range(COMPARED_IMAGES)]
    return {"versions": both_networks.versions("torch", "pillow"), "pixels": pixels}, take


if __name__ == "__main__":
    serve(prepare)
