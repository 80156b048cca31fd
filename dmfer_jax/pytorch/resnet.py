"""The backbones of `dmfer_jax.models` in PyTorch: they hand out every stage."""
# pyright: reportMissingImports=false

from collections.abc import Iterator, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

BACKBONES: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""Of the ResNets: name -> blocks in each stage, and whether they are bottlenecks."""


FACE_BLOCKS = (3, 4, 3, 3)
"""Blocks in each stage of `FaceResNet`."""


def make_config_backbone(config: ConfigDict) -> "Backbone":
    """Returns the backbone that the config describes."""
    model = config.model
    return make_backbone(
        model.backbone,
        config.data.channels,
        stem=model.stem,
        stem_stride=model.stem_stride,
        width=model.width,
        frozen_stages=model.frozen_stages,
    )


def make_backbone(
    name: str, channels: int, *, stem: str, stem_stride: int, width: float, frozen_stages: int
) -> "Backbone":
    """Returns a backbone.

    Args:
      name: of `BACKBONES`, or "face_resnet".
      channels: of the images, 1 or 3.
      stem: of the ResNets: "imagenet" or "small".
      stem_stride: of the small stem.
      width: times the channels.
      frozen_stages: see `Backbone`.
    """
    if name == "face_resnet":
        return FaceResNet(channels, width, frozen_stages)
    return ResNet(channels, *BACKBONES[name], stem, stem_stride, width, frozen_stages)


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and, unless told otherwise, ReLU; He et al.'s initialisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = size // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
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


class FaceBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 2x2 mean and zeros where `down`."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.down, self.outputs = down, outputs
        stride, padding = (2, 0) if down else (1, 1)
        self.conv1 = ConvNorm(inputs, outputs, 3, stride, padding)
        self.conv2 = ConvNorm(outputs, outputs, 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.conv2(self.conv1(x))
        if self.down:
            x = F.avg_pool2d(x, 2)
            # Without padding an even map loses a row and a column that the mean still has.
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)


class Backbone(nn.Module):
    """What backbones share: a stem, and blocks in stages, of which the first may be frozen.

    A frozen stage, and the stem, get no gradient; their BatchNorms use, and keep, their running
    statistics in training, too. Modules have Flax's names.

    Args:
      stem: a convolution.
      pool: what follows it.
      stages: the blocks of each stage.
      frozen_stages: n; the stem and stages 1 to n do not learn. 0 is none.

    Attributes:
      stage_channels: of each stage's output.
    """

    def __init__(
        self,
        stem: ConvNorm,
        pool: nn.Module,
        stages: Sequence[Sequence[Block | FaceBlock]],
        frozen_stages: int,
    ) -> None:
        super().__init__()
        self.stem, self.pool, self.frozen_stages = stem, pool, frozen_stages
        self.stages: list[list[str]] = []
        for stage, blocks in enumerate(stages, start=1):
            self.stages.append([f"stage{stage}_block{n}" for n in range(1, len(blocks) + 1)])
            for name, block in zip(self.stages[-1], blocks, strict=True):
                self.add_module(name, block)
        self.stage_channels = [blocks[-1].outputs for blocks in stages]
        for part in self._frozen():
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Returns the stages' outputs, `[n, c_i, h_i, w_i]` each."""
        x = self.pool(self.stem(images.contiguous(memory_format=torch.channels_last)))
        outputs = []
        for names in self.stages:
            for name in names:
                x = getattr(self, name)(x)
            outputs.append(x)
        return outputs

    def train(self, mode: bool = True) -> Self:
        """Sets all but what is frozen into training mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def _frozen(self) -> Iterator[nn.Module]:
        if self.frozen_stages:
            yield self.stem
        for names in self.stages[: self.frozen_stages]:
            yield from (getattr(self, name) for name in names)


class ResNet(Backbone):
    """The convolutional part of a ResNet (He et al., 2016)."""

    def __init__(
        self,
        channels: int,
        blocks: tuple[int, ...],
        bottleneck: bool,
        stem: str,
        stem_stride: int,
        width: float,
        frozen_stages: int,
    ) -> None:
        x = base = max(8, round(64 * width / 8) * 8)
        pool: nn.Module = nn.Identity()
        if stem == "imagenet":
            first, pool = ConvNorm(channels, base, 7, 2), nn.MaxPool2d(3, 2, 1)
        else:
            first = ConvNorm(channels, base, 3, stem_stride)
        stages: list[list[Block]] = []
        for stage, count in enumerate(blocks):
            stages.append([])
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                stages[-1].append(Block(x, base * 2**stage, stride, bottleneck))
                x = stages[-1][-1].outputs
        super().__init__(first, pool, stages, frozen_stages)


class FaceResNet(Backbone):
    """The face recognition network of dlib (King, 2017), as `models.face_resnet.FaceResNet`."""

    def __init__(self, channels: int, width: float, frozen_stages: int) -> None:
        x = base = max(8, round(32 * width / 8) * 8)
        stages: list[list[FaceBlock]] = []
        for stage, count in enumerate(FACE_BLOCKS):
            stages.append([])
            for index in range(count):
                stages[-1].append(FaceBlock(x, base * 2**stage, stage > 0 and index == 0))
                x = base * 2**stage
        stem = ConvNorm(channels, base, 7, 2, padding=0)
        super().__init__(stem, nn.MaxPool2d(3, 2), stages, frozen_stages)
