"""The plain baseline: a backbone, global average pooling and a linear layer, with cross-entropy."""
# pyright: reportMissingImports=false

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from dmfer_jax.pytorch.mirror import MirrorAverage
from dmfer_jax.pytorch.model import Outputs
from dmfer_jax.pytorch.resnet import make_config_backbone


class PlainNetwork(nn.Module):
    """The config's backbone with a linear layer on the mean of its last stage.

    Of `config.model` it reads what is of the backbone, `dropout` and `flip_average`.

    Args:
      config: of the experiment.
      num_classes: K.
    """

    def __init__(self, config: ConfigDict, num_classes: int) -> None:
        super().__init__()
        self.backbone = make_config_backbone(config)
        self.mirror = MirrorAverage(config.model.flip_average)
        self.dropout = nn.Dropout(config.model.dropout)
        self.head = nn.Linear(self.backbone.stage_channels[-1], num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Outputs:
        """Returns logits and embedding of images `[n, channels, h, w]`, normalised float."""
        images = self.mirror.lay_out(images)
        embedding = self.mirror.mean(self.backbone(images)[-1].mean((2, 3)))  # [n, c]
        return Outputs(self.head(self.dropout(embedding)), embedding, None)
