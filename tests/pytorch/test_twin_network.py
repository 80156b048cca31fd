"""The network and its losses are the same functions in PyTorch and in JAX."""
# pyright: reportMissingImports=false

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the twin needs the torch extra")

from dmfer_jax import losses, state, steps  # noqa: E402
from dmfer_jax.data import augment  # noqa: E402
from dmfer_jax.errors import UserError  # noqa: E402
from dmfer_jax.loss_options import has_centers  # noqa: E402
from dmfer_jax.optimizer import make_optimizer, make_schedule  # noqa: E402
from dmfer_jax.pytorch import losses as twin_losses  # noqa: E402
from dmfer_jax.pytorch import model as twin_model  # noqa: E402
from dmfer_jax.pytorch import training as twin_training  # noqa: E402
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict  # noqa: E402
from tests.pytorch.both import (  # noqa: E402
    CLASSES,
    draw_batch,
    make_both,
    tiny,
    to_tensor,
    use_one_block_a_stage,
)

pytestmark = pytest.mark.usefixtures("convolve_as_users_do")


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_block_a_stage(monkeypatch)


def assert_near(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-4) -> None:
    """Compares by name, relative to the largest number of each array."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        scale = float(np.abs(values).max())
        np.testing.assert_allclose(
            found[name], values, rtol=0, atol=tolerance * scale, err_msg=name
        )


VARIANTS: list[dict[str, Any]] = [
    {},
    {
        "model__stem": "imagenet",
        "model__depthwise": True,
        "data__channels": 1,
        "loss__centers": "learned",
        "loss__name": "center_cosine_island",
        "loss__label_smoothing": 0.1,
    },
    {
        "model__backbone": "resnet50",
        "model__attention": "none",
        "model__scales": "deep",
        "loss__name": "none",
    },
    {
        "model__attention": "squeeze_excite",
        "model__compress": "top",
        "model__shallow_stage": 2,
        "model__stem_stride": 1,
        "loss__name": "center_cosine_triplet",
    },
    {
        "model__scales": "shallow",
        "model__shallow_stage": 1,
        "model__compress": "top",
        "model__heads": 4,
        "loss__name": "center",
        "loss__weight": 0.01,
    },
    # Where the network or the loss is another: compiled in seconds, of the deep scale alone.
    *(
        {"model__scales": "deep", "model__attention": "none", **changes}
        for changes in (
            {
                "loss__name": "attentive_center",
                "loss__weight": 0.01,
                "model__stem": "imagenet",
                "model__compress": "top",
                "data__image_size": 70,  # halved with rounding
            },
            {"loss__name": "affinity", "loss__weight": 0.01, "loss__centers": "learned"},
            {"loss__name": "cosface", "loss__scale": 16.0, "loss__label_smoothing": 0.1},
            {"loss__name": "arcface", "loss__margin": 0.5, "model__flip_average": True},
        )
    ),
    {"model__backbone": "face_resnet", "data__image_size": 75, "model__width": 0.25},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda value: "-".join(map(str, value.values())))
def test_outputs_and_gradients_are_equal(changes):
    config = tiny(**changes)
    model, variables, twin = make_both(config)
    images, targets, centers = draw_batch(config)
    by_rule = has_centers(config.loss) and config.loss.centers == "state"

    def loss_of(params: Any, images: Any) -> Any:
        outputs, _ = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        rule_centers = jnp.asarray(centers) if by_rule else None
        entropy, center = steps.example_losses(config, outputs, rule_centers, jnp.asarray(targets))
        return entropy.mean() + config.loss.weight * center.mean(), outputs

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def everything(params: Any, images: Any) -> Any:
        evaluated = model.apply({**variables, "params": params}, images)
        return evaluated, jax.value_and_grad(loss_of, has_aux=True)(params, images)

    evaluated, ((loss, trained), grads) = jax.device_get(
        everything(variables["params"], augment.normalize(jnp.asarray(images)))
    )
    trainer = twin_training.Trainer(
        config, twin, 1, centers=torch.from_numpy(centers) if by_rule else None
    )
    with torch.inference_mode():
        twin_evaluated = twin.eval()(to_tensor(images))
    twin_trained = twin.train()(to_tensor(images))
    entropy, center = trainer._example_losses(twin_trained, torch.from_numpy(targets))
    twin_loss = entropy + config.loss.weight * center
    twin_loss.backward()

    for one, other in ((twin_evaluated, evaluated), (twin_trained, trained)):
        given, expected = one._asdict(), other._asdict()
        found = {n: tensor.detach().numpy() for n, tensor in given.items() if tensor is not None}
        assert_near(found, {n: array for n, array in expected.items() if array is not None})
    assert twin_loss.item() == pytest.approx(float(loss), rel=1e-4)
    # PyTorch leaves no gradient where Flax has zeros: in stages that nothing reads.
    found = {
        name: np.zeros(one.shape) if one.grad is None else one.grad.numpy()
        for name, one in twin.named_parameters()
    }
    # On another number of cores sums are rounded otherwise: gradients differed by up to 1.8e-4.
    assert_near(found, to_state_dict({"params": grads}), tolerance=4e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "face_resnet"])
def test_every_backbone_has_the_same_parts(backbone, monkeypatch):
    monkeypatch.undo()  # all the blocks
    config = tiny(model__backbone=backbone)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    model = state.make_model(config, CLASSES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    expected = jax.tree.map(lambda leaf: leaf.shape, shapes)
    twin = twin_model.make_model(config, CLASSES)
    assert jax.tree.map(np.shape, from_state_dict(twin.state_dict())) == expected


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_losses_take_the_same_options_and_give_the_same(name):
    assert set(twin_losses.LOSSES) == set(losses.LOSSES)
    function, inputs, fields = losses.LOSSES[name]
    twin, *others = twin_losses.LOSSES[name]
    assert others == [inputs, fields]
    _, targets, centers = draw_batch(tiny())
    rng = np.random.default_rng(1)
    embedding = rng.normal(0, 2, (8, 16)).astype(np.float32)
    embedding[0] = 0  # without a direction
    given = {
        "embedding": embedding,
        "centers": centers,
        "attention": rng.uniform(0, 1, (8, 16)).astype(np.float32),
        "logits": 0.3 * np.cos(rng.uniform(0, np.pi, (8, CLASSES))).astype(np.float32),
    }
    given["logits"][0, 0], given["logits"][1, 1] = 0.3, -0.3  # cosines of 1 and -1
    arguments = dict.fromkeys(fields, 0.3)
    arrays = [given[name] for name in inputs]

    def total(*arrays: Any) -> Any:
        return function(*arrays, jnp.asarray(targets), **arguments).sum()

    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    found = twin(*tensors, torch.from_numpy(targets), **arguments)
    expected = function(*map(jnp.asarray, arrays), jnp.asarray(targets), **arguments)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5, atol=1e-5)
    found.sum().backward()
    grads = jax.grad(total, argnums=tuple(range(len(arrays))))(*map(jnp.asarray, arrays))
    for name, tensor, grad in zip(inputs, tensors, grads, strict=True):
        # Of an embedding without a direction, and of a cosine of 1, the gradient is a convention.
        rows = slice(1, None) if name in ("embedding", "logits") else slice(None)
        np.testing.assert_allclose(tensor.grad[rows], grad[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", [True, False])
def test_centers_move_alike_and_those_without_examples_stay(unit):
    _, _, centers = draw_batch(tiny())
    embedding = np.random.default_rng(1).normal(0, 2, (8, 16)).astype(np.float32)
    targets = np.eye(CLASSES, dtype=np.float32)[[0, 0, 1, 2, 3, 3, 3, 6]]
    arrays = (jnp.asarray(centers), jnp.asarray(embedding), jnp.asarray(targets), jnp.ones(8))
    expected = losses.update_centers(*arrays, rate=0.3, unit=unit)
    found = torch.from_numpy(centers.copy())
    twin_losses.update_centers(
        found, torch.from_numpy(embedding), torch.from_numpy(targets), rate=0.3, unit=unit
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[[4, 5, 7]], centers[[4, 5, 7]])


@pytest.mark.parametrize("name", ["center_cosine", "affinity"])
def test_learned_centers_begin_with_the_same_lengths(name):
    config = tiny(loss__name=name, loss__centers="learned", model__embedding=128)
    optimizer = make_optimizer(config, make_schedule(config, 1))
    first = state.init_state(config, state.make_model(config, CLASSES), optimizer)
    centers = (first.class_centers(), twin_model.make_model(config, CLASSES).centers.detach())
    lengths = [np.sqrt(np.mean(np.sum(np.square(np.asarray(each)), -1))) for each in centers]
    np.testing.assert_allclose(*lengths, rtol=0.1)


def test_network_computes_channels_last():
    config = tiny(model__stem="imagenet", model__depthwise=True)
    twin = twin_model.make_model(config, CLASSES)
    seen = []
    for module in twin.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    twin(to_tensor(draw_batch(tiny())[0]))
    assert len(seen) == sum(isinstance(m, torch.nn.Conv2d) for m in twin.modules())
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in seen)


def test_bfloat16_is_refused():
    with pytest.raises(UserError, match=r"config\.model\.dtype=float32"):
        twin_model.make_model(tiny(model__dtype="bfloat16"), CLASSES)
