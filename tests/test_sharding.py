"""One axis of devices: batches are split over it, the state is copied, and sizes must fit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import sharding
from dmfer_jax.errors import UserError


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


def test_mesh_is_one_axis_over_all_devices(mesh):
    assert mesh.axis_names == ("data",)
    assert mesh.devices.tolist() == jax.devices()


def test_mesh_of_some_devices_has_those_alone():
    assert sharding.make_mesh(jax.devices()[:1]).devices.tolist() == jax.devices()[:1]


def test_batch_is_split_in_order_and_stays_whole_as_a_value(mesh):
    devices = mesh.size
    batch = {
        "image": np.arange(2 * devices * 3, dtype=np.uint8).reshape(2 * devices, 3),
        "target": np.ones((2 * devices, 8), np.float32),
    }
    placed = sharding.put_batch(batch, mesh)
    for name, array in batch.items():
        assert placed[name].dtype == array.dtype
        assert placed[name].sharding == sharding.batched(mesh)
        np.testing.assert_array_equal(placed[name], array)
    for index, device in enumerate(mesh.devices):
        (part,) = (s for s in placed["image"].addressable_shards if s.device == device)
        np.testing.assert_array_equal(part.data, batch["image"][2 * index : 2 * index + 2])


def test_replicated_array_is_whole_on_every_device(mesh):
    placed = jax.device_put(jnp.arange(3), sharding.replicated(mesh))
    assert {shard.device for shard in placed.addressable_shards} == set(jax.devices())
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3,)}


def test_sum_over_a_split_batch_is_the_sum_over_the_global_batch(mesh):
    numbers = np.arange(4 * mesh.size, dtype=np.float32)
    placed = sharding.put_batch({"numbers": numbers}, mesh)
    total = jax.jit(jnp.sum, out_shardings=sharding.replicated(mesh))(placed["numbers"])
    assert float(total) == numbers.sum()


def test_size_that_the_devices_divide_is_fine(mesh):
    sharding.check_batch_size(3 * mesh.size, "train.batch_size", mesh)


@pytest.mark.parametrize(
    ("size", "nearest"), [(10, "8 or 12"), (3, "4"), (1, "4"), (13, "12 or 16")]
)
def test_size_that_cannot_be_split_is_an_error_with_the_nearest_that_can(size, nearest):
    four: Any = jax.sharding.AbstractMesh((4,), ("data",))
    message = (
        rf"config\.train\.batch_size is {size}, which cannot be split evenly over 4 devices; "
        rf"the nearest that can is {nearest}$"
    )
    with pytest.raises(UserError, match=message):
        sharding.check_batch_size(size, "train.batch_size", four)
