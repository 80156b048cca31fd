"""The mesh: one axis of devices, over which batches are split and the state is copied.

One device is the same code as many. Under `jit` a sum over a split batch is a sum over the global
batch, so BatchNorm's statistics, centers and metrics need nothing more. There is no axis for the
network's own parts: the widest head holds a few hundred thousand numbers, and nothing would be
split over it.
"""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dmfer_jax.errors import UserError


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of these JAX devices (all, unless given) with the one axis "data".

    Devices of a host stand side by side, so that its part of a batch is one piece.
    `jax.make_mesh` would follow the wires of a TPU slice and mix the hosts.
    """
    devices = jax.devices() if devices is None else devices
    by_host = sorted(devices, key=lambda device: device.process_index)
    return Mesh(np.array(by_host), ("data",), axis_types=(AxisType.Auto,))


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
    with jax.transfer_guard("allow"):  # with several hosts JAX takes this for one nobody asked for
        return jax.make_array_from_process_local_data(batched(mesh), batch)


def fetch(array: jax.Array) -> np.ndarray:
    """Returns an array that is split over the mesh whole, in each process; all must ask for it."""
    if array.is_fully_addressable:
        return jax.device_get(array)
    with jax.transfer_guard("allow"):  # of the gathered copy, within JAX
        return multihost_utils.process_allgather(array, tiled=True)


def round_up(size: int, mesh: Mesh) -> int:
    """Returns the batch size from this one on that can be split evenly over the devices."""
    return -(-size // mesh.size) * mesh.size


def check_hosts(mesh: Mesh) -> None:
    """Checks that all hosts of a mesh have equally many devices.

    Raises:
      UserError: they have not.
    """
    numbers = collections.Counter(device.process_index for device in mesh.devices.flat)
    if len(set(numbers.values())) > 1:
        each = ", ".join(f"process {host} has {numbers[host]}" for host in sorted(numbers))
        raise UserError(f"the processes have different numbers of devices ({each}); expected equal")


def check_batch_size(size: int, field: str, mesh: Mesh) -> None:
    """Checks that a global batch can be split evenly over the devices and hosts of a mesh.

    Raises:
      UserError: naming the field, what a device would get, and the sizes nearest to it that can;
        or that hosts have different numbers of devices.
    """
    check_hosts(mesh)
    devices, hosts = mesh.size, len({device.process_index for device in mesh.devices.flat})
    if size % devices:
        lower = size // devices * devices
        nearest = " or ".join(
            f"{near} ({near // devices} a device)" for near in (lower, lower + devices) if near
        )
        of_hosts = f" ({hosts} hosts x {devices // hosts})" if hosts > 1 else ""
        raise UserError(
            f"config.{field} is {size}: the global batch, over {devices} devices{of_hosts} it is "
            f"{size / devices:g} a device; nearest that can be split: {nearest}"
        )
