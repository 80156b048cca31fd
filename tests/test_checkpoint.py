"""Checkpoints: what is saved is what was there, and what is kept."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import checkpoint, run_folder, sharding, state, steps
from dmfer_jax import config as configs
from dmfer_jax.errors import UserError
from dmfer_jax.optimizer import make_optimizer, make_schedule


@pytest.fixture
def parts(tiny_config):
    """Returns mesh, optimizer, and a fresh state of the tiny experiment."""
    mesh, model = sharding.make_mesh(), state.make_model(tiny_config, 8)
    optimizer = make_optimizer(tiny_config, make_schedule(tiny_config, 12))
    init = jax.jit(
        lambda: state.init_state(tiny_config, model, optimizer),
        out_shardings=sharding.replicated(mesh),
    )
    return mesh, model, optimizer, init()


def test_a_save_in_flight_is_not_touched_by_the_steps_after_it(tiny_config, parts, tmp_path):
    mesh, model, optimizer, train_state = parts
    train_step = steps.make_train_step(tiny_config, model, optimizer, mesh)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8),
        "target": np.eye(8, dtype=np.float32),
    }
    train_state, _ = train_step(train_state, sharding.put_batch(batch, mesh))
    before = jax.tree.map(np.array, jax.device_get(train_state))  # a copy, not a view
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        note: dict = {"epoch": 1.0, "pending": [{"loss": 2.0}]}
        checkpoints.save(train_state, note, 0.5)
        note["pending"].append({"loss": 3.0})
        for _ in range(4):  # each is given the saved state's memory to reuse
            train_state, _ = train_step(train_state, sharding.put_batch(batch, mesh))
        checkpoints.wait()
        like = jax.eval_shape(lambda: train_state)
        loaded = checkpoints.load(1, like, sharding.replicated(mesh))
        assert checkpoints.note(1) == {"epoch": 1.0, "pending": [{"loss": 2.0}]}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(loaded), before)


def test_the_last_two_and_the_best_are_kept_and_of_equal_ones_the_later(tmp_path, monkeypatch):
    sizes, remove = [], shutil.rmtree

    def note_sizes(folder, **options):
        sizes.extend(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        remove(folder, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", note_sizes)
    train_state = state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params={"kernel": jnp.ones(3)},
        batch_stats={},
        centers=None,
        opt_state=(),
        ema=None,
        skipped=jnp.zeros((), jnp.int32),
    )
    accuracies = [0.3, 0.7, 0.7, None, 0.5, 0.6]
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in enumerate(accuracies, start=1):
            now = train_state.replace(step=jnp.asarray(step, jnp.int32))
            checkpoints.save(now, {"epoch": step}, accuracy)
        checkpoints.wait()
        assert checkpoints.step("last") == 6
        assert checkpoints.step("best") == 3
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {"3", "5", "6"}
    assert len(sizes) > 3  # a bin into which they are moved gets nothing
    assert not any(sizes)
    with checkpoint.Checkpoints(tmp_path) as again:
        assert (again.step("last"), again.step("best")) == (6, 3)


def test_checkpoint_of_another_network_is_refused_by_name(tiny_config, parts, tmp_path):
    mesh, _, optimizer, train_state = parts
    tiny_config.model.embedding = 32
    other = state.make_model(tiny_config, 8)
    like = jax.eval_shape(lambda: state.init_state(tiny_config, other, optimizer))
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(train_state, {"epoch": 0.0}, 0.1)
        checkpoints.wait()
        with pytest.raises(UserError, match="holds another network or optimizer"):
            checkpoints.load(0, like, sharding.replicated(mesh))


def test_folder_in_which_nothing_was_saved_takes_another_config(tiny_config, tmp_path):
    run_folder.save_config(tmp_path, tiny_config)
    tiny_config.train.batch_size = 4
    run_folder.save_config(tmp_path, tiny_config)
    assert run_folder.load_config(tmp_path).train.batch_size == 4
    (tmp_path / "report.json").write_text("{}")
    tiny_config.train.batch_size = 2
    with pytest.raises(UserError, match="batch_size was 4 and is 2"):
        run_folder.save_config(tmp_path, tiny_config)


def test_half_written_checkpoints_are_nothing_saved(tiny_config, tmp_path):
    run_folder.save_config(tmp_path, tiny_config)
    for name in ("6.partial", "6.orbax-checkpoint-tmp", "6.pt"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    tiny_config.train.batch_size = 4
    run_folder.save_config(tmp_path, tiny_config)
    (tmp_path / "torch_checkpoints").mkdir()
    (tmp_path / "torch_checkpoints" / "6.json").touch()
    tiny_config.train.batch_size = 2
    with pytest.raises(UserError, match="batch_size was 4 and is 2"):
        run_folder.save_config(tmp_path, tiny_config)


def test_a_run_that_goes_on_from_another_place_is_found_there_later(tiny_config, tmp_path):
    run_folder.save_config(tmp_path, tiny_config)
    (tmp_path / "report.json").write_text("{}")
    tiny_config.data.data_dir, tiny_config.data.test_splits = "/moved", ("test",)
    run_folder.save_config(tmp_path, tiny_config)
    assert run_folder.load_config(tmp_path).data.to_dict() == tiny_config.data.to_dict()


def test_run_of_the_only_variant_goes_on_by_its_full_name(tiny_config, tmp_path):
    tiny_config.data.dataset = "affectnet"
    run_folder.save_config(tmp_path, tiny_config)
    report = {"dataset": "affectnet/new", "checkpoints": {"last": {}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    tiny_config.data.dataset = "affectnet/new"
    run_folder.save_config(tmp_path, tiny_config)
    assert run_folder.load_config(tmp_path).data.dataset == "affectnet/new"
    tiny_config.data.dataset = "affectnet/old"
    with pytest.raises(UserError, match=r"dataset was 'affectnet/new' and is 'affectnet/old'"):
        run_folder.save_config(tmp_path, tiny_config)


def test_run_from_before_a_field_was_added_can_be_read_and_gone_on_with(tiny_config, tmp_path):
    run_folder.save_config(tmp_path, tiny_config)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["data"]["drop_classes"]
    path.write_text(json.dumps(stored))
    loaded = run_folder.load_config(tmp_path)
    assert loaded.to_dict() == tiny_config.to_dict()
    configs.validate(loaded)
    (tmp_path / "checkpoints" / "6").mkdir(parents=True)
    run_folder.save_config(tmp_path, tiny_config)
    tiny_config.data.drop_classes = ("contempt",)
    with pytest.raises(UserError, match=r"drop_classes was \[\] and is \['contempt'\]"):
        run_folder.save_config(tmp_path, tiny_config)
