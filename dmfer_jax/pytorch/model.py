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

BACKBONES: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Name -> blocks in each stage, and whether they are bottlenecks."""


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
    del options["dtype"], options["frozen_stages"]  # the second is of training
    model = Dmfer(
        num_classes,
        channels=config.data.channels,
        learned_centers=config.loss.centers == "learned",
        **options,
    )
    return model.to(memory_format=torch.channels_last)


def make_config_backbone(config: ConfigDict) -> "ResNet":
    """Returns the backbone that the config describes: images in, the outputs of its stages out."""
    model = config.model
    return make_backbone(
        model.backbone,
        config.data.channels,
        stem=model.stem,
        stem_stride=model.stem_stride,
        width=model.width,
    )


def make_backbone(
    name: str, channels: int, *, stem: str, stem_stride: int, width: float
) -> "ResNet":
    """Returns a backbone: images in, the outputs of its stages out.

    Args:
      name: of `BACKBONES`.
      channels: of the images, 1 or 3.
      stem: "imagenet" or "small".
      stem_stride: of the small stem.
      width: times the channels.
    """
    return ResNet(channels, *BACKBONES[name], stem, stem_stride, width)


class Dmfer(nn.Module):
    """The discriminative multiscale feature extraction network.

    In training mode BatchNorm gathers the unbiased variance, n/(n-1) times the biased one that Flax
    gathers (n values per channel in a batch). Both normalise a batch by the biased one. So networks
    trained alike have the same parameters, and running variances that differ by that factor.

    Args:
      num_classes: K.
      channels: of the images, 1 or 3.
      backbone, stem, stem_stride, width, embedding, scales, shallow_stage, attention, heads,
        depthwise, compress, dropout, learned_centers: as of `dmfer_jax.models.dmfer.Dmfer`.
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
        learned_centers: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = make_backbone(
            backbone, channels, stem=stem, stem_stride=stem_stride, width=width
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


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and, unless told otherwise, ReLU; He et al.'s initialisation."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = relu
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.norm(self.conv(x))
        return F.relu_(x) if self.relu else x


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 if `bottleneck`."""

    def __init__(self, inputs: int, features: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.outputs = 4 * features if bottleneck else features
        if bottleneck:
            self.conv1 = ConvNorm(inputs, features, 1)
            self.conv2 = ConvNorm(features, features, 3, stride)
            self.conv3: nn.Module = ConvNorm(features, self.outputs, 1, relu=False)
        else:
            self.conv1 = ConvNorm(inputs, features, 3, stride)
            self.conv2 = ConvNorm(features, features, 3, relu=False)
            self.conv3 = nn.Identity()
        same = inputs == self.outputs and stride == 1
        self.downsample: nn.Module = (
            nn.Identity() if same else ConvNorm(inputs, self.outputs, 1, stride, relu=False)
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.conv3(self.conv2(self.conv1(x)))
        # In place: BatchNorm's gradient reads its input, not this output.
        return F.relu_(y.add_(self.downsample(x)))


class ResNet(nn.Module):
    """The convolutional part of a ResNet: images in, the outputs of its four stages out."""

    def __init__(
        self,
        channels: int,
        blocks: tuple[int, ...],
        bottleneck: bool,
        stem: str,
        stem_stride: int,
        width: float,
    ) -> None:
        super().__init__()
        base = max(8, round(64 * width / 8) * 8)
        if stem == "imagenet":
            self.stem = ConvNorm(channels, base, 7, 2)
            self.pool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.stem = ConvNorm(channels, base, 3, stem_stride)
            self.pool = nn.Identity()
        self.stages: list[list[str]] = []  # the names of the blocks, which are Flax's
        self.stage_channels: list[int] = []
        x = base
        for stage, count in enumerate(blocks):
            names = [f"stage{stage + 1}_block{index + 1}" for index in range(count)]
            for index, name in enumerate(names):
                stride = 2 if stage > 0 and index == 0 else 1
                block = Block(x, base * 2**stage, stride, bottleneck)
                self.add_module(name, block)
                x = block.outputs
            self.stages.append(names)
            self.stage_channels.append(x)

    def forward(self, images: Tensor) -> list[Tensor]:  # noqa: D102
        x = self.pool(self.stem(images.contiguous(memory_format=torch.channels_last)))
        outputs = []
        for names in self.stages:
            for name in names:
                x = getattr(self, name)(x)
            outputs.append(x)
        return outputs


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
            for name in self.down:
                y = getattr(self, name)(y)
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
