"""The mesh: one axis of devices, over which batches are split and the state is copied.

One device is the same code as many. Under `jit` a sum over a split batch is a sum over the global
batch, so BatchNorm's statistics, centers and metrics need nothing more.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dmfer_jax.errors import UserError


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of these JAX devices (all, unless given) with the one axis "data"."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def platform(mesh: Mesh) -> str:
    """What its devices are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Each device holds its part of the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this host's part of a global batch on its devices.

    Args:
      batch: arrays `[b, ...]`, b divisible by the number of this host's devices.
      mesh: of `make_mesh`.
    """
    return jax.make_array_from_process_local_data(batched(mesh), batch)


def check_batch_size(size: int, field: str, mesh: Mesh) -> None:
    """Checks that a global batch can be split over the mesh.

    Raises:
      UserError: naming the field and the sizes nearest to it that can.
    """
    devices = mesh.size
    if size % devices:
        lower = size // devices * devices
        nearest = f"{lower} or {lower + devices}" if lower else f"{devices}"
        raise UserError(
            f"config.{field} is {size}, which cannot be split evenly over {devices} devices; "
            f"the nearest that can is {nearest}"
        )
