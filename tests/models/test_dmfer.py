"""The whole network: its shapes, its parameters under every ablation, and what it keeps apart."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.models.dmfer import Dmfer, Outputs, keep_top_channels
from tests.models.variables import draw_variables

pytestmark = pytest.mark.usefixtures("convolve_as_users_do")

CLASSES = 8
# Compiling is nearly all that these tests wait for: half as long when nothing is optimised.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

IMAGES = jax.ShapeDtypeStruct((3, 32, 32, 3), jnp.float32)


def tiny(**changes: Any) -> Dmfer:
    """Stages of 8, 16, 32 and 64 channels; at 32 pixels 16 x 16 to 2 x 2; an embedding of 16."""
    options: dict[str, Any] = {
        "stem": "small",
        "stem_stride": 2,
        "width": 0.125,
        "embedding": 16,
        "heads": 2,
    }
    return Dmfer(CLASSES, **{**options, **changes})


def trace(model: Dmfer, images: jax.ShapeDtypeStruct = IMAGES) -> tuple[Outputs, Any]:
    return jax.eval_shape(
        lambda images: model.init_with_output(jax.random.key(0), images, True),
        images,
    )


def count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("size", "channels"), [(112, 3), (48, 1), (224, 3), (65, 1)])
def test_any_size_and_channels_give_logits_and_embedding(size, channels):
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    outputs, _ = trace(tiny(stem="imagenet"), images)
    assert outputs.logits.shape == (2, CLASSES)
    assert outputs.embedding.shape == (2, 16)
    assert outputs.centers is None


def test_parameters_of_the_default_network_by_hand():
    images = jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)
    _, variables = trace(Dmfer(CLASSES), images)
    c = 512
    expected = {
        "backbone": 11_176_512,  # see test_resnet
        # From stage 2 (128 channels) two strided 3x3 convolutions and a 1x1; from stage 4 a 1x1.
        # A BatchNorm behind each has two numbers a channel.
        "two_scale": 2 * (9 * 128 * 128 + 2 * 128) + (128 * c + 2 * c) + (c * c + 2 * c),
        "attention": 3 * (2 * c) ** 2 + 8,  # q, k, v on both scales; 8 temperatures
        "compress": 2 * c * c + 2 * c,
        "head": c * CLASSES + CLASSES,
    }
    found = {name: count(part) for name, part in variables["params"].items()}
    assert found == expected
    assert sum(found.values()) == 15_476_816


# What the parts of `tiny()` hold. A scale has 16 channels, so attention works on 32.
DEEP = 64 * 16 + 32
BASE = {
    "two_scale": 2 * (9 * 16 * 16 + 32) + (16 * 16 + 32) + DEEP,
    "attention": 3 * 32 * 32 + 2,
    "compress": 32 * 16 + 32,
    "head": 16 * CLASSES + CLASSES,
}
ABLATIONS: list[tuple[dict[str, Any], dict[str, int | None]]] = [
    ({}, {}),
    (
        {"scales": "deep"},
        {"two_scale": DEEP, "attention": 3 * 16 * 16 + 2, "compress": 16 * 16 + 32},
    ),
    (
        {"scales": "shallow"},
        {
            "two_scale": BASE["two_scale"] - DEEP,
            "attention": 3 * 16 * 16 + 2,
            "compress": 16 * 16 + 32,
        },
    ),
    ({"shallow_stage": 1}, {"two_scale": 3 * (9 * 8 * 8 + 16) + (8 * 16 + 32) + DEEP}),
    ({"shallow_stage": 3}, {"two_scale": (9 * 32 * 32 + 64) + (32 * 16 + 32) + DEEP}),
    ({"attention": "none"}, {"attention": None}),
    ({"attention": "squeeze_excite"}, {"attention": (32 * 8 + 8) + (8 * 32 + 32)}),
    ({"heads": 4}, {"attention": 3 * 32 * 32 + 4}),
    ({"depthwise": True}, {"attention": 3 * 32 * 32 + 3 * 9 * 32 + 2}),
    ({"compress": "top"}, {"compress": None}),
    ({"learned_centers": True}, {"centers": CLASSES * 16}),
    ({"cosine_scale": 64.0}, {"head": 16 * CLASSES}),
    # From 2 x 2 x 16 to 16, to 64 and, by a linear layer, to 16.
    ({"attentive": True}, {"attentive": 64 * 16 + 32 + 16 * 64 + 128 + 64 * 16 + 16}),
    ({"flip_average": True}, {}),
]


@pytest.mark.parametrize(("changes", "differences"), ABLATIONS, ids=lambda value: str(value))
def test_each_switch_changes_the_parts_that_it_names(changes, differences):
    outputs, variables = trace(tiny(**changes))
    found = {name: count(part) for name, part in variables["params"].items() if name != "backbone"}
    assert found == {k: v for k, v in {**BASE, **differences}.items() if v is not None}
    assert outputs.embedding.shape == (3, 16)
    assert (outputs.centers is None) == ("learned_centers" not in changes)
    assert (outputs.attention is None) == ("attentive" not in changes)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_every_backbone_fits(backbone):
    outputs, _ = trace(tiny(backbone=backbone))
    assert outputs.logits.shape == (3, CLASSES)


def test_bfloat16_gives_float32_outputs_parameters_and_statistics():
    parts: dict[str, Any] = {"learned_centers": True, "attentive": True, "cosine_scale": 64.0}
    outputs, variables = trace(tiny(dtype=jnp.bfloat16, **parts))
    leaves = jax.tree.leaves((outputs, variables))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def variables() -> dict[str, Any]:
    return draw_variables(tiny(), IMAGES)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, IMAGES.shape).astype(np.float32)


@pytest.fixture(scope="module")
def predict() -> Any:
    return jit(tiny().apply)


def test_prediction_of_an_image_does_not_depend_on_the_rest_of_the_batch(
    variables, images, predict
):
    others = images.copy()
    others[1:] = 5.0
    found, expected = predict(variables, others), predict(variables, images)
    np.testing.assert_array_equal(found.logits[0], expected.logits[0])
    np.testing.assert_array_equal(found.embedding[0], expected.embedding[0])
    assert np.abs(found.logits[1] - expected.logits[1]).max() > 1e-3


@pytest.fixture(scope="module")
def train() -> Any:
    """Gradient with respect to the parameters, and outputs, with dropout; takes a key for it."""
    model: Any = tiny(dropout=0.5)

    def loss(params: Any, batch_stats: Any, images: Any, key: Any) -> Any:
        outputs, _ = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return jnp.sum(jax.nn.log_softmax(outputs.logits)[:, 0]), outputs

    return jit(jax.grad(loss, has_aux=True))


def test_every_parameter_receives_gradient(variables, images, train):
    grads, _ = train(variables["params"], variables["batch_stats"], images, jax.random.key(0))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 0, jax.tree_util.keystr(path)


def test_dropout_acts_on_the_logits_and_not_on_the_embedding(variables, images, train):
    # The centers are learned from all of the embedding.
    (_, a), (_, b) = (
        train(variables["params"], variables["batch_stats"], images, jax.random.key(seed))
        for seed in range(2)
    )
    assert np.abs(a.logits - b.logits).max() > 1e-3
    np.testing.assert_array_equal(a.embedding, b.embedding)
    assert (np.asarray(a.embedding) != 0).all()


def test_bfloat16_agrees_with_float32(variables, images, predict):
    short = jit(tiny(dtype=jnp.bfloat16).apply)(variables, images)
    long = predict(variables, images)
    # 8 bits of mantissa, through about 25 layers.
    scale = np.abs(long.logits).max()
    np.testing.assert_allclose(short.logits, long.logits, atol=0.05 * scale)


def test_cosine_head_gives_scaled_cosines_and_attention_lies_between_0_and_1(images):
    model = tiny(cosine_scale=64.0, attentive=True)
    variables = draw_variables(model, IMAGES)
    outputs = jit(model.apply)(variables, images)
    x, w = np.asarray(outputs.embedding), variables["params"]["head"]["kernel"]
    lengths = np.linalg.norm(x, axis=1, keepdims=True) * np.linalg.norm(w, axis=0)
    np.testing.assert_allclose(outputs.logits, 64 * (x @ w) / lengths, rtol=1e-4, atol=1e-4)
    assert outputs.attention.shape == (3, 16)
    assert 0 < outputs.attention.min() < outputs.attention.max() < 1


@pytest.fixture(scope="module")
def predict_flips() -> Any:
    return jit(tiny(flip_average=True).apply)


def test_flip_average_is_the_mean_over_the_image_and_its_mirror_image(
    variables, images, predict, predict_flips
):
    found = predict_flips(variables, images)
    one, other = predict(variables, images), predict(variables, images[:, :, ::-1])
    assert np.abs(one.logits - other.logits).max() > 1e-3
    for name in ("logits", "embedding"):  # the head is linear, so that its mean is, too
        mean = (getattr(one, name) + getattr(other, name)) / 2
        np.testing.assert_allclose(
            getattr(found, name), mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max()
        )


def test_flip_average_is_the_same_of_the_mirror_image(variables, images, predict_flips):
    found = predict_flips(variables, images[:, :, ::-1])
    expected = predict_flips(variables, images)
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_training_knows_nothing_of_the_flip_average(variables):
    def program(model: Dmfer, train: bool) -> str:
        options: dict[str, Any] = {"train": train, "mutable": ["batch_stats"]}
        return jax.jit(functools.partial(model.apply, **options)).lower(variables, IMAGES).as_text()

    assert program(tiny(flip_average=True), True) == program(tiny(), True)
    assert program(tiny(flip_average=True), False) != program(tiny(), False)


def test_top_channels_are_the_stronger_of_each_pair():
    # Two scales of two channels; over space, mean squares are (4, 1) and (2.5, 9).
    shallow = np.array([[[2.0, 1.0], [-2.0, -1.0]]])
    deep = np.array([[[1.0, 3.0], [2.0, -3.0]]])
    x = np.concatenate([shallow, deep], axis=-1)[None]
    expected = np.array([[[2.0, 3.0], [-2.0, -3.0]]])[None]
    np.testing.assert_array_equal(keep_top_channels(jnp.asarray(x), 2), expected)


def test_top_channels_are_chosen_for_each_image():
    x = np.array([[3.0, 1.0], [1.0, -2.0]]).reshape(2, 1, 1, 2)
    assert np.ravel(keep_top_channels(jnp.asarray(x), 1)).tolist() == [3.0, -2.0]


def test_top_channels_of_one_scale_are_all_channels(images):
    np.testing.assert_array_equal(keep_top_channels(jnp.asarray(images), 3), images)
