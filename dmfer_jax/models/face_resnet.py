"""The face recognition network of dlib (King, 2017), handing out its stages as `ResNet` does.

A ResNet-34 with half the channels, fewer blocks, and no convolution on the shortcuts. Its weights
are in the public domain and lie in this package: see `weights.face`. Of its five stages the first
four are taken; the last one leaves a face of 112 pixels a single position.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from dmfer_jax.models.pooling import max_pool
from dmfer_jax.models.resnet import ConvNorm, run_stages

BLOCKS = (3, 4, 3, 3)
"""Blocks in each stage."""

SMALLEST = 55
"""Height and width, in pixels, from which on the last stage begins with a pixel, and can learn."""


class FaceBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: `[n, h, w, _] -> [n, h, w, c]`.

    Where `down`, the first has stride 2 and no padding, and the shortcut is a 2x2 mean with as many
    channels of zeros as are missing: `[n, h, w, _] -> [n, h/2, w/2, c]`, rounded down.
    """

    features: int
    down: bool = False
    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:  # noqa: D102
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layer = partial(ConvNorm, self.features, 3, folded=self.folded, **types)
        if not self.down:
            y = layer(name="conv1")(x, train)
            return nn.relu(x + layer(relu=False, name="conv2")(y, train))
        y = layer(2, padding=0, name="conv1")(x, train)
        y = layer(relu=False, name="conv2")(y, train)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        (_, rows, columns, old), (_, height, width, new) = x.shape, y.shape
        # Without padding an even map loses a row and a column that the mean still has.
        y = jnp.pad(y, ((0, 0), (0, rows - height), (0, columns - width), (0, 0)))
        return nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, new - old))))


class FaceResNet(nn.Module):
    """Images in, the outputs of four stages out; of 112 pixels 26, 13, 6 and 3 positions wide.

    Sides of 67, 99 and 131 pixels, or one more, fit: every map is odd, and convolutions of stride 2
    reach all of it. An even one loses its last row and column, and gets zeros in their place. Below
    71 pixels the last stage has a single position, of which channel attention learns no weights.

    Attributes:
      width: multiplies every channel count (32 in stage 1), rounded to a multiple of 8.
      frozen_stages, folded, dtype, param_dtype: see `ResNet`.
    """

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
          train: as in `ResNet`.
        """
        types = {"folded": self.folded, "dtype": self.dtype, "param_dtype": self.param_dtype}
        base = max(8, round(32 * self.width / 8) * 8)
        learns = train and not self.frozen_stages
        x = ConvNorm(base, 7, 2, padding=0, name="stem", **types)(x, learns)  # [n, 53, 53, 32]
        x = max_pool(x, margin=0)  # [n, 26, 26, 32]

        def make_block(stage: int, down: bool, name: str) -> FaceBlock:
            return FaceBlock(base * 2**stage, down, name=name, **types)

        return run_stages(x, train, BLOCKS, self.frozen_stages, make_block)
