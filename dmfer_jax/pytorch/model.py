"""The network of `dmfer_jax.models` in PyTorch, with the same options, names and numbers.

Images are `[n, channels, h, w]` and are computed on in the memory format channels_last, in which
PyTorch's convolutions are fastest. A module has the name that it has in Flax.
"""
# pyright: reportMissingImports=false

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

from dmfer_jax.loss_options import has_unit_centers, network_options
from dmfer_jax.pytorch import limits
from dmfer_jax.pytorch.channel_attention import ChannelSelfAttention, SqueezeExcite
from dmfer_jax.pytorch.mirror import MirrorAverage
from dmfer_jax.pytorch.resnet import Backbone, ConvNorm, make_backbone


class Outputs(NamedTuple):
    """What the network gives: logits `[n, K]`, embedding `[n, C]`, centers `[K, C]` if learned.

    And attention `[n, C]` in 0 to 1, where the attentive center loss asks for it.
    """

    logits: Tensor
    embedding: Tensor
    centers: Tensor | None
    attention: Tensor | None = None


def make_model(config: ConfigDict, num_classes: int) -> "Dmfer":
    """Returns the network that the config describes, in the memory format channels_last.

    Raises:
      UserError: the config asks for another type than float32.
    """
    limits.check_type(config)
    options = network_options(config)
    del options["dtype"]
    model = Dmfer(
        num_classes,
        image_size=config.data.image_size,
        channels=config.data.channels,
        **options,
    )
    if model.centers is not None and has_unit_centers(config.loss):
        with torch.no_grad():  # as in state.init_state
            model.centers.copy_(F.normalize(model.centers, dim=-1))
    return model.to(memory_format=torch.channels_last)


class Dmfer(nn.Module):
    """The discriminative multiscale feature extraction network.

    In training mode BatchNorm gathers the unbiased variance, n/(n-1) times the biased one that Flax
    gathers (n values per channel in a batch). Both normalise a batch by the biased one. So networks
    trained alike have the same parameters, and running variances that differ by that factor.

    Args:
      num_classes: K.
      image_size: height and width in pixels.
      channels: of the images, 1 or 3.
      backbone, stem, stem_stride, width, embedding, scales, shallow_stage, attention, heads,
        depthwise, compress, dropout, flip_average, frozen_stages, learned_centers, attentive,
        cosine_scale: as of
        `dmfer_jax.models.dmfer.Dmfer`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int = 112,
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
        flip_average: bool = False,
        frozen_stages: int = 0,
        learned_centers: bool = False,
        attentive: bool = False,
        cosine_scale: float | None = None,
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
        self.attentive = None
        if attentive:
            side = _side_of_features(self.backbone, channels, image_size)
            self.attentive = AttentionNetwork(embedding, side)
        self.mirror = MirrorAverage(flip_average)
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(embedding, num_classes, cosine_scale)
        centers = nn.Parameter(torch.randn(num_classes, embedding)) if learned_centers else None
        self.register_parameter("centers", centers)

    def forward(self, images: Tensor) -> Outputs:
        """Returns logits and embedding of images `[n, channels, h, w]`, normalised float."""
        images = self.mirror.lay_out(images)
        x = self.two_scale(self.backbone(images))  # [n, C or 2C, t, t]
        x = self.compress(self.attention(x))
        embedding = self.mirror.mean(x.mean((2, 3)))  # [n, C]
        attention = None if self.attentive is None else self.mirror.mean(self.attentive(x))
        return Outputs(self.head(self.dropout(embedding)), embedding, self.centers, attention)


def _side_of_features(backbone: Backbone, channels: int, image_size: int) -> int:
    """Returns the height and width of the last stage's output, of images of this side."""
    image = torch.empty(1, channels, image_size, image_size, device="meta")  # nothing is computed
    return copy.deepcopy(backbone).to("meta")(image)[-1].shape[-1]


def make_head(inputs: int, classes: int, cosine_scale: float | None) -> nn.Linear:
    """Returns a linear head, or the one of scaled cosines."""
    if cosine_scale is None:
        return nn.Linear(inputs, classes)
    return CosineHead(inputs, classes, cosine_scale)


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


class AttentionNetwork(nn.Module):
    """DACL's attention, reduced: of a feature map, weights `[n, C]` in 0 to 1."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.hidden = ConvNorm(side * side * channels, channels, 1)
        self.code = ConvNorm(channels, 64, 1, relu=False)
        self.weights = nn.Linear(64, channels)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        flat = x.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]  # in Flax's order
        return torch.sigmoid(self.weights(torch.tanh(self.code(self.hidden(flat))).flatten(1)))


class CosineHead(nn.Linear):
    """Logits s cos(x, w_j)."""

    def __init__(self, inputs: int, classes: int, scale: float) -> None:
        super().__init__(inputs, classes, bias=False)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        unit = F.normalize(self.weight, dim=-1, eps=1e-6)
        return self.scale * F.linear(F.normalize(input, dim=-1, eps=1e-6), unit)
