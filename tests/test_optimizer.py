"""The schedule and the update rules, worked out by hand."""

from typing import Any

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
    optimizer = make_optimizer(config(**options).optimizer, optax.constant_schedule(0.1))
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
