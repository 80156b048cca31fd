"""Batches on the devices: gathered there where a split fits, else put there ahead of their use."""

import collections
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dmfer_jax.data import pipeline
from dmfer_jax.data.sources import ChosenImages, Split
from dmfer_jax.sharding import batched, platform, put_batch, replicated, round_up

Batch = dict[str, jax.Array]


class Feed:
    """A split as batches on the devices of a mesh.

    Where its images fit they are put on every device once, and a batch is gathered there by a
    compiled function: only its examples' numbers cross from the host. Where they do not fit,
    batches are read by `data.pipeline` and put on the devices while earlier steps compute.

    Attributes:
      split: the examples.
      mesh: the devices.
      resident: whether the images are on the devices.
    """

    def __init__(self, split: Split, mesh: Mesh, device_gib: float):
        """Puts the split on the devices if it fits.

        Args:
          split: the examples.
          mesh: of `sharding.make_mesh`.
          device_gib: how much of each device's memory its images may take, in GiB.
        """
        self.split, self.mesh = split, mesh
        images: Any = split.images
        in_memory = isinstance(images, (np.ndarray, ChosenImages))
        self.resident = in_memory and images.nbytes <= device_gib * 2**30
        if self.resident:
            images = images[:]  # of chosen ones a copy, of an array none
            # On the CPU this is no copy: JAX takes an aligned array as it is.
            laid_out = lay_out(images) if platform(mesh) == "tpu" else images
            whole = {"image": laid_out, "target": split.targets}
            self._whole = jax.make_array_from_process_local_data(replicated(mesh), whole)
            self.gather = make_gather(mesh, images.shape[1:])

    def train_batches(
        self, batch_size: int, *, seed: int, sampling: str, start_step: int, workers: int
    ) -> Iterator[Batch]:
        """Yields batches without end, those of `pipeline.train_batches`.

        Args:
          batch_size: over all devices and hosts together.
          seed: of the order.
          sampling: how often each class comes.
          start_step: how many batches have been consumed before.
          workers: that read a split which is not on the devices, as there.

        Yields:
          `image` uint8 `[b, h, w, c]`, `target` float32 `[b, K]`.
        """
        options: Any = {
            "seed": seed,
            "sampling": sampling,
            "start_step": start_step,
            **_host_and_hosts(),
        }
        of_host = batch_size // jax.process_count()
        if not self.resident:
            batches = pipeline.train_batches(self.split, of_host, workers=workers, **options)
            return _put_ahead(batches, self.mesh)
        numbers = pipeline.train_positions(self.split, of_host, **options)
        return (self._gathered({"position": positions}) for positions in numbers)

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields every example once, the batches of `pipeline.eval_batches`.

        Args:
          batch_size: over all devices and hosts together, at the most; rounded up to what they can
            share. A split that is smaller has a smaller one, a power of two.
        """
        options = _host_and_hosts()
        enough = 1 << max(len(self.split) - 1, 0).bit_length()  # the rest would be padding
        of_host = round_up(min(batch_size, enough), self.mesh) // jax.process_count()
        if not self.resident:
            return _put_ahead(pipeline.eval_batches(self.split, of_host, **options), self.mesh)
        return map(self._gathered, pipeline.eval_positions(self.split, of_host, **options))

    def _gathered(self, part: pipeline.Batch) -> Batch:
        on_devices = put_batch(part, self.mesh)
        positions = on_devices.pop("position")
        return {**self.gather(self._whole, positions), **on_devices}


_LANES = 128
"""Bytes in a row of a TPU's memory."""


def lay_out(images: np.ndarray) -> np.ndarray:
    """Returns images `[n, h, w, c]` as rows of so many bytes as a TPU's memory has: `[n, r, 128]`.

    In an array `[n, h, w, c]` a TPU puts n innermost, and to gather a few images it lays out all of
    them anew, in every step. Rows are gathered from where they are.
    """
    flat = images.reshape(len(images), -1)
    if missing := -flat.shape[1] % _LANES:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.reshape(len(flat), -1, _LANES)


def make_gather(mesh: Mesh, image_shape: tuple[int, ...]) -> Callable[[Batch, jax.Array], Batch]:
    """Returns the compiled function that picks a batch out of what every device holds.

    It takes {"image": `[n, h, w, c]` or as of `lay_out`, "target": `[n, K]`} and positions `[b]`.

    Args:
      mesh: the devices.
      image_shape: (h, w, c).
    """

    def gather(whole: Batch, positions: jax.Array) -> Batch:
        found = {
            name: values.at[positions].get(mode="promise_in_bounds")
            for name, values in whole.items()
        }
        flat = found["image"].reshape(len(positions), -1)[:, : math.prod(image_shape)]
        return {**found, "image": flat.reshape(-1, *image_shape)}

    return jax.jit(
        gather, in_shardings=(replicated(mesh), batched(mesh)), out_shardings=batched(mesh)
    )


def _host_and_hosts() -> dict[str, int]:
    """Which host this is and how many there are, as `data.pipeline` asks."""
    return {"host": jax.process_index(), "hosts": jax.process_count()}


_AHEAD = 2
"""Batches that are on their way to the devices while a step computes."""


def _put_ahead(batches: Iterable[pipeline.Batch], mesh: Mesh) -> Iterator[Batch]:
    waiting: collections.deque[Batch] = collections.deque()
    for batch in batches:
        waiting.append(put_batch(batch, mesh))
        if len(waiting) == _AHEAD:
            yield waiting.popleft()
    yield from waiting
