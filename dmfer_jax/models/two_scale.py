"""Reads a backbone at two scales and lays both on the deep scale's grid."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from dmfer_jax.models.resnet import ConvNorm


class TwoScaleFeatures(nn.Module):
    """Shallow (geometric) and deep (semantic) features, side by side.

    The shallow stage is brought to the deep grid by one strided 3x3 convolution per stage between
    them, then both are projected to `channels` by a 1x1 convolution.

    Attributes:
      channels: C, the channels of each scale.
      scales: "deep", "shallow" or "both".
      shallow_stage: the stage read as shallow: 1, 2 or 3.
      folded: see `ResNet`.
    """

    channels: int = 512
    scales: str = "both"
    shallow_stage: int = 2
    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stages: tuple[Array, ...], train: bool) -> Array:
        """Returns `[n, t, t, C]`, or `[n, t, t, 2C]` (shallow first) for both scales.

        Args:
          stages: the backbone's outputs, `[n, t_i, t_i, c_i]`, each half as large as the last,
            rounded up or down.
          train: as in `ResNet`.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layer = partial(ConvNorm, folded=self.folded, **types)
        features = []
        if self.scales in ("shallow", "both"):
            y = stages[self.shallow_stage - 1]
            for index in range(self.shallow_stage, len(stages)):
                # Where the backbone rounds halves down, the last row and column would be one more.
                _, rows, columns, _ = stages[index].shape
                n, h, w, c = y.shape
                y = lax.slice(y, (0, 0, 0, 0), (n, min(h, 2 * rows), min(w, 2 * columns), c))
                y = layer(y.shape[-1], 3, 2, name=f"shallow_down{index}")(y, train)
            features.append(layer(self.channels, 1, name="shallow")(y, train))
        if self.scales in ("deep", "both"):
            features.append(layer(self.channels, 1, name="deep")(stages[-1], train))
        return jnp.concatenate(features, axis=-1)
