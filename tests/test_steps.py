"""The training and the evaluation step."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from dmfer_jax import config as configs
from dmfer_jax import losses, sharding, state, steps
from dmfer_jax.models import resnet
from dmfer_jax.models.dmfer import Outputs
from dmfer_jax.optimizer import make_optimizer, make_schedule

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.fixture
def smallest_config(tiny_config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> ConfigDict:
    """A stage less, the deep scale alone, without attention: compiled in a few seconds."""
    monkeypatch.setitem(resnet.BACKBONES, "resnet10", {"blocks": (1, 1, 1)})
    tiny_config.model.scales, tiny_config.model.attention = "deep", "none"
    return tiny_config


def batch_of(config: ConfigDict, size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    side, channels = config.data.image_size, config.data.channels
    labels = rng.integers(0, 7, size)  # the last class is absent
    return {
        "image": rng.integers(0, 256, (size, side, side, channels), dtype=np.uint8),
        "target": np.eye(8, dtype=np.float32)[labels],
    }


def set_up(config: ConfigDict, devices=None):
    """Returns mesh, model, fresh state and training step."""
    mesh = sharding.make_mesh(devices)
    model = state.make_model(config, 8)
    optimizer = make_optimizer(config, make_schedule(config, 12))
    init = jax.jit(
        lambda: state.init_state(config, model, optimizer),
        out_shardings=sharding.replicated(mesh),
    )
    return mesh, model, init(), steps.make_train_step(config, model, optimizer, mesh)


def test_steps_learn_a_batch_by_heart_in_one_trace_and_reuse_the_state(smallest_config):
    for name in ("flip", "rotation", "shift", "scale", "erase", "brightness", "contrast"):
        smallest_config.augment[name] = 0.0
    smallest_config.optimizer.name = "adamw"
    smallest_config.optimizer.warmup_epochs = 0.0
    smallest_config.optimizer.learning_rate = 0.16  # 0.005 at this batch size
    mesh, _, train_state, train_step = set_up(smallest_config)
    first = jax.jit(lambda given: jax.tree.map(jnp.copy, given))(train_state)
    batch = batch_of(smallest_config, 8)
    entropies = []
    for _ in range(8):
        before = train_state
        train_state, scalars = train_step(train_state, sharding.put_batch(batch, mesh))
        entropies.append(float(scalars["cross_entropy"]))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert entropies[-1] < 0.5 * entropies[0]
    assert int(train_state.step) == 8
    assert train_step._cache_size() == 1  # type: ignore[attr-defined]
    for part in ("params", "batch_stats", "centers", "ema"):
        before, after = jax.device_get((getattr(first, part), getattr(train_state, part)))
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
        assert max(jax.tree.leaves(moved)) > 1e-3, part


def test_sam_moves_by_the_gradient_a_step_uphill(smallest_config):
    for name in ("flip", "rotation", "shift", "scale", "erase", "brightness", "contrast"):
        smallest_config.augment[name] = 0.0
    rates = {"name": "sgd", "warmup_epochs": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    smallest_config.optimizer.update({**rates, "momentum": 0.0, "sam_rho": 0.1})
    mesh, model, before, train_step = set_up(smallest_config)
    batch = batch_of(smallest_config, 8)
    before = jax.device_get(before)
    loss_fn = steps.make_loss_function(smallest_config, model, None)
    given = [jnp.asarray(array) for array in (batch["image"], batch["target"])]
    images, targets = steps.augment_batch(smallest_config, before.step, *given)

    def loss(params):
        return loss_fn(params, before, images, targets)

    gradient = jax.jit(jax.grad(lambda params: loss(params)[0]))
    uphill = gradient(before.params)
    length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(uphill)))
    above = jax.tree.map(lambda value, leaf: value + 0.1 * leaf / length, before.params, uphill)
    expected = gradient(above)
    value, (_, _, changed) = loss(before.params)

    begun = jax.device_put(before, sharding.replicated(mesh))
    after, scalars = train_step(begun, sharding.put_batch(batch, mesh))
    rate = float(np.asarray(make_schedule(smallest_config, 12)(0)))
    moved = jax.tree.map(lambda a, b: (b - a) / -rate, before.params, jax.device_get(after.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), moved, expected)
    np.testing.assert_allclose(float(scalars["loss"]), value, rtol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(after.batch_stats), jax.tree.leaves(changed["batch_stats"]), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_mixed_images_and_targets_belong_together_and_depend_on_the_step(smallest_config):
    for name in ("flip", "rotation", "shift", "scale", "erase", "brightness", "contrast"):
        smallest_config.augment[name] = 0.0
    batch = batch_of(smallest_config, 8)
    batch["target"] = np.eye(8, dtype=np.float32)

    def augmented(step: int, mixup: float) -> Any:
        smallest_config.augment.mixup = mixup
        made = jax.jit(functools.partial(steps.augment_batch, smallest_config))
        return jax.device_get(made(np.int32(step), batch["image"], batch["target"]))

    plain, _ = augmented(3, 0.0)
    images, targets = augmented(3, 1.0)
    assert len(np.unique(np.diagonal(targets))) == 8
    expected = np.tensordot(targets, plain, axes=1)  # a target names the images that are in it
    np.testing.assert_allclose(images, expected, atol=1e-5)
    np.testing.assert_array_equal(augmented(3, 1.0)[1], targets)
    assert (augmented(4, 1.0)[1] != targets).any()


def test_balanced_weights_make_up_for_the_numbers_of_examples():
    # Of 4 examples in two classes three are of the first: 4 / (2 * 3) and 4 / (2 * 1).
    hard = np.eye(3, dtype=np.float32)[[0, 0, 2, 0]]
    np.testing.assert_allclose(steps.balanced_weights(hard), [2 / 3, 0, 2], rtol=1e-6)
    # Shares of 1.5 and 0.5 in two examples: 2 / (2 * 1.5) and 2 / (2 * 0.5).
    soft = np.array([[0.5, 0.5], [1, 0]], np.float32)
    weights = steps.balanced_weights(soft)
    np.testing.assert_allclose(weights, [2 / 3, 2], rtol=1e-6)
    assert (soft @ weights).sum() == pytest.approx(2)  # as many as without weights
    assert weights.dtype == np.float32


def test_class_weights_weigh_the_losses_and_nothing_else(smallest_config):
    labels = np.array([0, 1, 1, 0, 1, 1, 1, 1])  # 2 and 6
    targets = np.eye(8, dtype=np.float32)[labels]

    mesh, model, start, plain_step = set_up(smallest_config)
    optimizer = make_optimizer(smallest_config, make_schedule(smallest_config, 12))
    class_weights = np.array([1, 3] + [0] * 6, np.float32)
    weighted_step = steps.make_train_step(smallest_config, model, optimizer, mesh, class_weights)
    copy = jax.jit(lambda given: jax.tree.map(jnp.copy, given))

    def step(targets: np.ndarray, train_step=plain_step):
        batch = batch_of(smallest_config, 8) | {"target": targets}
        return jax.device_get(train_step(copy(start), sharding.put_batch(batch, mesh)))

    plain_state, plain = step(targets)
    weighted_state, weighted = step(targets, weighted_step)
    _, of_first = step(targets * (labels == 0)[:, None])  # without a target there is no loss
    for name in ("cross_entropy", "center_loss"):
        first = 8 / 2 * of_first[name]  # mean over the first class
        second = 8 / 6 * (plain[name] - of_first[name])
        expected = (2 * 1 * first + 6 * 3 * second) / (2 * 1 + 6 * 3)
        np.testing.assert_allclose(weighted[name], expected, rtol=1e-5)
        assert abs(weighted[name] / plain[name] - 1) > 1e-3
    assert weighted["accuracy"] == plain["accuracy"]
    # Other programs round otherwise: by a few units in the last place of the largest.
    np.testing.assert_allclose(weighted_state.centers, plain_state.centers, rtol=1e-6, atol=2e-7)


def test_state_centers_move_for_the_classes_present_only(smallest_config):
    mesh, _, train_state, train_step = set_up(smallest_config)
    before = np.asarray(train_state.centers)
    batch = batch_of(smallest_config, 8)
    present = np.unique(batch["target"].argmax(axis=1))
    absent = np.setdiff1d(np.arange(8), present)
    train_state, _ = train_step(train_state, sharding.put_batch(batch, mesh))
    after = np.asarray(train_state.centers)
    np.testing.assert_array_equal(after[absent], before[absent])
    assert (np.abs(after[present] - before[present]).max(axis=1) > 1e-3).all()
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1.0, rtol=1e-5)


def test_hard_labels_are_the_likeliest_class_and_ties_share_it():
    shares = jnp.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]])
    expected = [[0, 1, 0], [0.5, 0, 0.5], [0, 0, 1]]
    np.testing.assert_array_equal(losses.hard_labels(shares), expected)


def test_hard_center_labels_are_those_of_centers_alone(smallest_config):
    _, _, before, _ = set_up(smallest_config)
    rng, width = np.random.default_rng(0), smallest_config.model.embedding
    embedding, logits = (rng.normal(size=shape) for shape in ((6, width), (6, 8)))
    outputs = Outputs(jnp.asarray(logits), jnp.asarray(embedding), None)
    soft = jnp.asarray(rng.dirichlet(np.ones(8), 6))
    hard = jnp.eye(8)[soft.argmax(-1)]

    def entropy_loss_and_centers(labels: str, targets: jax.Array) -> list[jax.Array]:
        smallest_config.loss.center_labels = labels
        arguments = (before.centers, outputs.embedding, targets, jnp.ones(6))
        moved: Any = steps._move_centers(smallest_config, *arguments)
        return [*steps.example_losses(smallest_config, outputs, before.centers, targets), moved]

    of_soft, of_hard = (entropy_loss_and_centers("soft", targets) for targets in (soft, hard))
    found = entropy_loss_and_centers("hard", soft)
    for name, array, expected, other in zip(
        ("entropy", "loss", "centers"),
        found,
        (of_soft[0], *of_hard[1:]),
        (of_hard[0], *of_soft[1:]),
        strict=True,
    ):
        np.testing.assert_allclose(array, expected, rtol=1e-6, err_msg=name)
        assert np.abs(array - other).max() > 1e-3, name


def test_learned_centers_are_parameters_and_get_a_gradient(smallest_config):
    smallest_config.loss.centers = "learned"
    smallest_config.loss.name = "center_cosine_island"
    smallest_config.optimizer.warmup_epochs = 0.0
    mesh, _, train_state, train_step = set_up(smallest_config)
    assert train_state.centers is None
    before = np.asarray(train_state.class_centers())
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, rtol=1e-5)  # so that they turn
    batch = sharding.put_batch(batch_of(smallest_config, 8), mesh)
    train_state, _ = train_step(train_state, batch)
    after = np.asarray(train_state.class_centers())
    assert (np.abs(after - before).max(axis=1) > 0).all()  # absent ones too: they are repelled
    averaged = train_state.replace(ema={"params": {"centers": before}, "batch_stats": {}})
    np.testing.assert_array_equal(averaged.class_centers(), before)  # those that are scored


def test_learned_centers_of_distances_begin_as_published(smallest_config):
    smallest_config.loss.centers, smallest_config.loss.name = "learned", "affinity"
    centers = set_up(smallest_config)[2].class_centers()
    np.testing.assert_allclose(np.std(centers), 1.0, atol=0.1)  # each value of variance 1, as DAN's


@pytest.mark.parametrize("name", ["none", "cosface", "arcface"])
def test_no_center_loss_leaves_no_centers(tiny_config, name):
    tiny_config.loss.name = name
    shapes = jax.eval_shape(lambda: set_up(tiny_config)[2])
    assert shapes.class_centers() is None


def test_loss_of_a_margin_head_stands_in_place_of_the_cross_entropy():
    config = configs.get_config()
    config.loss.name, config.loss.scale, config.loss.margin = "cosface", 2.0, 0.5
    logits = jnp.array([[2.0, -1.0]])  # cosines of 1 and -1/2
    outputs = Outputs(logits, jnp.ones((1, 3)), None)
    entropy, center = steps.example_losses(config, outputs, None, jnp.array([[1.0, 0.0]]))
    np.testing.assert_allclose(entropy, [np.log(1 + np.exp(-1 - 2 * (1 - 0.5)))], rtol=1e-6)
    np.testing.assert_array_equal(center, [0.0])


def test_evaluation_counts_unmasked_examples_and_first_ones_apart(tiny_config):
    mesh, model, train_state, _ = set_up(tiny_config)
    eval_step = steps.make_eval_step(model, mesh)
    batch = batch_of(tiny_config, 12)
    batch["label"] = batch["target"].argmax(axis=1).astype(np.int32)
    batch["mask"] = np.array([1] * 9 + [0] * 3, np.float32)
    batch["first"] = np.array([1] * 5 + [0] * 7, np.float32)
    totals, probabilities = eval_step(
        train_state.eval_variables(), sharding.put_batch(batch, mesh), steps.empty_totals(8)
    )
    probabilities = np.asarray(probabilities)
    assert probabilities.shape == (12, 8)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    correct = probabilities.argmax(axis=1) == batch["label"]
    for name, count in (("all", 9), ("first", 5)):
        confusion = np.asarray(totals[name].confusion)
        assert confusion.sum() == count
        assert np.trace(confusion) == correct[:count].sum()
    expected = -np.log(probabilities[np.arange(9), batch["label"][:9]]).sum()
    np.testing.assert_allclose(float(totals["all"].loss_sum), expected, rtol=1e-4)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_and_traces_a_step(path):
    config = configs.load_config(str(path))
    configs.validate(config)
    mesh = sharding.make_mesh()
    model = state.make_model(config, 8)
    optimizer = make_optimizer(config, make_schedule(config, 100))
    train_step = steps.make_train_step(config, model, optimizer, mesh)
    fresh = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    size, side = config.train.batch_size, config.data.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, side, side, config.data.channels), jnp.uint8),
        "target": jax.ShapeDtypeStruct((size, 8), jnp.float32),
    }
    after, scalars = jax.eval_shape(train_step, fresh, batch)
    assert jax.tree.structure(after) == jax.tree.structure(fresh)
    # Were a type to change, the second step would be traced anew.
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), fresh
    )
    assert all(value.shape == () for value in scalars.values())
