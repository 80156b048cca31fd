"""Self-attention whose tokens are channels, and squeeze-and-excite to compare it with."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from dmfer_jax.models.convolution import convolve


class ChannelSelfAttention(nn.Module):
    """Channel-wise self-attention with a residual: `[n, h, w, c] -> [n, h, w, c]`.

    Each channel is described by its h*w values. Queries and keys have length 1 over space, so
    their product is a cosine, sharpened by one learned temperature per head:
    A = softmax(tau K^T Q) of `[c/heads, c/heads]`. This is the cross-covariance attention of XCiT
    (El-Nouby et al., 2021) and Restormer's MDTA (Zamir et al., 2022). Its cost is linear in h*w.

    Attributes:
      heads: number of heads; divides c.
      depthwise: adds a 3x3 depthwise convolution behind each of q, k and v (as MDTA does).
    """

    heads: int = 8
    depthwise: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102 (the class says it)
        n, h, w, c = x.shape
        if c % self.heads:
            raise ValueError(f"{c} channels cannot be divided among {self.heads} heads")

        layer = partial(
            nn.Conv,
            c,
            use_bias=False,
            conv_general_dilated=convolve,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

        def project(name: str) -> Array:  # -> [n, heads, c/heads, h*w]
            y = layer(kernel_size=(1, 1), padding=0, name=name)(x)
            if self.depthwise:
                y = layer(
                    kernel_size=(3, 3), padding=1, feature_group_count=c, name=f"{name}_depthwise"
                )(y)
            return y.reshape(n, h * w, self.heads, c // self.heads).transpose(0, 2, 3, 1)

        q, k, v = project("query"), project("key"), project("value")
        # In float32: a cosine of bfloat16 sums would lose what the temperature then magnifies.
        q, k = (_unit(y.astype(jnp.float32)) for y in (q, k))
        tau = self.param("temperature", nn.initializers.ones, (self.heads, 1, 1), jnp.float32)
        attention = jax.nn.softmax(tau * (q @ k.swapaxes(-1, -2)), axis=-1).astype(v.dtype)
        y = (attention @ v).transpose(0, 3, 1, 2).reshape(n, h, w, c)
        return x + y


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite (Hu et al., 2018): a gate per channel from its mean over space."""

    reduction: int = 16
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102
        c = x.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        gate = nn.relu(dense(max(c // self.reduction, 8), name="squeeze")(x.mean(axis=(1, 2))))
        gate = nn.sigmoid(dense(c, name="excite")(gate))  # [n, c]
        return x * gate[:, None, None, :]


def _unit(y: Array) -> Array:
    return y * jax.lax.rsqrt(jnp.maximum(jnp.sum(y * y, axis=-1, keepdims=True), 1e-12))
