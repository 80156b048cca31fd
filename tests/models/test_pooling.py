"""Max pooling and its gradient."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.models.pooling import max_pool


def flax_max_pool(x: jax.Array, margin: int = 1) -> jax.Array:
    padding: Any = ((margin, margin),) * 2  # Any: Flax's annotation knows strings only
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


@pytest.mark.parametrize("margin", [0, 1])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (5, 6)])
def test_pooling_and_its_gradient_are_those_of_xla_among_many_equal_pixels(height, width, margin):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 2, (3, height, width, 5)).astype(np.float32))
    y, pull_back = jax.vjp(lambda x: flax_max_pool(x, margin), x)
    dy = jnp.asarray(rng.normal(size=y.shape).astype(np.float32))
    ours, our_pull_back = jax.vjp(lambda x: max_pool(x, margin), x)
    np.testing.assert_array_equal(ours, y)
    np.testing.assert_allclose(our_pull_back(dy)[0], pull_back(dy)[0], rtol=1e-6, atol=1e-6)


def test_each_window_gives_its_gradient_to_the_first_of_its_largest_pixels():
    x = jnp.ones((1, 3, 3, 1))
    dy = jnp.array([[1.0, 2.0], [4.0, 8.0]]).reshape(1, 2, 2, 1)
    gradient = jax.vjp(max_pool, x)[1](dy)[0][0, :, :, 0]
    # The windows begin at rows and columns -1 and 1; outside nothing can win.
    np.testing.assert_array_equal(gradient, [[1, 2, 0], [4, 8, 0], [0, 0, 0]])
