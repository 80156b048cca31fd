"""The weights of channel self-attention: which channels each channel takes its values from."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dmfer_jax.data.augment import normalize
from dmfer_jax.data.sources import Images
from dmfer_jax.models.channel_attention import ChannelSelfAttention
from dmfer_jax.models.dmfer import Dmfer


class Head(NamedTuple):
    """What one head's matrix says, as numbers.

    Attributes:
      shallow: how many of its channels are of the shallow scale.
      deep: how many are of the deep scale.
      shares: {"shallow to deep": share, ...}, of the weight of an average channel of the first
        scale, how much goes to channels of the second; those of each scale sum to 1. A scale that
        the head has no channel of is absent.
      own: the mean weight of a channel on itself, as a multiple of 1/d, the even weight.
      effective: how many channels an average row is spread over: exp of the mean entropy, from 1
        to d.
    """

    shallow: int
    deep: int
    shares: dict[str, float]
    own: float
    effective: float


def attention_weights(model: Dmfer, variables: Any, images: Array) -> Array:
    """Returns softmax(tau q k^T) `[n, heads, d, d]` of faces, d channels a head; rows sum to 1.

    Pure and jittable. Row i says how channel i of the head is made of the values of the head's
    channels. In float32, whatever the network computes in. Of a network that averages over the
    mirror image, they are of the image as it is.

    Args:
      model: with channel attention.
      variables: of the network, as `TrainState.eval_variables` gives them.
      images: uint8 `[n, h, w, c]`.
    """
    model = model.clone(dtype=jnp.float32, flip_average=False)
    _, read = model.apply(
        variables, normalize(images), capture_intermediates=_is_projection, mutable="intermediates"
    )
    last = "_depthwise" if model.depthwise else ""
    found: Any = read["intermediates"]["attention"]
    tau = variables["params"]["attention"]["temperature"]
    query, key = (found[name + last]["__call__"][0] for name in ("query", "key"))
    return weights_of(query, key, tau)


def weights_of(query: Array, key: Array, tau: Array) -> Array:
    """Returns softmax(tau q k^T) `[n, heads, d, d]`, the rows of q and k of length 1.

    Args:
      query: the projection `[n, h, w, heads * d]`.
      key: as `query`.
      tau: `[heads, 1, 1]`.
    """

    def tokens(y: Array) -> Array:  # -> [n, heads, d, h*w]
        n, h, w, c = y.shape
        y = y.reshape(n, h * w, len(tau), c // len(tau)).transpose(0, 2, 3, 1)
        return y / jnp.maximum(jnp.linalg.norm(y, axis=-1, keepdims=True), 1e-6)

    return jax.nn.softmax(tau * (tokens(query) @ tokens(key).swapaxes(-1, -2)), axis=-1)


def mean_weights(
    model: Dmfer, variables: Any, images: Images, positions: np.ndarray, batch: int
) -> np.ndarray:
    """Returns the mean of `attention_weights` over faces: float64 `[heads, d, d]`.

    Args:
      model: with channel attention.
      variables: of the network.
      images: uint8, by position.
      positions: int `[n]`, which of them; n from 1 on.
      batch: faces that the program takes at a time.
    """

    @jax.jit
    def add_up(images: Array, counted: Array) -> Array:
        return jnp.einsum("nhqk,n->hqk", attention_weights(model, variables, images), counted)

    sums = []
    for start in range(0, len(positions), batch):
        part = positions[start : start + batch]
        padded = np.resize(part, batch)  # all calls are of one program
        counted = (np.arange(batch) < len(part)).astype(np.float32)
        sums.append(np.asarray(add_up(images[padded], counted), np.float64))
    return np.sum(sums, axis=0) / len(positions)


def describe_heads(weights: np.ndarray, shallow: int) -> list[Head]:
    """Returns what the matrices of an attention say, head by head.

    Args:
      weights: `[heads, d, d]`, rows sum to 1.
      shallow: how many of the heads * d channels, from the first on, are of the shallow scale.
    """
    described = []
    for index, matrix in enumerate(np.asarray(weights, np.float64)):
        size = len(matrix)
        first = int(np.clip(shallow - index * size, 0, size))
        scales = {"shallow": slice(0, first), "deep": slice(first, size)}
        held = {name: at for name, at in scales.items() if at.stop > at.start}
        entropy = -np.sum(matrix * np.log(np.maximum(matrix, 1e-30)), axis=1)
        described.append(
            Head(
                shallow=first,
                deep=size - first,
                shares={
                    f"{one} to {other}": float(matrix[rows, columns].sum(axis=1).mean())
                    for one, rows in held.items()
                    for other, columns in held.items()
                },
                own=float(np.trace(matrix)),  # the mean of the diagonal, times d
                effective=float(np.exp(entropy.mean())),
            )
        )
    return described


def count_shallow(model: Dmfer) -> int:
    """Returns how many of the channels that attention works on are of the shallow scale."""
    return 0 if model.scales == "deep" else model.embedding


def _is_projection(module: nn.Module, method: str) -> bool:
    return method == "__call__" and isinstance(module.parent, ChannelSelfAttention)
