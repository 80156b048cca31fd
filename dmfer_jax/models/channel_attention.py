"""Self-attention whose tokens are channels, and squeeze-and-excite to compare it with."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from dmfer_jax.models.convolution import convolve
from dmfer_jax.models.formulation import is_plain
from dmfer_jax.models.vectors import product, unit


class ChannelSelfAttention(nn.Module):
    """Channel-wise self-attention with a residual: `[n, h, w, c] -> [n, h, w, c]`.

    Each channel is described by its h*w values. Queries and keys have length 1 over space, so
    their product is a cosine, sharpened by one learned temperature per head:
    A = softmax(tau q k^T) of `[c/heads, c/heads]`, over the keys. This is the cross-covariance
    attention of XCiT (El-Nouby et al., 2021) and Restormer's MDTA (Zamir et al., 2022). Its cost is
    linear in h*w.

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
        q, k = (unit(y.astype(_long(y))) for y in (q, k))
        tau = self.param("temperature", nn.initializers.ones, (self.heads, 1, 1), jnp.float32)
        y = _plainly(q, k, v, tau) if is_plain() else _attend(q, k, v, tau)
        return x + y.transpose(0, 3, 1, 2).reshape(n, h, w, c)


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


def _plainly(q: Array, k: Array, v: Array, tau: Array) -> Array:
    """`_attend`, as it is written in papers."""
    weights = jax.nn.softmax(tau * product(q, k.swapaxes(-1, -2)), axis=-1)
    return _product(weights.astype(v.dtype), v).astype(v.dtype)


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array, tau: Array) -> Array:
    """softmax(tau q k^T) v of each head, of arrays `[n, heads, c/heads, h*w]`.

    Only one array `[n, heads, c/heads, c/heads]` is kept, the exponentials, and each is passed over
    as seldom as can be: sums and scales are those of the much smaller arrays beside them, in the
    gradient as in Dao et al., *FlashAttention* (2022), appendix B.
    """
    return _attend_forward(q, k, v, tau)[0]


def _attend_forward(q: Array, k: Array, v: Array, tau: Array) -> tuple[Array, tuple[Array, ...]]:
    logits = tau * product(q, k.swapaxes(-1, -2))
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    y = (_product(weights.astype(v.dtype), v) / total).astype(v.dtype)
    return y, (q, k, v, tau, weights, total, y)


def _attend_backward(residuals: tuple[Array, ...], dy: Array) -> tuple[Array, ...]:
    q, k, v, tau, weights, total, y = residuals
    scaled = (dy / total).astype(v.dtype)
    dv = weights.astype(v.dtype).swapaxes(-1, -2) @ scaled
    # With A = weights / total the gradient of A is dy v^T, and its mean under A is that of dy y.
    mean = jnp.sum(scaled * y, axis=-1, keepdims=True, dtype=_long(y))
    dlogits = weights * (_product(scaled, v.swapaxes(-1, -2)) - mean)
    dq, dk = product(dlogits, k), product(dlogits.swapaxes(-1, -2), tau * q)
    dtau = jnp.sum(q * dq, axis=(0, 2, 3), keepdims=True)[0]
    return tau * dq, dk, dv, dtau


_attend.defvjp(_attend_forward, _attend_backward)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=_long(a))


def _long(y: Array) -> Any:
    """The type to sum in: at least float32."""
    return jnp.promote_types(y.dtype, jnp.float32)
