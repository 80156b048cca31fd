"""A network in the manner of DAN, and its two losses: the published opponent.

Wen Z., Lin W., Wang T., Xu G., *Distract your attention: multi-head cross attention network for
facial expression recognition* (Biomimetics, 2023; arXiv 2109.07270): several heads attend to one
backbone's features, first over space and then over channels, and are told to differ.

Written anew from the paper and from a reading of its authors' code; not a line is theirs, and no
number of theirs is promised. What is ours or was settled by that reading:

- The backbone, its first weights, image size, augmentation, optimizer, schedule and soft targets
  are the config's, so that it stands beside the other systems and not beside its paper.
- Channels are those of the backbone: with 512 of them, the sizes inside a head are the authors'.
- Convolutions have no bias where BatchNorm follows.
- The partition loss takes the logarithm of one variance, the mean over batch and channels, as the
  authors' code does. A floor keeps it finite where all heads agree.
- The affinity loss of a soft target is its expectation. Both losses have weight 1.
"""
# pyright: reportMissingImports=false

from typing import NamedTuple

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

from dmfer_jax.pytorch import losses
from dmfer_jax.pytorch.mirror import MirrorAverage
from dmfer_jax.pytorch.resnet import make_config_backbone

HEADS = 4


class DanOutputs(NamedTuple):
    """What the network gives.

    Attributes:
      logits: `[n, K]`.
      embedding: `[n, c]`, the mean of the backbone's last stage, which the affinity loss is of.
      heads: `[n, HEADS, c]`, log-softmax over the heads, which the partition loss is of.
      affinity_centers: `[K, c]`, learned.
    """

    logits: Tensor
    embedding: Tensor
    heads: Tensor
    affinity_centers: Tensor


class DanNetwork(nn.Module):
    """A backbone under cross-attention heads, whose fused attention is classified.

    Of `config.model` it reads what is of the backbone, `dropout` and `flip_average`, which is of
    the fused attention.

    Args:
      config: of the experiment.
      num_classes: K.
    """

    def __init__(self, config: ConfigDict, num_classes: int) -> None:
        super().__init__()
        self.backbone = make_config_backbone(config)
        channels = self.backbone.stage_channels[-1]
        self.heads = nn.ModuleList(CrossAttentionHead(channels) for _ in range(HEADS))
        self.mirror = MirrorAverage(config.model.flip_average)
        self.dropout = nn.Dropout(config.model.dropout)
        self.head = nn.Linear(channels, num_classes)
        self.norm = nn.BatchNorm1d(num_classes)
        self.affinity_centers = nn.Parameter(torch.randn(num_classes, channels))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> DanOutputs:
        """Returns logits and what the losses need of images `[n, channels, h, w]`, normalised."""
        x = self.backbone(self.mirror.lay_out(images))[-1]  # [n, c, t, t]
        heads = torch.stack([head(x) for head in self.heads], 1).log_softmax(1)  # [n, HEADS, c]
        logits = self.norm(self.head(self.dropout(self.mirror.mean(heads.sum(1)))))
        return DanOutputs(logits, x.mean((2, 3)), heads, self.affinity_centers)


class CrossAttentionHead(nn.Module):
    """Spatial attention, then channel attention: `[n, c, t, t] -> [n, c]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = SpatialAttention(channels)
        self.channel = ChannelGate(channels)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.channel(self.spatial(x))


class SpatialAttention(nn.Module):
    """Weighs each position by what a 3x3, a 1x3 and a 3x1 convolution see: `[n, c, t, t]` kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.reduce = _conv_norm(channels, inner, (1, 1))
        self.square = _conv_norm(inner, channels, (3, 3))
        self.row = _conv_norm(inner, channels, (1, 3))
        self.column = _conv_norm(inner, channels, (3, 1))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.reduce(x)
        seen = F.relu(self.square(y) + self.row(y) + self.column(y))
        return x * seen.sum(1, keepdim=True)  # one weight a position


class ChannelGate(nn.Module):
    """Weighs each channel's mean over space by a gate: `[n, c, t, t] -> [n, c]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 16, 8)
        squeeze, excite = nn.Linear(channels, inner), nn.Linear(inner, channels)
        for layer in (squeeze, excite):  # all gates begin half open
            nn.init.normal_(layer.weight, std=0.001)
            nn.init.zeros_(layer.bias)
        self.gate = nn.Sequential(squeeze, nn.BatchNorm1d(inner), nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        pooled = x.mean((2, 3))
        return pooled * self.gate(pooled)


def dan_loss(outputs: DanOutputs, targets: Tensor) -> Tensor:
    """Returns what DAN adds to the cross-entropy: affinity and partition loss, `[n]`.

    Args:
      outputs: of the network.
      targets: `[n, K]` distributions.
    """
    affinity = losses.affinity(outputs.embedding, outputs.affinity_centers, targets)
    return affinity + partition_loss(outputs.heads)


def partition_loss(heads: Tensor) -> Tensor:
    """Asks the heads to differ: log(1 + HEADS / v), v the mean variance over the heads.

    Args:
      heads: `[n, HEADS, c]`.

    Returns:
      [], the same for each example of the batch.
    """
    variance = heads.var(1).mean().clamp_min(_LEAST_VARIANCE)
    return torch.log1p(heads.shape[1] / variance)


_LEAST_VARIANCE = 1e-8


def _conv_norm(inputs: int, outputs: int, size: tuple[int, int]) -> nn.Sequential:
    """Convolution that keeps the grid, and BatchNorm."""
    padding = (size[0] // 2, size[1] // 2)
    layer = nn.Conv2d(inputs, outputs, size, padding=padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))
