"""Prediction from an image and its mirror image, in PyTorch."""
# pyright: reportMissingImports=false

import torch
from torch import Tensor, nn


class MirrorAverage(nn.Module):
    """Puts mirror images beside a batch, and averages over both; does nothing in training.

    Args:
      wanted: whether it does so in evaluation.
    """

    def __init__(self, wanted: bool) -> None:
        super().__init__()
        self.wanted = wanted

    def lay_out(self, images: Tensor) -> Tensor:
        """Returns `[2n, c, h, w]` of `[n, c, h, w]`: all images, and all mirror images behind."""
        return torch.cat([images, images.flip(3)]) if self._acts() else images

    def mean(self, rows: Tensor) -> Tensor:
        """Returns `[n, c]` of `[2n, c]`: the means of images and of their mirror images."""
        if not self._acts():
            return rows
        first, second = rows.chunk(2)
        return (first + second) / 2

    def _acts(self) -> bool:
        return self.wanted and not self.training
