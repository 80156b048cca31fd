"""The plain network and the one in the manner of DAN: what they compute, and that they learn."""
# pyright: reportMissingImports=false

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the baselines need the torch extra")

from dmfer_jax import state  # noqa: E402
from dmfer_jax.models import summary  # noqa: E402
from dmfer_jax.pytorch import dan, systems  # noqa: E402
from dmfer_jax.pytorch.resnet import make_config_backbone  # noqa: E402
from dmfer_jax.weights.pytorch import to_state_dict  # noqa: E402
from tests.pytorch.both import (  # noqa: E402
    CLASSES,
    draw_batch,
    make_both,
    tiny,
    use_one_block_a_stage,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_block_a_stage(monkeypatch)


def baseline_config(**changes: Any) -> Any:
    return tiny(loss__name="none", optimizer__learning_rate=1.0, **changes)  # 0.03 at this batch


def normalized(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 127.5 - 1


def test_partition_falls_as_heads_differ_and_stays_finite_where_they_agree():
    heads = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    # Variance 4/3 of the first channel, 0 of the second: a mean of 2/3.
    assert dan.partition_loss(heads).item() == pytest.approx(math.log(1 + 4 / (2 / 3)))
    assert dan.partition_loss(2 * heads) < dan.partition_loss(heads)
    same = torch.zeros(2, 4, 3, requires_grad=True)
    loss = dan.partition_loss(same)
    loss.backward()
    assert loss.isfinite()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_dan_gives_attention_shared_among_heads_and_every_part_learns():
    config = baseline_config()
    network = dan.DanNetwork(config, CLASSES)
    images, targets, _ = draw_batch(config)
    x = torch.tensor(normalized(images)).permute(0, 3, 1, 2)
    outputs = network(x)
    channels = make_config_backbone(config).stage_channels[-1]
    assert outputs.logits.shape == (8, CLASSES)
    assert outputs.embedding.shape == (8, channels)
    assert outputs.heads.shape == (8, dan.HEADS, channels)
    np.testing.assert_allclose(outputs.heads.exp().sum(1).detach(), 1, rtol=1e-5)
    (outputs.logits.square().sum() + dan.dan_loss(outputs, torch.tensor(targets)).sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("system", ["plain_torch", "dan_torch"])
def test_a_baseline_learns_a_few_images_by_heart(system):
    config = baseline_config(optimizer__warmup_epochs=0.0)
    trainer = systems.new_trainer(system, config, CLASSES, 60)
    images, _, _ = draw_batch(config)
    targets = np.eye(CLASSES, dtype=np.float32)
    scalars = {}
    for _ in range(30):
        scalars = systems.train_on(trainer, normalized(images), targets)
    assert np.asarray(scalars["accuracy"]) == 1.0
    assert np.asarray(scalars["cross_entropy"]) < 1.0
    assert np.asarray(scalars["skipped"]) == 0
    logits = systems.predict(trainer.model, trainer.eval_variables(), normalized(images))
    assert logits.shape == (8, CLASSES)
    assert trainer.model.training


def test_a_step_that_is_not_finite_is_counted():
    config = baseline_config()
    trainer = systems.new_trainer("plain_torch", config, CLASSES, 4)
    images, targets, _ = draw_batch(config)
    bad = normalized(images)
    bad[0, 0, 0, 0] = np.nan
    counts = [
        int(np.asarray(systems.train_on(trainer, x, targets)["skipped"]))
        for x in (normalized(images), bad)
    ]
    assert counts == [0, 1]


@pytest.mark.parametrize("system", ["dmfer_torch", "plain_torch", "dan_torch"])
def test_systems_begin_with_our_weights_as_far_as_they_have_them(system):
    config = tiny(optimizer__ema_decay=0.9) if system == "dmfer_torch" else baseline_config()
    _, variables, _ = make_both(config)
    weights = to_state_dict(variables)
    trainer = systems.new_trainer(system, config, CLASSES)
    _, _, centers = draw_batch(config)
    systems.begin_with(trainer, weights, centers)
    found = trainer.model.state_dict()
    shared = [n for n in weights if system == "dmfer_torch" or n.startswith("backbone.")]
    assert len(shared) > 10
    for name in shared:
        np.testing.assert_array_equal(found[name], weights[name], err_msg=name)
    if system == "dmfer_torch":
        np.testing.assert_array_equal(trainer.centers, centers)
        average = trainer.eval_variables()["head.weight"]
        assert average is not trainer.model.get_parameter("head.weight")
        np.testing.assert_array_equal(average, weights["head.weight"])


def test_size_is_counted_as_our_summary_counts():
    config = tiny(model__depthwise=True)
    expected = summary.summarize(state.make_model(config, CLASSES), 32, 3)
    twin = systems.new_trainer("dmfer_torch", config, CLASSES).model
    found = systems.measure(twin, 32, 3)
    assert found == {"parameters": expected.parameters, "flops": expected.flops}


def test_dropout_is_drawn_anew_for_each_step_from_the_seed():
    config = baseline_config(model__dropout=0.5)
    images, targets, _ = draw_batch(config)

    def losses(first: int) -> list[float]:
        trainer = systems.new_trainer("plain_torch", config, CLASSES, 10)
        trainer.optimizer.param_groups[0]["lr"] = 0.0
        trainer.steps = first
        torch.manual_seed(first)  # of whatever else has drawn numbers
        return [
            float(np.asarray(systems.train_on(trainer, normalized(images), targets)["loss"]))
            for _ in range(2)
        ]

    assert losses(3)[0] == losses(3)[0]
    assert losses(3)[0] != losses(4)[0]


@pytest.mark.parametrize("system", ["plain_torch", "dan_torch"])
def test_flip_average_makes_an_image_and_its_mirror_image_the_same(system):
    config = baseline_config(model__flip_average=True)
    network = systems.new_trainer(system, config, CLASSES).model
    images = normalized(draw_batch(config)[0])
    variables = dict(network.state_dict())
    mirror = np.ascontiguousarray(images[:, :, ::-1])
    found, mirrored = (systems.predict(network, variables, x) for x in (images, mirror))
    np.testing.assert_allclose(found, mirrored, rtol=1e-4, atol=1e-5)
    once = systems.new_trainer(system, baseline_config(), CLASSES).model
    assert np.abs(systems.predict(once, variables, images) - found).max() > 1e-3
