"""Splits to batches, through Grain.

Training batches are a function of (seed, step) alone: the order is a seeded shuffle per epoch (per
class, where classes are balanced), and a resumed run starts reading at its step. Evaluation batches
cover every example exactly once; the last one is padded and masked.
"""

import functools
import sys
from collections.abc import Callable, Iterator
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
    sampling: str = "natural",
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
      sampling: "natural" gives each example once an epoch; "balanced" each class equally often;
        "square_root" each class in proportion to the square root of its number of examples, to
        within half an example in `_WINDOW` a class. An example's class is its label; under the
        last two, a class's examples come once each before any comes again.
      start_step: how many batches have been consumed before.
      host: which of the hosts this is; each reads its own examples.
      hosts: how many there are.
      workers: threads that fetch ahead.

    Yields:
      `image` uint8 `[b, h, w, c]`, `target` float32 `[b, K]`.
    """

    def gather(positions: np.ndarray) -> Batch:
        return {"image": _images(split, positions), "target": split.targets[positions]}

    if sampling == "natural":
        order = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat()
    else:
        order = grain.MapDataset.range(sys.maxsize).map(_mix_classes(split.labels, sampling, seed))
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


_WINDOW = 100
"""Examples per class, on average, after which each class has had its share exactly."""


def _mix_classes(labels: np.ndarray, sampling: str, seed: int) -> Callable[[int], int]:
    """Returns what tells which example stands at a place of an order without end.

    The order consists of windows with so many of each class, each window shuffled. Grain's own
    mixture repeats a pattern of classes, of which a host that reads every eighth example would see
    one class alone; and its shuffle takes milliseconds for each example of a class that has few.
    """
    present, numbers = np.unique(labels, return_counts=True)
    members = [np.flatnonzero(labels == label) for label in present]
    weights = np.sqrt(numbers) if sampling == "square_root" else np.ones(len(present))
    shares = np.rint(weights / weights.sum() * _WINDOW * len(present)).astype(int)
    shares = np.maximum(shares, 1).tolist()  # however rare a class is, it occurs
    in_order = np.repeat(np.arange(len(shares)), shares)

    @functools.lru_cache(maxsize=32)
    def draw_window(window: int) -> tuple[np.ndarray, np.ndarray]:
        """The class at each place of a window, and how many of that class stand before it."""
        classes = np.random.default_rng([seed, 0, window]).permutation(in_order)
        earlier = np.empty_like(classes)
        for chosen, share in enumerate(shares):
            earlier[classes == chosen] = np.arange(share)
        return classes, earlier

    # Room for what several threads read at once: about four integers an example.
    @functools.lru_cache(maxsize=4 * len(members))
    def draw_pass(chosen: int, number: int) -> np.ndarray:
        """The examples of a class in the order in which they come for the nth time."""
        return np.random.default_rng([seed, 1, chosen, number]).permutation(members[chosen])

    def example_at(place: int) -> int:
        window, within = divmod(place, len(in_order))
        classes, earlier = draw_window(window)
        chosen = int(classes[within])
        of_class = window * shares[chosen] + int(earlier[within])
        number, position = divmod(of_class, len(members[chosen]))
        return int(draw_pass(chosen, number)[position])

    return example_at


def _images(split: Split, positions: np.ndarray) -> np.ndarray:
    images: Any = split.images
    if isinstance(images, np.ndarray):
        return images[positions]
    return np.stack([images[position] for position in positions])
