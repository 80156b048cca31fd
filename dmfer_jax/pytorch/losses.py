"""The losses of `dmfer_jax.losses` and the update of the centers, in PyTorch.

Shapes, defaults and meanings are the ones there: one value per example, targets `[n, K]`.
"""
# pyright: reportMissingImports=false

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dmfer_jax import loss_options


def cosine_to_centers(embedding: Tensor, centers: Tensor) -> Tensor:
    """Returns cos(x_i, c_j) `[n, K]` of embeddings `[n, C]` and centers `[K, C]`."""
    return F.linear(_unit(embedding), _unit(centers))


def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Returns the cross-entropy `[n]` of logits `[n, K]` against distributions `[n, K]`."""
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)


def center_cosine(
    embedding: Tensor, centers: Tensor, targets: Tensor, *, scale: float = 30.0, margin: float = 0.2
) -> Tensor:
    """The large cosine margin on class centers, as `dmfer_jax.losses.center_cosine`: `[n]`."""
    cosine = cosine_to_centers(embedding, centers)
    own = torch.eye(centers.shape[0], device=cosine.device)
    # Row k of [n, K, K] holds the scaled cosines as they are when k is the label.
    as_label = scale * (cosine[:, None, :] - margin * own)
    log_probability = as_label.log_softmax(-1).diagonal(dim1=1, dim2=2)
    return -(targets * log_probability).sum(-1)


def center_cosine_island(
    embedding: Tensor, centers: Tensor, targets: Tensor, *, margin: float = 0.0, beta: float = 1.0
) -> Tensor:
    """Pull to the own center, push centers apart, as `dmfer_jax.losses.center_cosine_island`."""
    cosine = cosine_to_centers(embedding, centers)
    overlap = F.relu(cosine_to_centers(centers, centers) - margin)
    return 1.0 - (targets * cosine).sum(-1) + beta * _off_diagonal_mean(overlap)


def center_cosine_triplet(
    embedding: Tensor, centers: Tensor, targets: Tensor, *, margin: float = 0.2
) -> Tensor:
    """The own center nearer than any other, as `dmfer_jax.losses.center_cosine_triplet`."""
    cosine = cosine_to_centers(embedding, centers)
    own = torch.eye(centers.shape[0], dtype=torch.bool, device=cosine.device)
    nearest_other = cosine[:, None, :].masked_fill(own, -torch.inf).amax(-1)  # [n, K]
    return (targets * F.relu(nearest_other - cosine + margin)).sum(-1)


def center(embedding: Tensor, centers: Tensor, targets: Tensor) -> Tensor:
    """The center loss, 1/2 |x - c_y|^2."""
    squared = (embedding[:, None, :] - centers).square().sum(-1)  # [n, K]
    return 0.5 * (targets * squared).sum(-1)


def island(embedding: Tensor, centers: Tensor, targets: Tensor, *, beta: float = 1.0) -> Tensor:
    """The island loss: center loss plus repulsion of the centers, as `dmfer_jax.losses.island`."""
    classes = centers.shape[0]
    repulsion = _off_diagonal_mean(cosine_to_centers(centers, centers) + 1.0)
    return center(embedding, centers, targets) + beta * repulsion * classes * (classes - 1)


def affinity(embedding: Tensor, centers: Tensor, targets: Tensor) -> Tensor:
    """DAN's affinity loss, as `dmfer_jax.losses.affinity`: `[n]`."""
    spread = centers.var(dim=0).sum()
    return 2.0 * center(embedding, centers, targets) / spread.clamp(min=1e-12)


def attentive_center(
    embedding: Tensor, centers: Tensor, attention: Tensor, targets: Tensor
) -> Tensor:
    """DACL's sparse center loss, as `dmfer_jax.losses.attentive_center`: `[n]`."""
    squared = (embedding[:, None, :] - centers).square()  # [n, K, C]
    return 0.5 * (targets * (squared * attention[:, None, :]).sum(-1)).sum(-1)


def cosface(
    logits: Tensor,
    targets: Tensor,
    *,
    scale: float = 64.0,
    margin: float = 0.35,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of CosFace on the logits of a cosine head, as `dmfer_jax.losses.cosface`: `[n]`."""
    return _margin_entropy(logits, logits - scale * margin, targets, label_smoothing)


def arcface(
    logits: Tensor,
    targets: Tensor,
    *,
    scale: float = 64.0,
    margin: float = 0.5,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of ArcFace on the logits of a cosine head, as `dmfer_jax.losses.arcface`: `[n]`."""
    cosine = logits / scale
    sine = (1.0 - cosine.square()).clamp(min=1e-12).sqrt()
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    opposite = cosine <= -math.cos(margin)
    own = torch.where(opposite, cosine - margin * math.sin(margin), turned)
    return _margin_entropy(logits, scale * own, targets, label_smoothing)


LOSSES = loss_options.losses_of(globals())
"""All that `config.loss.name` can be but "none"."""


@torch.no_grad()
def update_centers(
    centers: Tensor, embedding: Tensor, targets: Tensor, *, rate: float = 0.5, unit: bool = True
) -> None:
    """Moves each class center, in place, towards its examples in this batch.

    Args:
      centers: `[K, C]`; those of classes without an example stay where they are.
      embedding: `[n, C]`.
      targets: `[n, K]` distributions.
      rate: alpha of the center loss paper.
      unit: whether examples and centers live on the unit sphere (the cosine forms).
    """
    points = _unit(embedding) if unit else embedding
    mass = targets.sum(0)[:, None]  # [K, 1]
    delta = (targets.T @ points - mass * centers) / (1.0 + mass)
    moved = centers + rate * delta
    moved = _unit(moved) if unit else moved
    centers.copy_(torch.where(mass > 0, moved, centers))


def hard_labels(targets: Tensor) -> Tensor:
    """The likeliest class alone, as `dmfer_jax.losses.hard_labels`: `[n, K]`."""
    likeliest = (targets == targets.amax(-1, keepdim=True)).to(targets.dtype)
    return likeliest / likeliest.sum(-1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1, eps=1e-6)


def _margin_entropy(logits: Tensor, own: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    is_label = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    as_label = torch.where(is_label, own[:, None, :], logits[:, None, :])  # [n, K, K]
    log_probability = as_label.log_softmax(-1).diagonal(dim1=1, dim2=2)
    smooth = targets * (1.0 - label_smoothing) + label_smoothing / targets.shape[-1]
    return -(smooth * log_probability).sum(-1)


def _off_diagonal_mean(square: Tensor) -> Tensor:
    classes = square.shape[0]
    return (square.sum() - square.trace()) / (classes * (classes - 1))
