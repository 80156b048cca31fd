"""The network of `dmfer_jax.models` in PyTorch, with the same options, names and numbers.

Images are `[n, channels, h, w]` and are computed on in the memory format channels_last, in which
PyTorch's convolutions are fastest. A module has the name that it has in Flax.
"""
# pyright: reportMissingImports=false

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

from dmfer_jax.pytorch import limits
from dmfer_jax.pytorch.resnet import ConvNorm, make_backbone


class Outputs(NamedTuple):
    """What the network gives: logits `[n, K]`, embedding `[n, C]`, centers `[K, C]` if learned."""

    logits: Tensor
    embedding: Tensor
    centers: Tensor | None


def make_model(config: ConfigDict, num_classes: int) -> "Dmfer":
    """Returns the network that the config describes, in the memory format channels_last.

    Raises:
      UserError: the config asks for another type than float32.
    """
    limits.check_type(config)
    options: dict[str, Any] = dict(config.model.items())
    del options["dtype"]
    model = Dmfer(
        num_classes,
        channels=config.data.channels,
        learned_centers=config.loss.centers == "learned",
        **options,
    )
    return model.to(memory_format=torch.channels_last)


class Dmfer(nn.Module):
    """The discriminative multiscale feature extraction network.

    In training mode BatchNorm gathers the unbiased variance, n/(n-1) times the biased one that Flax
    gathers (n values per channel in a batch). Both normalise a batch by the biased one. So networks
    trained alike have the same parameters, and running variances that differ by that factor.

    Args:
      num_classes: K.
      channels: of the images, 1 or 3.
      backbone, stem, stem_stride, width, embedding, scales, shallow_stage, attention, heads,
        depthwise, compress, dropout, frozen_stages, learned_centers: as of
        `dmfer_jax.models.dmfer.Dmfer`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        channels: int = 3,
        backbone: str = "resnet18",
        stem: str = "imagenet",
        stem_stride: int = 1,
        width: float = 1.0,
        embedding: int = 512,
        scales: str = "both",
        shallow_stage: int = 2,
        attention: str = "channel",
        heads: int = 8,
        depthwise: bool = False,
        compress: str = "conv",
        dropout: float = 0.0,
        frozen_stages: int = 0,
        learned_centers: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = make_backbone(
            backbone,
            channels,
            stem=stem,
            stem_stride=stem_stride,
            width=width,
            frozen_stages=frozen_stages,
        )
        self.two_scale = TwoScaleFeatures(
            self.backbone.stage_channels, embedding, scales, shallow_stage
        )
        features = embedding * (2 if scales == "both" else 1)
        if attention == "channel":
            self.attention: nn.Module = ChannelSelfAttention(features, heads, depthwise)
        elif attention == "squeeze_excite":
            self.attention = SqueezeExcite(features)
        else:
            self.attention = nn.Identity()
        if compress == "conv":
            self.compress: nn.Module = ConvNorm(features, embedding, 1, relu=False)
        else:
            self.compress = TopChannels(embedding) if scales == "both" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embedding, num_classes)
        centers = nn.Parameter(torch.randn(num_classes, embedding)) if learned_centers else None
        self.register_parameter("centers", centers)

    def forward(self, images: Tensor) -> Outputs:
        """Returns logits and embedding of images `[n, channels, h, w]`, normalised float."""
        x = self.two_scale(self.backbone(images))  # [n, C or 2C, t, t]
        x = self.compress(self.attention(x))
        embedding = x.mean((2, 3))  # [n, C]
        return Outputs(self.head(self.dropout(embedding)), embedding, self.centers)


class TwoScaleFeatures(nn.Module):
    """Shallow and deep features on the deep stage's grid, `[n, C or 2C, t, t]`, shallow first."""

    def __init__(
        self, stage_channels: list[int], channels: int, scales: str, shallow_stage: int
    ) -> None:
        super().__init__()
        self.scales, self.shallow_stage = scales, shallow_stage
        if scales in ("shallow", "both"):
            inputs = stage_channels[shallow_stage - 1]
            self.down = [f"shallow_down{i}" for i in range(shallow_stage, len(stage_channels))]
            for name in self.down:
                self.add_module(name, ConvNorm(inputs, inputs, 3, 2))
            self.shallow = ConvNorm(inputs, channels, 1)
        if scales in ("deep", "both"):
            self.deep = ConvNorm(stage_channels[-1], channels, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:  # noqa: D102
        features = []
        if self.scales in ("shallow", "both"):
            y = stages[self.shallow_stage - 1]
            for name, deeper in zip(self.down, stages[self.shallow_stage :], strict=True):
                # Where the backbone rounds halves down, there may be a row and a column too many.
                y = getattr(self, name)(y[:, :, : 2 * deeper.shape[2], : 2 * deeper.shape[3]])
            features.append(self.shallow(y))
        if self.scales in ("deep", "both"):
            features.append(self.deep(stages[-1]))
        return torch.cat(features, 1) if len(features) > 1 else features[0]


class ChannelSelfAttention(nn.Module):
    """Self-attention whose tokens are channels, with a residual: softmax(tau Q K^T) V."""

    def __init__(self, channels: int, heads: int, depthwise: bool) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be divided among {heads} heads")
        self.heads, self.depthwise = heads, depthwise
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Conv2d(channels, channels, 1, bias=False))
            if depthwise:
                layer = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
                self.add_module(f"{name}_depthwise", layer)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        # The temperature goes to q, which has fewer numbers than the attention.
        q = F.normalize(self._project("query", x), dim=-1, eps=1e-6) * self.temperature
        k = F.normalize(self._project("key", x), dim=-1, eps=1e-6)
        y = F.scaled_dot_product_attention(q, k, self._project("value", x), scale=1.0)
        return x + y.reshape(x.shape)

    def _project(self, name: str, x: Tensor) -> Tensor:
        """Returns `[n, heads, c/heads, h*w]`."""
        y = getattr(self, name)(x)
        if self.depthwise:
            y = getattr(self, f"{name}_depthwise")(y)
        return y.flatten(2).unflatten(1, (self.heads, -1))


class SqueezeExcite(nn.Module):
    """A gate per channel from its mean over space."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(channels // reduction, 8))
        self.excite = nn.Linear(max(channels // reduction, 8), channels)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        gate = torch.sigmoid(self.excite(F.relu_(self.squeeze(x.mean((2, 3))))))  # [n, c]
        return x * gate[:, :, None, None]


class TopChannels(nn.Module):
    """Of the channels at the same place in both scales, the one with the larger mean square."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        shallow, deep = x.split(self.channels, 1)
        strength = x.detach().square().mean((2, 3), keepdim=True)
        stronger = strength[:, self.channels :] > strength[:, : self.channels]  # a tie is shallow
        return torch.where(stronger, deep, shallow)
