"""The schedule and the update rules, worked out by hand."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from dmfer_jax.config import get_config
from dmfer_jax.optimizer import decayed, make_optimizer, make_schedule


def config(**changes: Any) -> Any:
    """100 epochs with a peak of 0.2: the rate of 0.1 is for a batch of 256, and this is 512."""
    base = get_config()
    base.update_from_flattened_dict(
        {
            "train.epochs": 100,
            "train.batch_size": 512,
            "optimizer.learning_rate": 0.1,
            "optimizer.warmup_epochs": 10.0,
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
    )
    return base


def rates(schedule: optax.Schedule, *steps: int) -> list[float]:
    return [float(np.asarray(schedule(step))) for step in steps]


def test_rate_rises_linearly_and_falls_as_half_a_cosine_to_zero():
    schedule = make_schedule(config(), 1000)  # 10 of 100 epochs: 100 of 1000 steps
    # Half way up, at the peak, half way down (cos 90 degrees), at the end.
    assert rates(schedule, 0, 50, 100, 550, 1000) == pytest.approx([0, 0.1, 0.2, 0.1, 0], abs=1e-7)
    # A third of the way down: (1 + cos 60 degrees) / 2 = 3/4.
    assert rates(schedule, 400) == pytest.approx([0.15])


@pytest.mark.parametrize(("batch_size", "peak"), [(256, 0.1), (64, 0.025)])
def test_peak_grows_with_the_batch(batch_size, peak):
    schedule = make_schedule(config(train__batch_size=batch_size), 1000)
    assert max(rates(schedule, *range(1000))) == pytest.approx(peak)


def test_run_without_warmup_begins_at_the_peak():
    schedule = make_schedule(config(optimizer__warmup_epochs=0.0), 10)
    assert rates(schedule, 0, 5, 10) == pytest.approx([0.2, 0.1, 0], abs=1e-7)


@pytest.mark.parametrize("total_steps", [1, 2, 5])
def test_run_shorter_than_its_warmup_still_reaches_the_peak_and_ends_at_zero(total_steps):
    schedule = make_schedule(config(train__epochs=5), total_steps)  # 10 epochs of warm-up
    found = rates(schedule, *range(total_steps + 1))
    assert max(found) == pytest.approx(0.2)
    assert found[-1] == pytest.approx(0, abs=1e-7)


PARAMS: Any = {
    "conv": {"kernel": np.full((2, 2), 3.0, np.float32)},
    "norm": {"scale": np.full(2, 3.0, np.float32), "bias": np.full(2, 3.0, np.float32)},
    "head": {"kernel": np.full((2, 2), 3.0, np.float32), "bias": np.full(2, 3.0, np.float32)},
    "attention": {"temperature": np.full((1, 1, 1), 3.0, np.float32)},
    "centers": np.full((2, 2), 3.0, np.float32),
}


def like_params(value: float) -> Any:
    return {
        name: {key: np.full_like(leaf, value) for key, leaf in part.items()}
        if isinstance(part, dict)
        else np.full_like(part, value)
        for name, part in PARAMS.items()
    }


def steps_of(grads: list[float], **changes: Any) -> list[Any]:
    """The updates that an optimizer with a constant rate of 0.1 makes of these gradients."""
    options = {"optimizer__clip_norm": 0.0, "optimizer__weight_decay": 0.0, **changes}
    optimizer = make_optimizer(config(**options), optax.constant_schedule(0.1))
    state, updates = optimizer.init(PARAMS), []
    for value in grads:
        update, state = optimizer.update(like_params(value), state, PARAMS)
        updates.append(update)
    return updates


def test_weight_decay_is_for_kernels_alone():
    assert decayed(PARAMS) == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
        "head": {"kernel": True, "bias": False},
        "attention": {"temperature": False},
        "centers": False,
    }


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_moves_only_what_it_is_for(name):
    (update,) = steps_of([0.0], optimizer__name=name, optimizer__weight_decay=0.5)
    for part, values in update.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            assert (np.asarray(value) != 0).all() == (key == "kernel"), (part, key)


def test_sgd_is_nesterov_with_decay_added_to_the_gradient():
    updates = steps_of([1.0, 2.0], optimizer__momentum=0.9, optimizer__weight_decay=0.5)
    # Kernels: g = 1 + 0.5 * 3 = 2.5, then 3.5. Velocity v = g + 0.9 v: 2.5, then 5.75.
    # Nesterov goes by g + 0.9 v.
    kernels = [update["conv"]["kernel"][0, 0] for update in updates]
    assert kernels == pytest.approx([-0.1 * (2.5 + 0.9 * 2.5), -0.1 * (3.5 + 0.9 * 5.75)])
    # Biases: g = 1, then 2; v = 1, then 2.9.
    biases = [update["head"]["bias"][0] for update in updates]
    assert biases == pytest.approx([-0.1 * (1 + 0.9), -0.1 * (2 + 0.9 * 2.9)])


def test_adamw_goes_by_the_sign_at_first_and_decays_apart_from_the_gradient():
    (update,) = steps_of([7.0], optimizer__name="adamw", optimizer__weight_decay=0.5)
    assert update["head"]["bias"][0] == pytest.approx(-0.1, rel=1e-5)
    assert update["head"]["kernel"][0, 0] == pytest.approx(-0.1 * (1 + 0.5 * 3), rel=1e-5)


@pytest.mark.parametrize(("gradient", "share"), [(3.0, 1 / 3), (0.5, 1.0)])
def test_whole_gradient_is_clipped_to_the_norm(gradient, share):
    count = 4 + 4 + 6 + 1 + 4  # numbers in PARAMS: a gradient of only g is g * sqrt(19) long
    updates = steps_of(
        [gradient], optimizer__clip_norm=float(np.sqrt(count)), optimizer__momentum=0.0
    )
    assert updates[0]["centers"][0, 0] == pytest.approx(-0.1 * gradient * share)


DEEP: Any = {
    "backbone": {
        "stem": {"conv": {"kernel": np.full((1, 1, 1, 2), 3.0, np.float32)}},
        **{
            f"stage{stage}_block{block}": {
                "conv1": {"conv": {"kernel": np.full(2, 3.0, np.float32)}}
            }
            for stage in range(1, 5)
            for block in (1, 2)
        },
    },
    "two_scale": {"deep": {"conv": {"kernel": np.full(2, 3.0, np.float32)}}},
    "head": {"kernel": np.full(2, 3.0, np.float32), "bias": np.full(2, 3.0, np.float32)},
    "centers": np.full(2, 3.0, np.float32),
}


def deep_updates(frozen_stages: int = 0, **changes: Any) -> tuple[Any, Any]:
    """The second updates of DEEP for gradients of 1, and the optimizer's state then."""
    options = {
        "optimizer__clip_norm": 0.0,
        "model__frozen_stages": frozen_stages,
        **changes,
    }
    optimizer = make_optimizer(config(**options), optax.constant_schedule(0.1))
    grads = jax.tree.map(np.ones_like, DEEP)
    _, opt_state = optimizer.update(grads, optimizer.init(DEEP), DEEP)
    return optimizer.update(grads, opt_state, DEEP)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_layer_decay_lowers_the_rate_stage_by_stage(name):
    plain, _ = deep_updates(optimizer__name=name)
    scaled, _ = deep_updates(optimizer__name=name, optimizer__layer_decay=0.5)
    ratios = jax.tree.map(lambda a, b: float(np.asarray(a / b).flat[0]), scaled, plain)
    powers = {"stem": 5, "stage1": 4, "stage2": 3, "stage3": 2, "stage4": 1}
    for part, ratio in ratios["backbone"].items():
        expected = 0.5 ** powers[part.split("_")[0]]
        assert jax.tree.leaves(ratio) == pytest.approx([expected], rel=1e-6), part
    above = {part: ratio for part, ratio in ratios.items() if part != "backbone"}
    assert jax.tree.leaves(above) == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_frozen_stages_get_no_update_no_decay_and_no_momentum(name, stages):
    plain, _ = deep_updates(optimizer__name=name, optimizer__weight_decay=0.5)
    updates, opt_state = deep_updates(stages, optimizer__name=name, optimizer__weight_decay=0.5)
    frozen = {"stem", *(f"stage{stage}" for stage in range(1, stages + 1))}
    for path, update in jax.tree.leaves_with_path(updates):
        part = path[1].key.split("_")[0] if path[0].key == "backbone" else path[0].key
        expected = jax.tree.leaves_with_path(plain)
        (full,) = [value for other, value in expected if other == path]
        np.testing.assert_allclose(update, 0 * full if part in frozen else full, rtol=1e-6)
    held = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(opt_state)]
    assert not [name for name in held if "'stem'" in name or "stage1" in name]
    assert [name for name in held if "two_scale" in name]


def test_clipping_is_by_the_gradient_of_what_learns():
    # 4 of 24 numbers are frozen with stage 1 (2 blocks of 2), and 2 with the stem.
    learning = 2 * 6 + 2 + 4 + 2
    updates, _ = deep_updates(
        1, optimizer__clip_norm=float(np.sqrt(learning)) / 2, optimizer__momentum=0.0,
        optimizer__weight_decay=0.0,
    )  # fmt: skip
    assert updates["centers"][0] == pytest.approx(-0.1 * 0.5, rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_without_fine_tuning_the_optimizers_state_is_as_it_was(name):
    options = config(optimizer__name=name)
    schedule = optax.constant_schedule(0.1)
    parts = [optax.clip_by_global_norm(5.0)]
    if name == "sgd":
        parts += [optax.add_decayed_weights(5e-4, mask=decayed)]
        parts += [optax.sgd(schedule, momentum=0.9, nesterov=True)]
    else:
        parts += [optax.adamw(schedule, weight_decay=5e-4, mask=decayed)]
    before = optax.chain(*parts).init(PARAMS)
    after = make_optimizer(options, schedule).init(PARAMS)
    assert jax.tree.structure(before) == jax.tree.structure(after)
