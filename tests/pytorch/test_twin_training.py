"""A training step is the same in PyTorch and in JAX: losses, update, centers, moving average."""
# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the twin needs the torch extra")

from dmfer_jax import sharding, state, steps  # noqa: E402
from dmfer_jax.models import vectors  # noqa: E402
from dmfer_jax.optimizer import decayed, make_optimizer, make_schedule  # noqa: E402
from dmfer_jax.pytorch import model as twin_model  # noqa: E402
from dmfer_jax.pytorch import training as twin_training  # noqa: E402
from dmfer_jax.weights.pytorch import to_state_dict  # noqa: E402
from tests.pytorch.both import (  # noqa: E402
    CLASSES,
    draw_batch,
    make_both,
    tiny,
    to_tensor,
    use_one_block_a_stage,
)

pytestmark = pytest.mark.usefixtures("convolve_as_users_do")

STEPS = 5


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_block_a_stage(monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "optimizer__name": "sgd",
            "optimizer__learning_rate": 2.0,  # 0.06 at this batch size
            "optimizer__clip_norm": 0.5,
            "optimizer__ema_decay": 0.9,
            "loss__name": "attentive_center",
            "optimizer__layer_decay": 0.9,
            "model__frozen_stages": 1,
        },
        {"optimizer__name": "adamw", "optimizer__clip_norm": 0.0, "optimizer__learning_rate": 0.03},
        {"optimizer__name": "sgd", "optimizer__learning_rate": 1.0, "optimizer__sam_rho": 0.05},
        {"optimizer__name": "sgd", "loss__center_labels": "hard"},
    ],
    ids=["sgd", "adamw", "sam", "hard"],
)
def test_training_gives_the_same_losses_and_the_same_state(changes):
    config = tiny(optimizer__warmup_epochs=0.4, optimizer__weight_decay=0.05, **changes)
    model, variables, twin = make_both(config)
    images, targets, centers = draw_batch(config)
    centers = np.array(vectors.unit(jnp.asarray(centers)))
    class_weights = np.linspace(0.5, 1.5, CLASSES, dtype=np.float32)
    optimizer = make_optimizer(config, make_schedule(config, STEPS))
    train_state = state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        centers=jnp.asarray(centers),
        opt_state=optimizer.init(variables["params"]),
        ema=jax.tree.map(np.copy, variables) if config.optimizer.ema_decay else None,
        skipped=jnp.zeros((), jnp.int32),
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    train_step = steps.make_train_step(config, model, optimizer, mesh, class_weights)
    trainer = twin_training.Trainer(
        config,
        twin,
        STEPS,
        centers=torch.from_numpy(centers),
        class_weights=torch.from_numpy(class_weights),
    )
    values_a_channel = count_values_a_channel(twin)
    train_state = jax.device_put(train_state, sharding.replicated(mesh))
    batch = {"image": images, "target": targets}
    curve, twin_curve = [], []
    for _ in range(STEPS):
        train_state, scalars = train_step(train_state, sharding.put_batch(batch, mesh))
        curve.append({name: float(value) for name, value in scalars.items()})
        scalars = trainer.step(to_tensor(images), torch.from_numpy(targets))
        twin_curve.append({name: float(value) for name, value in scalars.items()})

    for found, expected in zip(twin_curve, curve, strict=True):
        known = {name: expected[name] for name in found}  # the log has more of ours
        assert found == pytest.approx(known, rel=1e-4)
    assert curve[-1]["loss"] < 0.99 * curve[0]["loss"]
    np.testing.assert_allclose(
        np.asarray(trainer.centers), np.asarray(train_state.centers), atol=1e-4
    )
    after = {"params": train_state.params, "batch_stats": train_state.batch_stats}
    kept, kept_in_average = shares_of_the_first_variance(config.optimizer.ema_decay)
    frozen = ("backbone.stem", "backbone.stage1") if config.model.frozen_stages else ()
    compare_state(twin.state_dict(), after, variables, values_a_channel, kept, frozen)
    assert (trainer.ema is None) == (train_state.ema is None)
    if trainer.ema is not None:
        average = (trainer.ema, train_state.ema)
        compare_state(*average, variables, values_a_channel, kept_in_average, frozen)


def shares_of_the_first_variance(decay: float) -> tuple[float, float]:
    """Returns how much of a variance before training is left in it, and in its moving average."""
    running = average = 1.0
    for step in range(STEPS):
        running *= 0.9
        average += (1 - min(decay, (1 + step) / (10 + step))) * (running - average)
    return running, average


def compare_state(
    tensors: dict[str, Any],
    after: dict[str, Any],
    before: dict[str, Any],
    values_a_channel: dict[str, int],
    kept: float,
    frozen: tuple[str, ...] = (),
) -> None:
    """Compares a state dict with Flax's variables: the same but for n / (n - 1) of variances."""
    expected = to_state_dict(after)
    for name, first in to_state_dict(before).items():
        values = expected[name]
        if name.startswith(frozen):
            np.testing.assert_array_equal(tensors[name], first, err_msg=name)
            np.testing.assert_array_equal(values, first, err_msg=name)
            continue
        if name.endswith("running_var"):
            count = values_a_channel[name.removesuffix(".running_var")]
            values = kept * first + count / (count - 1) * (values - kept * first)
        np.testing.assert_allclose(tensors[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
        if not name.endswith("running_var"):
            assert np.abs(values - first).max() > 1e-4, name


def count_values_a_channel(twin: Any) -> dict[str, int]:
    """Returns a dict that fills as `twin` runs: BatchNorm -> values per channel in a batch."""
    counts = {}
    for name, module in twin.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: counts.__setitem__(
                    name, inputs[0].numel() // inputs[0].shape[1]
                )
            )
    return counts


@pytest.mark.parametrize(
    ("warmup_epochs", "total_steps"), [(0.0, 10), (0.25, 10), (0.25, 100), (5.0, 3), (5.0, 1)]
)
def test_rates_are_the_same(warmup_epochs, total_steps):
    config = tiny(optimizer__warmup_epochs=warmup_epochs)
    twin = torch.nn.Linear(2, 2)
    optimizer = twin_training.make_optimizer(config.optimizer, twin)
    twin_schedule = twin_training.make_schedule(config, optimizer, total_steps)
    schedule = make_schedule(config, total_steps)
    for step in range(total_steps + 2):
        rate = optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(float(np.asarray(schedule(step))), rel=1e-5, abs=1e-9)
        optimizer.step()
        twin_schedule.step()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss__centers": "learned", "model__depthwise": True},
        {"loss__name": "attentive_center"},
        {"loss__name": "cosface"},
    ],
)
def test_weight_decay_is_for_the_same_parameters(changes):
    config = tiny(**changes)
    _, variables, twin = make_both(config)
    groups = twin_training.make_optimizer(config.optimizer, twin).param_groups
    names = {id(parameter): name for name, parameter in twin.named_parameters()}
    found = {names[id(parameter)] for parameter in groups[0]["params"]}
    # Marks every leaf, so that names can be carried over.
    flags = jax.tree.map(
        lambda leaf, flag: np.full(leaf.shape, flag),
        variables["params"],
        decayed(variables["params"]),
    )
    assert found == {name for name, a in to_state_dict({"params": flags}).items() if a.all()}
    assert [group["weight_decay"] for group in groups] == [config.optimizer.weight_decay, 0.0]


def test_rates_fall_from_stage_to_stage_and_what_is_frozen_has_none():
    config = tiny(model__frozen_stages=1, optimizer__layer_decay=0.5)
    twin = twin_model.make_model(config, CLASSES)
    names = {id(parameter): name for name, parameter in twin.named_parameters()}
    rates = {
        names[id(parameter)]: group["lr"]
        for group in twin_training.make_optimizer(config.optimizer, twin).param_groups
        for parameter in group["params"]
    }
    expected = {"backbone.stage2_block1.conv1.conv.weight": 0.125, "head.weight": 1.0}
    expected |= {"backbone.stage3_block1.conv2.norm.bias": 0.25, "two_scale.deep.conv.weight": 1.0}
    assert {name: rates[name] for name in expected} == expected
    assert not [name for name in rates if name.startswith(("backbone.stem", "backbone.stage1"))]
