"""Splits to batches, through Grain.

Training batches are a function of (seed, step) alone: the order is a seeded shuffle per epoch (per
class, where classes are balanced), and a resumed run starts reading at its step. Evaluation batches
cover every example exactly once; the last one is padded and masked. Each of several hosts reads its
piece of a batch: one behind the other, they are the batch that one host would read.
"""

import itertools
import sys
from collections.abc import Callable, Iterator

import grain
import numpy as np

from dmfer_jax.data.order import mixed_order, natural_order
from dmfer_jax.data.sources import Split

Batch = dict[str, np.ndarray]


def epoch_ends(examples: int, batch_size: int, epochs: int) -> list[int]:
    """Returns the number of whole batches after which each epoch is over: once through it all."""
    return [epoch * examples // batch_size for epoch in range(1, epochs + 1)]


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
        within half an example in a hundred a class. An example's class is its label; under the
        last two, a class's examples come once each before any comes again.
      start_step: how many batches have been consumed before.
      host: which of the hosts this is; each reads its own piece of the global batch.
      hosts: how many there are.
      workers: batches that are made at a time, each by a process if its images must be decoded.

    Yields:
      `image` uint8 `[b, h, w, c]`, `target` float32 `[b, K]`.
    """
    positions_of = _train_positions(split, batch_size, seed, sampling, host, hosts)

    def gather(step: int) -> Batch:
        positions = positions_of(step)
        return {"image": split.images[positions], "target": split.targets[positions]}

    # One more thread, which has read a batch's records by the time a process is free for them.
    options = grain.ReadOptions(num_threads=workers + 1, prefetch_buffer_size=2 * workers)
    batches = grain.MapDataset.range(sys.maxsize).map(gather)
    return iter(batches[start_step:].to_iter_dataset(options))


def train_positions(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    sampling: str = "natural",
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[np.ndarray]:
    """Yields which examples the batches of `train_batches` consist of: int32 `[b]`, without end.

    Args:
      split: what to read.
      batch_size: as there, and so are the others.
      seed: of the order.
      sampling: how often each class comes.
      start_step: how many batches have been consumed before.
      host: which of the hosts this is.
      hosts: how many there are.
    """
    positions_of = _train_positions(split, batch_size, seed, sampling, host, hosts)
    return (positions_of(step).astype(np.int32) for step in itertools.count(start_step))


def eval_batches(
    split: Split, batch_size: int, *, host: int = 0, hosts: int = 1
) -> Iterator[Batch]:
    """Yields every example of the split once, in order.

    Args:
      split: what to read.
      batch_size: of this host's part of the global batch.
      host: which of the hosts this is.
      hosts: how many there are.

    Yields:
      `image` uint8 `[b, h, w, c]`, `target` float32 `[b, K]`, `label` int32 `[b]`, `mask` float32
      `[b]` (0 in the padding of the last batch) and `first` float32 `[b]` (0 also where an earlier
      row of the source has the same pixels).
    """

    def gather(number: int) -> Batch:
        batch = _eval_part(split, batch_size, number, host, hosts)
        positions = batch.pop("position")
        return {"image": split.images[positions], "target": split.targets[positions], **batch}

    numbers = grain.MapDataset.range(_eval_steps(split, batch_size * hosts))
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    return iter(numbers.map(gather).to_iter_dataset(options))


def eval_positions(
    split: Split, batch_size: int, *, host: int = 0, hosts: int = 1
) -> Iterator[Batch]:
    """Yields the batches of `eval_batches` with `position` int32 `[b]` for image and target."""
    steps = range(_eval_steps(split, batch_size * hosts))
    return (_eval_part(split, batch_size, number, host, hosts) for number in steps)


def _train_positions(
    split: Split, batch_size: int, seed: int, sampling: str, host: int, hosts: int
) -> Callable[[int], np.ndarray]:
    """Returns what tells the examples `[b]` of a step; several threads may ask."""
    order = (
        natural_order(len(split), seed)
        if sampling == "natural"
        else mixed_order(split.labels, sampling, seed)
    )

    def positions_of(step: int) -> np.ndarray:
        return order((step * hosts + host) * batch_size + np.arange(batch_size))

    return positions_of


def _eval_steps(split: Split, global_batch: int) -> int:
    return -(-len(split) // global_batch)


def _eval_part(split: Split, batch_size: int, number: int, host: int, hosts: int) -> Batch:
    """What a host's part of a batch says of its examples, without images and targets."""
    places = (number * hosts + host) * batch_size + np.arange(batch_size)
    mask = (places < len(split)).astype(np.float32)
    positions = np.minimum(places, len(split) - 1).astype(np.int32)
    return {
        "position": positions,
        "label": split.labels[positions],
        "mask": mask,
        "first": mask * ~split.repeated[positions],
    }
