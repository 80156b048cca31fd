"""What a config asks for reaches what does it: seeds, steps, splits, weights, rates."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import (
    evaluate,
    feeding,
    finish,
    loop,
    run,
    sharding,
    state,
    steps,
    subjects,
    train,
)
from dmfer_jax.data import sources
from dmfer_jax.models import resnet
from dmfer_jax.optimizer import make_optimizer, make_schedule

OFF = {"flip": 0.0, "rotation": 0.0, "shift": 0.0, "scale": 0.0, "erase": 0.0} | {
    "brightness": 0.0,
    "contrast": 0.0,
}


@pytest.fixture
def smallest(tiny_config, monkeypatch) -> Any:
    """A stage less, the deep scale alone, without attention: traced in a moment."""
    monkeypatch.setitem(resnet.BACKBONES, "resnet10", {"blocks": (1, 1, 1)})
    tiny_config.model.scales, tiny_config.model.attention = "deep", "none"
    return tiny_config


@pytest.fixture
def begin(tiny_config, data_dir, tmp_path) -> Any:
    """Returns what begins a run of the tiny experiment, which a test has changed before."""
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    return lambda: run.start_run(tiny_config, tmp_path, folder)


def trace(config: Any) -> str:
    """The text of the program of a training step."""
    model, mesh = state.make_model(config, 8), sharding.make_mesh()
    optimizer = make_optimizer(config, make_schedule(config, 12))
    size, channels = config.data.image_size, config.data.channels
    before = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    batch = {
        "image": jax.ShapeDtypeStruct((8, size, size, channels), jnp.uint8),
        "target": jax.ShapeDtypeStruct((8, 8), jnp.float32),
    }
    step: Any = steps.make_train_step(config, model, optimizer, mesh)
    return str(step.trace(before, batch).jaxpr)


CHANGED = {
    **{f"augment.{name}": 0.123 for name in OFF},
    "augment.erase_area": (0.1, 0.2),
    "augment.mixup": 0.123,
    "loss.weight": 0.123,
    "loss.scale": 12.5,
    "loss.margin": 0.123,
    "loss.center_labels": "hard",
    "loss.center_rate": 0.123,
    "loss.label_smoothing": 0.123,
    "model.dropout": 0.123,
    "optimizer.learning_rate": 0.123,
    "optimizer.momentum": 0.123,
    "optimizer.weight_decay": 0.123,
    "optimizer.layer_decay": 0.123,
    "optimizer.warmup_epochs": 1.5,
    "optimizer.clip_norm": 0.123,
    "optimizer.ema_decay": 0.123,
    "optimizer.sam_rho": 0.123,
    "train.nonfinite": "skip",
    "seed": 123,
}


def test_every_option_of_a_step_changes_it(smallest):
    before, dead = trace(smallest), []
    for path, value in CHANGED.items():
        changed = smallest.copy_and_resolve_references()
        changed.update_from_flattened_dict({path: value})
        if trace(changed) == before:
            dead.append(path)
    assert dead == []


@pytest.mark.parametrize(("step", "share"), [(0, 0.9), (80, 0.1), (10_000, 0.1)])
def test_the_average_is_short_at_first_and_then_as_long_as_it_is_asked_to_be(step, share):
    before = SimpleNamespace(
        step=jnp.asarray(step), ema={"params": jnp.zeros(2), "batch_stats": jnp.zeros(2)}
    )
    found = steps._update_ema(0.9, before, jnp.ones(2), jnp.ones(2))  # pyright: ignore[reportArgumentType]
    for name in ("params", "batch_stats"):
        np.testing.assert_allclose(found[name], share, rtol=1e-5)


def test_the_average_is_what_is_evaluated(smallest):
    model = state.make_model(smallest, 8)
    optimizer = make_optimizer(smallest, make_schedule(smallest, 12))
    first = jax.eval_shape(lambda: state.init_state(smallest, model, optimizer))
    average = {"params": {}, "batch_stats": {}}
    assert first.replace(ema=average).eval_variables() is average
    raw = first.replace(ema=None).eval_variables()
    assert raw == {"params": first.params, "batch_stats": first.batch_stats}


def test_weights_and_centers_are_those_of_the_seed(smallest):
    model = state.make_model(smallest, 8)
    optimizer = make_optimizer(smallest, make_schedule(smallest, 12))
    found = []
    for seed in (0, 0, 1):
        smallest.seed = seed
        found.append(jax.device_get(state.init_state(smallest, model, optimizer)))
    first, again, other = found
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [one.params["head"]["kernel"] for one in (first, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-2
    assert np.abs(first.centers - other.centers).max() > 1e-2


def test_augmentation_and_dropout_are_of_the_seed_and_the_step(smallest):
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)), jnp.uint8)
    targets = jnp.eye(8)
    augmented = jax.jit(
        lambda seed, step: steps.augment_batch(
            SimpleNamespace(seed=seed, augment=smallest.augment),  # pyright: ignore[reportArgumentType]
            step,
            images,
            targets,
        )[0]
    )
    smallest.model.dropout = 0.5
    model = state.make_model(smallest, 8)
    variables = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))()

    def loss(seed: int, step: int) -> float:
        smallest.seed = seed
        loss_fn = steps.make_loss_function(smallest, model, None)
        before: Any = SimpleNamespace(
            step=step, batch_stats=variables["batch_stats"], centers=jnp.eye(8, 16)
        )
        return float(loss_fn(variables["params"], before, images / 255.0, targets)[0])

    for of in (augmented, loss):
        here = np.asarray(of(0, 3))
        np.testing.assert_array_equal(here, of(0, 3))
        for seed, step in ((0, 4), (1, 3)):
            assert np.abs(here - np.asarray(of(seed, step))).max() > 1e-4, (of, seed, step)


def test_order_and_sampling_are_those_of_the_config(tiny_config, begin, monkeypatch):
    tiny_config.seed, tiny_config.data.sampling = 7, "balanced"
    asked: list[Any] = []
    monkeypatch.setattr(
        feeding.Feed, "train_batches", lambda self, size, **options: asked.append((size, options))
    )
    loop.read_batches(begin(), 5)
    ((size, options),) = asked
    assert size == tiny_config.train.batch_size
    assert (options["seed"], options["sampling"], options["start_step"]) == (7, "balanced", 5)


def test_class_weights_are_those_of_the_training_images(tiny_config, begin, monkeypatch):
    class Asked(Exception):
        pass

    def make(config, model, optimizer, mesh, class_weights=None):
        raise Asked(class_weights)

    monkeypatch.setattr(steps, "make_train_step", make)
    for name in ("none", "balanced"):
        tiny_config.loss.class_weights = name
        begun = begin()
        with pytest.raises(Asked) as asked:
            train.compile_train_step(begun, None)  # pyright: ignore[reportArgumentType]
        (found,) = asked.value.args
        if name == "none":
            assert found is None
        else:
            np.testing.assert_array_equal(found, steps.balanced_weights(begun.train.targets))


def test_only_what_is_trained_on_follows_the_protocol_of_training(
    tiny_config, begin, finished, monkeypatch
):
    honest, asked = sources.load_split, []

    def load(folder: Any, name: str, options: Any, *, train: bool) -> Any:
        asked.append((name, train))
        return honest(folder, name, options, train=train)

    monkeypatch.setattr(sources, "load_split", load)
    begun = begin()
    list(finish.feeds_to_score(begun))
    evaluate.evaluate(subjects.of_run(finished[0], "last"), ["test"])
    assert {name for name, trained in asked if trained} == {"train"}
    assert {name for name, trained in asked if not trained} >= {"valid", "test", "test_pose"}


def test_the_validation_split_is_the_one_that_is_named(tiny_config, begin):
    tiny_config.data.valid_split = "test_pose"
    tiny_config.data.test_splits = ("test",)
    begun = begin()
    assert begun.valid is not None
    assert begun.valid.name == "test_pose"
    subject = subjects.of_run(begun.workdir, "last")
    assert list(subject.choose_splits(begun.dataset_dir)) == ["test_pose"]
