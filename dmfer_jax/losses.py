"""Losses on the embedding's class centers, margin losses, and the update of the centers.

Pure functions of arrays. A loss gives one value per example and never reduces: the training step
masks and averages. Targets are distributions over the classes `[n, K]`; a one-hot row is a hard
label, and the loss of a soft row is the expectation of the loss over its labels.

The center cosine loss of Wen et al. (2024) is known only from the abstract: "inspired by the large
cosine margin", compact classes, sparse centers. The three `center_cosine*` forms are this project's
reconstructions of it; the references are cited where they stand.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from dmfer_jax import loss_options
from dmfer_jax.models import vectors


def cosine_to_centers(embedding: Array, centers: Array) -> Array:
    """Returns cos(x_i, c_j) `[n, K]` of embeddings `[n, C]` and centers `[K, C]`."""
    return vectors.product(vectors.unit(embedding), vectors.unit(centers).T)


def cross_entropy(logits: Array, targets: Array, *, label_smoothing: float = 0.0) -> Array:
    """Returns the cross-entropy `[n]` of logits `[n, K]` against distributions `[n, K]`."""
    return -jnp.sum(_smooth(targets, label_smoothing) * jax.nn.log_softmax(logits), axis=-1)


def center_cosine(
    embedding: Array, centers: Array, targets: Array, *, scale: float = 30.0, margin: float = 0.2
) -> Array:
    """The large cosine margin (CosFace; Wang et al., 2018) on class centers.

    -log e^{s(cos(x,c_y)-m)} / (e^{s(cos(x,c_y)-m)} + sum_{j!=y} e^{s cos(x,c_j)})

    Args:
      embedding: `[n, C]`; only its direction matters.
      centers: `[K, C]`; only their directions matter.
      targets: `[n, K]` distributions.
      scale: s, the inverse temperature of the softmax over cosines.
      margin: m, by how much the right cosine must exceed the others; at most K/(K-1), the distance
        in cosine that K centers can keep.

    Returns:
      `[n]`, one loss per example.
    """
    cosine = cosine_to_centers(embedding, centers)
    # Row k of [n, K, K] holds the scaled cosines as they are when k is the label.
    as_label = scale * (cosine[:, None, :] - margin * jnp.eye(centers.shape[0]))
    log_probability = jnp.diagonal(jax.nn.log_softmax(as_label), axis1=1, axis2=2)
    return -jnp.sum(targets * log_probability, axis=-1)


def center_cosine_island(
    embedding: Array, centers: Array, targets: Array, *, margin: float = 0.0, beta: float = 1.0
) -> Array:
    """Pull to the own center, push centers apart.

    1 - cos(x,c_y) + beta * mean_{j!=k} max(0, cos(c_j,c_k) - m)

    The second term depends on the centers alone, so it is of use with learned centers only. Shapes
    as in `center_cosine`; `margin` is the cosine above which two centers repel each other.
    """
    cosine = cosine_to_centers(embedding, centers)
    overlap = jax.nn.relu(_between_centers(centers) - margin)
    return 1.0 - jnp.sum(targets * cosine, axis=-1) + beta * _off_diagonal_mean(overlap)


def center_cosine_triplet(
    embedding: Array, centers: Array, targets: Array, *, margin: float = 0.2
) -> Array:
    """The own center must be nearer than the nearest other one, by a margin.

    max(0, max_{j!=y} cos(x,c_j) - cos(x,c_y) + m)

    Shapes as in `center_cosine`.
    """
    cosine = cosine_to_centers(embedding, centers)
    own = jnp.eye(centers.shape[0], dtype=bool)
    nearest_other = jnp.max(jnp.where(own, -jnp.inf, cosine[:, None, :]), axis=-1)  # [n, K]
    return jnp.sum(targets * jax.nn.relu(nearest_other - cosine + margin), axis=-1)


def center(embedding: Array, centers: Array, targets: Array) -> Array:
    """The center loss, 1/2 |x - c_y|^2 (Wen et al., ECCV 2016). Shapes as in `center_cosine`."""
    squared = jnp.sum(jnp.square(embedding[:, None, :] - centers), axis=-1)  # [n, K]
    return 0.5 * jnp.sum(targets * squared, axis=-1)


def island(embedding: Array, centers: Array, targets: Array, *, beta: float = 1.0) -> Array:
    """The island loss (Cai et al., FG 2018): center loss plus repulsion of the centers.

    1/2 |x - c_y|^2 + beta * sum_{j!=k} (cos(c_j,c_k) + 1)

    The second term is of use with learned centers only. Shapes as in `center_cosine`.
    """
    classes = centers.shape[0]
    repulsion = _off_diagonal_mean(_between_centers(centers) + 1.0) * classes * (classes - 1)
    return center(embedding, centers, targets) + beta * repulsion


def affinity(embedding: Array, centers: Array, targets: Array) -> Array:
    """The affinity loss of DAN (Wen et al., *Distract Your Attention*, 2021).

    |x - c_y|^2 / sum_d var(c_d)

    The variance of each dimension over the K centers is the unbiased one, as in the published code
    (github.com/yaoing/DAN, AffinityLoss in rafdb.py). There the centers are learned, and their
    variance keeps them apart; where they are moved by rule it only weighs. Shapes as in
    `center_cosine`.
    """
    spread = jnp.sum(jnp.var(centers, axis=0, ddof=1))
    return 2.0 * center(embedding, centers, targets) / jnp.maximum(spread, 1e-12)


def attentive_center(embedding: Array, centers: Array, attention: Array, targets: Array) -> Array:
    """The sparse center loss of DACL (Farzaneh and Qi, WACV 2021).

    1/2 sum_d a_d (x_d - c_yd)^2

    Nothing but the cross-entropy keeps the weights a from going to 0, there as here.
    The gradient is that of this formula, and one optimizer is for all. In the published code
    (github.com/amirhfarzaneh/dacl) centers have an optimizer of their own, and their gradient is
    without the weight lambda and averaged by class, as in the rule for centers in the state.

    Args:
      embedding: `[n, C]`.
      centers: `[K, C]`.
      attention: a, `[n, C]` in 0 to 1, of `models.loss_parts.AttentionNetwork`.
      targets: `[n, K]` distributions.

    Returns:
      `[n]`, one loss per example.
    """
    squared = jnp.square(embedding[:, None, :] - centers)  # [n, K, C]
    weighted = jnp.einsum("nkc,nc->nk", squared, attention, precision=vectors.EXACT)
    return 0.5 * jnp.sum(targets * weighted, axis=-1)


def cosface(
    logits: Array,
    targets: Array,
    *,
    scale: float = 64.0,
    margin: float = 0.35,
    label_smoothing: float = 0.0,
) -> Array:
    """The large margin cosine loss of CosFace (Wang et al., CVPR 2018), for the cross-entropy.

    -log e^{s(cos(x,w_y)-m)} / (e^{s(cos(x,w_y)-m)} + sum_{j!=y} e^{s cos(x,w_j)})

    Args:
      logits: `[n, K]`, s cos(x, w_j), as `models.loss_parts.CosineHead` gives them.
      targets: `[n, K]` distributions.
      scale: s, of the logits.
      margin: m.
      label_smoothing: as of `cross_entropy`.

    Returns:
      `[n]`, one loss per example.
    """
    return _margin_entropy(logits, logits - scale * margin, targets, label_smoothing)


def arcface(
    logits: Array,
    targets: Array,
    *,
    scale: float = 64.0,
    margin: float = 0.5,
    label_smoothing: float = 0.0,
) -> Array:
    """The additive angular margin loss of ArcFace (Deng et al., CVPR 2019), for the cross-entropy.

    As `cosface`, with s cos(theta_y + m) for s(cos(x,w_y) - m), theta_y being the angle between x
    and w_y. Beyond theta_y = pi - m that would rise again. There it is s (cos(theta_y) - m sin(m)),
    as in the authors' code (github.com/deepinsight/insightface, arcface_torch/losses.py) unless it
    is asked for its `easy_margin`, which has no margin beyond a right angle. Shapes and
    `label_smoothing` as in `cosface`; `margin` is m in radians, 0 to 1.
    """
    cosine = logits / scale
    # Below that a sine is rounding, and its gradient would not be finite.
    sine = jnp.sqrt(jnp.maximum(1.0 - jnp.square(cosine), 1e-12))
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    opposite = cosine <= -math.cos(margin)
    own = jnp.where(opposite, cosine - margin * math.sin(margin), turned)
    return _margin_entropy(logits, scale * own, targets, label_smoothing)


LOSSES = loss_options.losses_of(globals())
"""All that `config.loss.name` can be but "none"."""


def masked_mean(values: Array, mask: Array) -> Array:
    """Returns the mean of `values [n]` where `mask [n]` is 1; 0 where no example counts."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def update_centers(
    centers: Array,
    embedding: Array,
    targets: Array,
    mask: Array,
    *,
    rate: float = 0.5,
    unit: bool = True,
) -> Array:
    """Moves each class center towards its examples in this (global) batch.

    delta_j = sum_i t_ij (x_i - c_j) / (1 + sum_i t_ij);  c_j <- c_j + rate * delta_j

    Classes without an example stay where they are. No gradient passes through.

    Args:
      centers: `[K, C]` float32.
      embedding: `[n, C]`.
      targets: `[n, K]` distributions.
      mask: `[n]`, 0 for examples that do not count.
      rate: alpha of the center loss paper.
      unit: whether examples and centers live on the unit sphere (the cosine forms).

    Returns:
      `[K, C]` float32, of length 1 each if `unit`.
    """
    points = jax.lax.stop_gradient(embedding).astype(jnp.float32)
    points = vectors.unit(points) if unit else points
    weights = targets * mask[:, None]
    mass = jnp.sum(weights, axis=0)[:, None]  # [K, 1]
    delta = (vectors.product(weights.T, points) - mass * centers) / (1.0 + mass)
    moved = centers + rate * delta
    moved = vectors.unit(moved) if unit else moved
    return jnp.where(mass > 0, moved, centers)


def hard_labels(targets: Array) -> Array:
    """Returns `[n, K]`, the likeliest class of each of `targets [n, K]` alone; ties share it."""
    likeliest = (targets == jnp.max(targets, axis=-1, keepdims=True)).astype(targets.dtype)
    return likeliest / jnp.sum(likeliest, axis=-1, keepdims=True)


def init_centers(key: Array, classes: int, dimensions: int) -> Array:
    """Returns random unit centers `[classes, dimensions]` float32."""
    return vectors.unit(jax.random.normal(key, (classes, dimensions), jnp.float32))


def _smooth(targets: Array, label_smoothing: float) -> Array:
    return targets * (1.0 - label_smoothing) + label_smoothing / targets.shape[-1]


def _margin_entropy(logits: Array, own: Array, targets: Array, label_smoothing: float) -> Array:
    """Cross-entropy where `own` `[n, K]` has the logit of each class as it is when it is the label.

    The label is drawn from the targets, and the loss is the expectation.
    """
    # Row k of [n, K, K] holds the logits as they are when k is the label.
    is_label = jnp.eye(logits.shape[-1], dtype=bool)
    as_label = jnp.where(is_label, own[:, None, :], logits[:, None, :])
    log_probability = jnp.diagonal(jax.nn.log_softmax(as_label), axis1=1, axis2=2)
    return -jnp.sum(_smooth(targets, label_smoothing) * log_probability, axis=-1)


def _between_centers(centers: Array) -> Array:
    unit = vectors.unit(centers)
    return vectors.product(unit, unit.T)


def _off_diagonal_mean(square: Array) -> Array:
    """Mean of a `[K, K]` matrix without its diagonal."""
    classes = square.shape[0]
    return (jnp.sum(square) - jnp.trace(square)) / (classes * (classes - 1))
