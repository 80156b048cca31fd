"""ResNet-18, 34 and 50 (He et al., 2016), and 10, a block a stage, that hand out every stage.

Padding, strides and BatchNorm constants are PyTorch's, so that its weights can be carried over:
explicit padding, never SAME; momentum 0.9 here is 0.1 there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from dmfer_jax.models.convolution import convolve
from dmfer_jax.models.pooling import max_pool

BatchNorm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


def conv(
    features: int,
    size: int,
    stride: int = 1,
    padding: int | None = None,
    *,
    use_bias: bool = False,
    **kwargs: Any,
) -> nn.Conv:
    """A `size` x `size` convolution; unless told otherwise, padded as PyTorch's networks pad."""
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=size // 2 if padding is None else padding,
        use_bias=use_bias,
        conv_general_dilated=convolve,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        **kwargs,
    )


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and, unless told otherwise, ReLU: `[n, h, w, _] -> [n, h', w', c]`.

    Each side is padded by half the kernel's size, or by `padding`. Where `folded` the convolution
    has a bias and does BatchNorm's work, too (see `folding`).
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int | None = None
    relu: bool = True
    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:  # noqa: D102 (the class says it)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        options = {"use_bias": self.folded, "name": "conv", **types}
        x = conv(self.features, self.size, self.stride, self.padding, **options)(x)
        if not self.folded:
            x = BatchNorm(use_running_average=not train, name="norm", **types)(x)
        return nn.relu(x) if self.relu else x


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 if `bottleneck`.

    Every BatchNorm starts with a scale of 1, as in PyTorch.
    """

    features: int
    stride: int = 1
    bottleneck: bool = False
    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:  # noqa: D102
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layer = partial(ConvNorm, folded=self.folded, **types)
        if self.bottleneck:
            width = 4 * self.features
            y = layer(self.features, 1, name="conv1")(x, train)
            y = layer(self.features, 3, self.stride, name="conv2")(y, train)
            y = layer(width, 1, relu=False, name="conv3")(y, train)
        else:
            width = self.features
            y = layer(width, 3, self.stride, name="conv1")(x, train)
            y = layer(width, 3, relu=False, name="conv2")(y, train)
        if x.shape != y.shape:
            x = layer(width, 1, self.stride, relu=False, name="downsample")(x, train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """The convolutional part of a ResNet: images in, the outputs of its four stages out.

    Attributes:
      blocks: residual blocks in each stage.
      bottleneck: ResNet-50's blocks rather than ResNet-18's.
      stem: "imagenet" is a 7x7/2 convolution and a 3x3/2 max pool, for 112 pixels and more;
        "small" is one 3x3 convolution with `stem_stride`, for 48 and 64 pixels.
      stem_stride: 1 or 2, read by the small stem only.
      width: multiplies every channel count (64 in stage 1), rounded to a multiple of 8.
      frozen_stages: n; the stem and stages 1 to n do not learn: no gradient is computed for them,
        and their BatchNorm uses, and keeps, its running statistics in training, too. 0 is none.
      folded: no BatchNorm; every convolution has a bias instead.
      dtype: the type computed in; float32 or bfloat16.
      param_dtype: the type parameters are kept in.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    stem: str = "imagenet"
    stem_stride: int = 1
    width: float = 1.0
    frozen_stages: int = 0
    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, ...]:
        """Returns the stages' outputs, `([n, h1, w1, c1], ..., [n, h4, w4, c4])`.

        Args:
          x: images `[n, h, w, 1 or 3]`, normalised.
          train: whether BatchNorm uses (and gathers) the batch's own statistics.
        """
        types = {
            "folded": self.folded,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        base = max(8, round(64 * self.width / 8) * 8)
        learns = train and not self.frozen_stages
        if self.stem == "imagenet":
            x = ConvNorm(base, 7, 2, name="stem", **types)(x, learns)  # [n, h/2, w/2, 64]
            x = max_pool(x)  # [n, h/4, w/4, 64]
        else:
            x = ConvNorm(base, 3, self.stem_stride, name="stem", **types)(x, learns)

        def make_block(stage: int, down: bool, name: str) -> Block:
            stride = 2 if down else 1
            return Block(base * 2**stage, stride, self.bottleneck, name=name, **types)

        return run_stages(x, train, self.blocks, self.frozen_stages, make_block)


def run_stages(
    x: Array,
    train: bool,
    blocks: Sequence[int],
    frozen_stages: int,
    make_block: Callable[[int, bool, str], nn.Module],
) -> tuple[Array, ...]:
    """Passes features through the blocks of a backbone, for use within its `__call__`.

    Args:
      x: what comes out of the stem.
      train: as in `ResNet`.
      blocks: how many each stage has.
      frozen_stages: see `ResNet`.
      make_block: takes the stage, counted from 0, whether the block makes maps half as large, which
        the first one of every stage but the first does, and its name.

    Returns:
      The output of each stage.
    """
    stages = []
    for stage, count in enumerate(blocks):
        learns = train and stage >= frozen_stages
        for index in range(count):
            down = stage > 0 and index == 0
            x = make_block(stage, down, f"stage{stage + 1}_block{index + 1}")(x, learns)
        if stage < frozen_stages:
            x = lax.stop_gradient(x)  # so that XLA leaves the backward pass below away
        stages.append(x)
    return tuple(stages)


BACKBONES: dict[str, dict[str, Any]] = {
    "resnet10": {"blocks": (1, 1, 1, 1)},
    "resnet18": {"blocks": (2, 2, 2, 2)},
    "resnet34": {"blocks": (3, 4, 6, 3)},
    "resnet50": {"blocks": (3, 4, 6, 3), "bottleneck": True},
}
"""Name -> arguments of `ResNet`."""
