"""ResNet's shapes and parameters, and that padding and BatchNorm are PyTorch's."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.models.resnet import BACKBONES, Block, ConvNorm, ResNet, conv
from tests.models.variables import draw_variables


def trace(model: ResNet, size: int, channels: int = 3) -> tuple[Any, Any]:
    """Returns the shapes of the stages of two images, and of the variables."""
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    return jax.eval_shape(
        lambda images: model.init_with_output(jax.random.key(0), images, True), images
    )


def count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("stem", "stride", "size", "sides"),
    [
        ("imagenet", 1, 224, (56, 28, 14, 7)),
        ("imagenet", 1, 112, (28, 14, 7, 4)),
        ("small", 1, 48, (48, 24, 12, 6)),
        ("small", 2, 48, (24, 12, 6, 3)),
        ("small", 2, 64, (32, 16, 8, 4)),
    ],
)
def test_stages_of_resnet18_have_the_sides_of_the_table(stem, stride, size, sides):
    stages, _ = trace(ResNet(stem=stem, stem_stride=stride), size)
    expected = [(2, side, side, c) for side, c in zip(sides, (64, 128, 256, 512), strict=True)]
    assert [stage.shape for stage in stages] == expected


def test_stages_of_resnet50_are_four_times_as_wide():
    stages, _ = trace(ResNet(**BACKBONES["resnet50"]), 32)
    assert [stage.shape[-1] for stage in stages] == [256, 512, 1024, 2048]


@pytest.mark.parametrize(
    ("width", "base"),
    # 64 * 0.3 = 19.2 is nearest to 16, and no network is narrower than 8.
    [(0.125, 8), (0.25, 16), (0.3, 16), (0.01, 8), (2.0, 128)],
)
def test_width_is_a_multiple_of_eight(width, base):
    stages, _ = trace(ResNet(blocks=(1, 1, 1, 1), width=width), 32)
    assert [stage.shape[-1] for stage in stages] == [base, 2 * base, 4 * base, 8 * base]


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("resnet10", 11_689_512 - 513 * 1000 - 6_270_720),  # less a block of each stage
        # torchvision's counts, without the last layer: 512 or 2048 inputs and a bias to 1000.
        ("resnet18", 11_689_512 - 513 * 1000),
        ("resnet34", 21_797_672 - 513 * 1000),
        ("resnet50", 25_557_032 - 2049 * 1000),
    ],
)
def test_parameters_are_as_many_as_in_pytorch(backbone, parameters):
    _, variables = trace(ResNet(**BACKBONES[backbone]), 32)
    assert count(variables["params"]) == parameters


def test_parameters_of_resnet18_by_hand():
    stem = 7 * 7 * 3 * 64 + 2 * 64  # BatchNorm has a scale and a bias

    def block(c: int) -> int:
        return 2 * (9 * c * c + 2 * c)

    def first_block(c: int) -> int:  # comes from c/2 channels, and has a 1x1 shortcut
        return (9 * c * c // 2 + 2 * c) + (9 * c * c + 2 * c) + (c * c // 2 + 2 * c)

    stages = 2 * block(64) + sum(first_block(c) + block(c) for c in (128, 256, 512))
    assert stem + stages == 11_176_512
    _, variables = trace(ResNet(), 32)
    assert count(variables["params"]) == stem + stages


def test_grey_images_take_a_third_of_the_stem():
    _, colour = trace(ResNet(), 32)
    _, grey = trace(ResNet(), 32, channels=1)
    assert count(colour["params"]) - count(grey["params"]) == 7 * 7 * 2 * 64


def test_bfloat16_computes_short_and_keeps_parameters_and_statistics_long():
    stages, variables = trace(ResNet(dtype=jnp.bfloat16), 32)
    assert {stage.dtype for stage in stages} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(("size", "stride"), [(7, 2), (3, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("side", [8, 7])
def test_convolution_is_centered_on_the_first_pixel(size, stride, side):
    # "SAME" would begin at pixel 1 for an even side and a stride of 2.
    image = np.arange(side * side, dtype=np.float32).reshape(1, side, side, 1)
    only_center = np.zeros((size, size, 1, 1), np.float32)
    only_center[size // 2, size // 2] = 1
    found = conv(1, size, stride).apply({"params": {"kernel": only_center}}, image)
    np.testing.assert_array_equal(found, image[:, ::stride, ::stride])


def test_stem_and_pool_together_begin_at_the_first_pixel():
    # One white pixel at the left top reaches exactly the pooled pixels whose window sees it.
    model = ResNet(blocks=(0,), width=0.125)
    image = np.zeros((1, 32, 32, 1), np.float32)
    image[0, 0, 0, 0] = 1
    norm = {"scale": np.ones(8), "bias": np.zeros(8)}
    stats = {"mean": np.zeros(8), "var": np.ones(8)}
    variables = {
        "params": {"stem": {"conv": {"kernel": np.ones((7, 7, 1, 8))}, "norm": norm}},
        "batch_stats": {"stem": {"norm": stats}},
    }
    apply: Any = jax.jit(functools.partial(model.apply, train=False))
    (pooled,) = apply(variables, image)
    # The 7x7/2 convolution sees pixel 0 from rows 0 and 1 (centers 0 and 2, reach 3); the pool's
    # windows around rows 0 and 2, from -1 to 1 and from 1 to 3, hold one of them.
    lit = np.argwhere(np.asarray(pooled)[0, :, :, 0] > 0.5).tolist()
    assert lit == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_batch_norm_has_pytorchs_momentum_and_epsilon():
    # Values of mean 3 and variance 1e-5, which is epsilon: what is left is 1/sqrt(2) long.
    deviation = np.sqrt(1e-5)
    x = jnp.array([3 - deviation, 3 + deviation], jnp.float32).reshape(2, 1, 1, 1)
    layer = ConvNorm(1, 1, relu=False)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    params = {"conv": {"kernel": np.ones((1, 1, 1, 1))}, "norm": {"scale": one, "bias": zero}}
    variables = {"params": params, "batch_stats": {"norm": {"mean": zero, "var": one}}}
    y, updates = layer.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(jnp.ravel(y), [-np.sqrt(0.5), np.sqrt(0.5)], rtol=2e-2)
    stats: Any = updates["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.9 * 0 + 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 * 1 + 0.1 * 1e-5, rtol=1e-6)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_block_whose_branch_is_silent_is_the_identity(bottleneck):
    x = np.random.default_rng(0).random((2, 4, 4, 32), np.float32)  # as behind a ReLU
    block = Block(8 if bottleneck else 32, bottleneck=bottleneck)
    variables = draw_variables(block, x, train=False)
    last = variables["params"]["conv3" if bottleneck else "conv2"]["norm"]
    apply: Any = jax.jit(functools.partial(block.apply, train=False))
    assert np.abs(apply(variables, x) - x).max() > 0.1
    last["scale"] = last["bias"] = np.zeros(32, np.float32)
    np.testing.assert_array_equal(apply(variables, x), x)


def test_every_batch_norm_of_a_block_starts_at_scale_one_and_bias_zero():
    x = np.zeros((1, 4, 4, 8), np.float32)
    init: Any = jax.jit(functools.partial(Block(8).init, train=True))
    params = init(jax.random.key(0), x)["params"]
    for layer in params.values():
        assert (layer["norm"]["scale"] == 1).all()
        assert not layer["norm"]["bias"].any()


def draw_narrow(frozen_stages: int, stages: int = 4) -> tuple[Any, Any, Any]:
    model = ResNet(blocks=(1,) * stages, width=0.125, frozen_stages=frozen_stages)
    images = np.random.default_rng(0).normal(0, 1, (2, 32, 32, 3)).astype(np.float32)
    return model, draw_variables(model, images, train=False), images


def make_step(frozen_stages: int, stages: int = 4) -> tuple[Any, Any]:
    """Returns what gives a sum of outputs, new statistics and gradients; and the variables."""
    model, variables, images = draw_narrow(frozen_stages, stages)

    def loss(params: Any) -> tuple[Any, Any]:
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        outputs, updates = model.apply(state, images, True, mutable=["batch_stats"])
        # Weighed, since after a BatchNorm a plain sum has no gradient.
        total = sum((stage * jnp.arange(stage.shape[1])[:, None]).sum() for stage in outputs)
        return total, (outputs, updates["batch_stats"])

    return jax.value_and_grad(loss, has_aux=True), variables


def count_convolutions(frozen_stages: int) -> int:
    """How many a step has, without compiling it."""
    step, variables = make_step(frozen_stages)
    return str(jax.make_jaxpr(step)(variables["params"])).count("conv_general_dilated[")


def test_frozen_stages_are_left_out_of_the_backward_pass():
    # The stem and blocks of 2, 3, 3 and 3: 12 convolutions. Each that learns has a gradient of its
    # kernel, and one of its input unless that is frozen (or the image).
    found = [count_convolutions(stages) for stages in (0, 1, 2, 3, 4)]
    # The first block that learns has two convolutions that read what is frozen.
    assert found == [12 + 23, 12 + 9 + 7, 12 + 6 + 4, 12 + 3 + 1, 12]


def test_frozen_stages_keep_their_statistics_and_use_them():
    step, variables = make_step(1, stages=2)
    (_, (training, statistics)), grads = jax.jit(step)(variables["params"])
    for name, stats in statistics.items():
        frozen = name in ("stem", "stage1_block1")
        before = variables["batch_stats"][name]
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(stats), strict=True):
            assert np.array_equal(old, new) == frozen, name
        for grad in jax.tree.leaves(grads[name]):
            assert np.any(grad != 0) != frozen, name
    model, variables, images = draw_narrow(1, stages=2)
    evaluated = jax.jit(lambda variables: model.apply(variables, images, False))(variables)
    np.testing.assert_allclose(training[0], evaluated[0], rtol=1e-5, atol=1e-5)
    assert np.abs(training[1] - evaluated[1]).max() > 0.1


def test_freezing_changes_no_variable():
    shapes = [jax.tree.map(jnp.shape, draw_narrow(stages)[1]) for stages in (0, 4)]
    assert shapes[0] == shapes[1]
