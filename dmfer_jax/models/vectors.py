"""Vectors and their products, in all bits of their type.

For a product of float32 numbers an accelerator's default is fewer bits than they have (one pass of
bfloat16 on TPUs, TF32 on GPUs). A cosine that is then multiplied by 30 needs all of them.
"""

import jax
import jax.numpy as jnp
from jax import Array

EXACT = jax.lax.Precision.HIGHEST
"""Of products whose rounding would be seen."""


def unit(vectors: Array, axis: int = -1) -> Array:
    """Returns vectors of length 1 along an axis; a zero vector stays zero."""
    squared = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


def product(a: Array, b: Array) -> Array:
    """Returns the matrix product a b, exactly but for the rounding of its type."""
    return jnp.matmul(a, b, precision=EXACT)
