"""Splits to batches, through Grain.

Training batches are a function of (seed, step) alone: the order is a seeded shuffle per epoch, and
a resumed run starts reading at its step. Evaluation batches cover every example exactly once; the
last one is padded and masked.
"""

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from dmfer_jax.data.sources import Split

Batch = dict[str, np.ndarray]


def steps_per_epoch(split: Split, batch_size: int) -> float:
    """Batches that hold each example once; not a whole number in general."""
    return len(split) / batch_size


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    workers: int = 4,
) -> Iterator[Batch]:
    """Yields batches without end, beginning with that of `start_step`.

    Args:
      split: what to read.
      batch_size: of this host's part of the global batch.
      seed: of the order.
      start_step: how many batches have been consumed before.
      host: which of the hosts this is; each reads its own examples.
      hosts: how many there are.
      workers: threads that fetch ahead.

    Yields:
      `image` uint8 `[b, h, w, c]`, `target` float32 `[b, K]`.
    """

    def gather(positions: np.ndarray) -> Batch:
        return {"image": _images(split, positions), "target": split.targets[positions]}

    order = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat()
    # Batching positions, not examples: one gather a batch instead of one Python call an example.
    batches = order[host::hosts].batch(batch_size).map(gather)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
    return iter(batches[start_step:].to_iter_dataset(options))


def eval_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Yields every example of the split once, in order.

    Yields:
      `image` uint8 `[b, h, w, c]`, `target` float32 `[b, K]`, `label` int32 `[b]`, `mask` float32
      `[b]` (0 in the padding of the last batch) and `first` float32 `[b]` (0 also where an earlier
      row of the source has the same pixels).
    """

    def gather(start: int) -> Batch:
        positions = np.arange(start, min(start + batch_size, len(split)))
        padding = batch_size - len(positions)
        padded = np.pad(positions, (0, padding), mode="edge")
        mask = np.pad(np.ones(len(positions), np.float32), (0, padding))
        return {
            "image": _images(split, padded),
            "target": split.targets[padded],
            "label": split.labels[padded],
            "mask": mask,
            "first": mask * ~split.repeated[padded],
        }

    starts = grain.MapDataset.source(list(range(0, len(split), batch_size)))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    return iter(starts.map(gather).to_iter_dataset(options))


def _images(split: Split, positions: np.ndarray) -> np.ndarray:
    images: Any = split.images
    if isinstance(images, np.ndarray):
        return images[positions]
    return np.stack([images[position] for position in positions])
