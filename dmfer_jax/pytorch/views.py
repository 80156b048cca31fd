"""Views of an image whose embeddings are averaged where nothing is trained, in PyTorch."""
# pyright: reportMissingImports=false

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ZOOMS = (1.0, 1.08, 1.16)
"""Those of `dmfer_jax.models.views`, written again: what is here stands without JAX."""


class Views:
    """What a network sees of an image when it is not training.

    Args:
      flip: whether mirror images are among the views.
      zoom: whether there is a view for each of `ZOOMS`.
    """

    def __init__(self, flip: bool, zoom: bool) -> None:
        self.flip, self.zooms = flip, ZOOMS if zoom else (1.0,)
        self.number = (2 if flip else 1) * len(self.zooms)

    @classmethod
    def of(cls, model: Any) -> "Views":
        """Those that `config.model` asks for."""
        return cls(model.flip_average, model.zoom_average)

    def lay_out(self, images: Tensor) -> Tensor:
        """Returns `[views * n, c, h, w]` of `[n, c, h, w]`: all images in a view, then the next."""
        views = [enlarge(images, factor) for factor in self.zooms]
        views += [view.flip(3) for view in views] if self.flip else []
        return torch.cat(views) if len(views) > 1 else images

    def mean(self, rows: Tensor) -> Tensor:
        """Returns `[n, c]` of `[views * n, c]`: the mean over the views of each image."""
        return rows.unflatten(0, (self.number, -1)).mean(0)


def enlarge(images: Tensor, factor: float) -> Tensor:
    """Returns images `[n, c, h, w]` enlarged about their center, bilinear, cut to `[h, w]`."""
    if factor == 1.0:
        return images
    to_source = torch.tensor([[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]], device=images.device)
    theta = to_source.to(images.dtype).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)
