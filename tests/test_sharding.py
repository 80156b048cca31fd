"""One axis of devices: batches are split over it, the state is copied, and sizes must fit."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import devices
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


def fake_mesh(*devices_of_hosts: int) -> Any:
    """Hosts with so many devices each, whose devices come in turn as on a TPU slice's wires."""
    devices = [
        SimpleNamespace(process_index=h) for h, n in enumerate(devices_of_hosts) for _ in range(n)
    ]
    return SimpleNamespace(devices=np.array(devices[::2] + devices[1::2]), size=len(devices))


def test_devices_of_a_host_stand_side_by_side(monkeypatch):
    monkeypatch.setattr(sharding, "Mesh", lambda devices, *_, **__: devices)
    mesh: Any = sharding.make_mesh(list(fake_mesh(4, 4, 4).devices))
    assert [device.process_index for device in mesh] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("hosts", [(4,), (2, 2), (1, 1, 1, 1)])
def test_size_that_the_devices_divide_is_fine(hosts):
    sharding.check_batch_size(12, "train.batch_size", fake_mesh(*hosts))


@pytest.mark.parametrize(
    ("size", "hosts", "message"),
    [
        (10, (4,), "10: the global batch, over 4 devices it is 2.5 a device; nearest that can be "
         "split: 8 (2 a device) or 12 (3 a device)"),
        (3, (4,), "3: the global batch, over 4 devices it is 0.75 a device; nearest that can be "
         "split: 4 (1 a device)"),
        (100, (4, 4), "100: the global batch, over 8 devices (2 hosts x 4) it is 12.5 a device; "
         "nearest that can be split: 96 (12 a device) or 104 (13 a device)"),
    ],
)  # fmt: skip
def test_size_that_cannot_be_split_is_an_error_with_the_nearest_that_can(size, hosts, message):
    with pytest.raises(UserError) as raised:
        sharding.check_batch_size(size, "train.batch_size", fake_mesh(*hosts))
    assert str(raised.value) == f"config.train.batch_size is {message}"


def test_hosts_with_different_numbers_of_devices_are_refused():
    with pytest.raises(UserError, match=r"process 0 has 4, process 1 has 2\); expected equal"):
        sharding.check_batch_size(12, "train.batch_size", fake_mesh(4, 2))


def test_fetched_array_is_whole(mesh):
    numbers = np.arange(2 * mesh.size)
    placed = sharding.put_batch({"numbers": numbers}, mesh)["numbers"]
    np.testing.assert_array_equal(sharding.fetch(placed), numbers)


def test_training_is_the_same_over_any_number_of_devices(data_dir, tmp_path):
    """In float64, so that only the order of additions is left, at 1e-16 of a value each.

    `python benchmarks/devices.py` does the same over 2 and 4 devices and over two processes, too,
    with the whole network and in float32. Two processes are in test_distributed.py.
    """
    settings = {
        "changes": {
            **devices.CHANGES,
            "optimizer.learning_rate": 0.1,
            "model.scales": "deep",
            "model.attention": "none",
            "data.data_dir": str(data_dir),
        },
        "steps": 20,
        "types": ["float64"],
        "quick": True,
        "jax": {"jax_disable_most_optimizations": True},
    }
    found = devices.train_all(settings, (1, 8), tmp_path, hosts=False)
    rows = devices.compare(found)
    assert [row["layout"] for row in rows] == ["8 devices"]
    for row in rows:
        assert row["same_batches"]
        assert max(row["loss"], *row["differences"].values()) < 1e-9, row
    # They are trainings: the state has moved.
    alone = found["1 device", "float64"]
    assert np.ptp(alone["losses"]) > 0.1
    assert len(np.unique(alone["positions"][:3])) == 48  # an epoch is each record once
