"""Steps whose numbers are not finite: what they leave of the state, and what is kept of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import replay, run_folder, sharding, state, step_log, steps, train
from dmfer_jax.data import sources
from dmfer_jax.errors import UserError
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.reporting import figures
from dmfer_jax.reporting.writers import read_jsonl
from dmfer_jax.step_log import StepLog


def make_state(step: int, skipped: int, value: float) -> state.TrainState:
    values = {"kernel": jnp.full(3, value)}
    return state.TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=values,
        batch_stats={},
        centers=jnp.full(2, value),
        opt_state=(values,),
        ema=values,
        skipped=jnp.asarray(skipped, jnp.int32),
    )


@pytest.mark.parametrize(
    ("policy", "finite", "skipped", "expected"),
    [
        ("stop", True, 0, (5, 0, 2.0)),
        ("stop", False, 0, (4, -1, 1.0)),
        ("stop", True, -1, (4, -1, 1.0)),  # the host has not looked yet
        ("stop", False, -1, (4, -1, 1.0)),
        ("stop", True, 3, (5, 3, 2.0)),  # left out before, when the policy was to skip
        ("stop", False, 3, (4, -4, 1.0)),
        ("skip", True, 3, (5, 3, 2.0)),
        ("skip", False, 3, (5, 4, 1.0)),
    ],
)
def test_a_step_that_is_not_finite_leaves_everything_as_it_was(policy, finite, skipped, expected):
    old, new = make_state(4, skipped, 1.0), make_state(5, skipped, 2.0)
    kept = jax.jit(steps.keep_finite, static_argnums=0)(policy, jnp.asarray(finite), old, new)
    jax.tree.map(np.testing.assert_array_equal, kept, make_state(*expected))


class Written(list):
    """Takes the place of the log and of what shows the progress."""

    images_per_second = input_wait = None

    def write(self, step, **values):
        self.append({"step": step, **values})

    def update(self, *args, **values):
        pass


def test_means_leave_out_skipped_steps_and_go_on_from_a_checkpoint():
    written = Written()
    log = StepLog(written, written, np.arange(9.0), {"pending": [{"loss": 1.0}]}, skipped=2)  # pyright: ignore[reportArgumentType]
    for loss, skipped in ((3.0, 2), (float("nan"), 3), (5.0, 3)):
        log.add({"loss": jnp.asarray(loss), "skipped": jnp.asarray(skipped)})
    assert log.fetch(step=8) == 7
    assert (log.skipped, log.in_a_row) == (3, 0)
    assert log.pending == [{"loss": 1.0}, {"loss": 3.0}, {"loss": 5.0}]
    log.write(8, epoch=1)
    assert (written[0]["loss"], written[0]["skipped"]) == (3.0, 3)
    assert written[0]["learning_rate"] == 4.0  # step 8 is the fifth update
    assert log.pending == []


def test_run_stops_at_the_step_and_its_dump_repeats_it(tiny_config, tmp_path, monkeypatch, capsys):
    honest = sources.load_split

    def load_split(*args, train, **kwargs):
        split = honest(*args, train=train, **kwargs)
        targets = split.targets.copy()
        targets[split.names == "train_00030"] = np.nan
        return dataclasses.replace(split, targets=targets) if train else split

    monkeypatch.setattr(sources, "load_split", load_split)
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])
    # Compiles sooner.
    tiny_config.model.scales, tiny_config.model.attention = "deep", "none"
    with pytest.raises(UserError, match=r"step \d+ is not finite. Its batch has .*train_00030"):
        train.train(tiny_config, tmp_path)
    # The advice: a lower rate. What is kept of the same step takes the place of the first.
    tiny_config.optimizer.learning_rate /= 2
    with pytest.raises(UserError, match=r"step \d+ is not finite. Its batch has .*train_00030"):
        train.train(tiny_config, tmp_path)
    (dump,) = (tmp_path / "nonfinite").iterdir()
    kept = run_folder.load_config(dump)
    assert kept.optimizer.learning_rate == tiny_config.optimizer.learning_rate
    step = int(dump.name)
    assert all(row["step"] < step for row in read_jsonl(tmp_path / "metrics.jsonl"))

    found = replay.replay(dump)
    assert (found.step, found.scalars["skipped"]) == (step, 1)
    assert np.isnan(found.scalars["loss"])
    assert len(found.names) == tiny_config.train.batch_size
    assert "train_00030" in found.names
    bad = [part.name for part in found.parts if part.bad]
    assert bad[0] == "cross_entropy"  # the network's own outputs are finite
    assert any(name.startswith("gradient of backbone/") for name in bad)
    order = [part.name for part in found.parts]
    assert order.index("output of backbone/stem") < order.index("output of head")
    replay.print_replay(found)
    assert f"step {step}, records" in capsys.readouterr().out
    np.savez(dump / "batch.npz", image=np.zeros(1), name=np.zeros(1))
    with pytest.raises(UserError, match=r"batch\.npz .*\(it has no class_names, target\)"):
        replay.replay(dump)
    (dump / "batch.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"batch\.npz cannot be read"):
        replay.replay(dump)


def test_a_gradient_that_is_not_finite_is_no_step(tiny_config, monkeypatch):
    """Though the loss is: the root of 0 has no slope."""
    tiny_config.model.scales, tiny_config.model.attention = "deep", "none"
    tiny_config.train.nonfinite = "skip"
    honest = steps.make_loss_function

    def make(*args, **options):
        loss_fn = honest(*args, **options)

        def with_a_root(params, *rest):
            loss, more = loss_fn(params, *rest)
            return loss + jnp.sqrt(0.0 * params["head"]["bias"].sum()), more

        return with_a_root

    monkeypatch.setattr(steps, "make_loss_function", make)
    model, mesh = state.make_model(tiny_config, 8), sharding.make_mesh()
    optimizer = make_optimizer(tiny_config, make_schedule(tiny_config, 12))
    first = jax.jit(
        lambda: state.init_state(tiny_config, model, optimizer),
        out_shardings=sharding.replicated(mesh),
    )()
    before = jax.device_get(first)
    batch = {"image": np.zeros((8, 32, 32, 3), np.uint8), "target": np.eye(8, dtype=np.float32)}
    train_step = steps.make_train_step(tiny_config, model, optimizer, mesh)
    after, scalars = train_step(first, sharding.put_batch(batch, mesh))
    assert np.isfinite(float(scalars["loss"]))
    assert not np.isfinite(float(scalars["grad_norm"]))
    assert (int(after.step), int(after.skipped)) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after.params), before.params)


def test_what_is_not_finite_where_sam_climbs_to_is_found(tiny_config, monkeypatch):
    tiny_config.model.scales, tiny_config.model.attention = "deep", "none"
    tiny_config.optimizer.sam_rho = 0.05
    model = state.make_model(tiny_config, 8)
    optimizer = make_optimizer(tiny_config, make_schedule(tiny_config, 12))
    before = jax.jit(lambda: state.init_state(tiny_config, model, optimizer))()
    batch = {"image": np.zeros((8, 32, 32, 3), np.uint8), "target": np.eye(8, dtype=np.float32)}
    parts = replay.examine(tiny_config, model, before, batch, None)
    assert {"loss", "loss where climbed to"} <= {part.name for part in parts}
    assert not any(part.bad for part in parts)
    beyond = functools.partial(jax.tree.map, lambda value, _: value + jnp.inf)
    monkeypatch.setattr(steps, "climb", lambda params, grads, rho: beyond(params, grads))
    bad = [p.name for p in replay.examine(tiny_config, model, before, batch, None) if p.bad]
    assert bad[0].startswith("climbed ")
    assert "loss where climbed to" in bad


def test_run_leaves_out_such_steps_where_it_may_and_stops_where_none_is_good(
    tiny_config, tmp_path, monkeypatch
):
    honest, bad = sources.load_split, {"train_00030"}

    def load_split(*args, train, **kwargs):
        split = honest(*args, train=train, **kwargs)
        targets = split.targets.copy()
        targets[[not bad or name in bad for name in split.names]] = np.nan
        return dataclasses.replace(split, targets=targets) if train else split

    monkeypatch.setattr(sources, "load_split", load_split)
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])
    tiny_config.model.scales, tiny_config.model.attention = "deep", "none"
    tiny_config.train.nonfinite = "skip"
    report = train.train(tiny_config, tmp_path / "one")
    rows = [r for r in read_jsonl(tmp_path / "one" / "metrics.jsonl") if r["kind"] == "train"]
    assert rows[-1]["skipped"] == 2  # once in each of two epochs
    assert np.isfinite([row["loss"] for row in rows if "loss" in row]).all()
    assert report["checkpoints"]["last"]["step"] == 12

    bad.clear()  # all of them
    monkeypatch.setattr(step_log, "_HOPELESS", 3)
    with pytest.raises(UserError, match=r"step 4 is not finite"):
        train.train(tiny_config, tmp_path / "all")
