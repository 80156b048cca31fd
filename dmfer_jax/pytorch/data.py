"""Training batches as a PyTorch user makes them: a Dataset that augments, behind a DataLoader.

The augmentations are those of `dmfer_jax.data.augment`, one image at a time and each in a few
calls, as torchvision's are made. torchvision's own cannot be used: its RandomAffine does not repeat
the edge, and its RandomErasing draws from a normal distribution.
"""
# pyright: reportMissingImports=false

import math
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dmfer_jax.errors import UserError


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Images in memory, each augmented anew whenever it is asked for.

    An item is the image `[c, h, w]`, float32 in -1 to 1, and its target `[K]`.

    Args:
      images: uint8 `[n, h, w, c]`.
      targets: float32 `[n, K]`.
      options: `config.augment`.
    """

    def __init__(self, images: np.ndarray, targets: np.ndarray, options: ConfigDict) -> None:
        # Bytes of each channel together, as the operations below read them.
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.targets = torch.from_numpy(targets)
        self.options: dict[str, Any] = options.to_dict()  # a tenth of the time of a ConfigDict

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return augment(self.images[index], self.options), self.targets[index]


def make_loader(
    images: np.ndarray, targets: np.ndarray, options: ConfigDict, batch_size: int, workers: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Returns the shuffled batches of an epoch; the last images that fill none are left out.

    Args:
      images: uint8 `[n, h, w, c]`; workers share them.
      targets: float32 `[n, K]`.
      options: `config.augment`.
      batch_size: b.
      workers: processes that read ahead; 0 reads in the process that asks, when it asks.

    Returns:
      What yields images `[b, c, h, w]`, float32 in -1 to 1, and targets `[b, K]`.

    Raises:
      UserError: mixup is asked for, which is of batches.
    """
    mixup: Any = options.mixup
    if mixup:
        raise UserError(
            f"config.augment.mixup is {mixup}; these batches are without it: set it to 0"
        )
    return DataLoader(
        AugmentedImages(images, targets, options),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def augment(image: Tensor, options: dict[str, Any]) -> Tensor:
    """Applies every augmentation whose strength is not 0, and normalises.

    Args:
      image: uint8 `[c, h, w]`.
      options: `config.augment`.

    Returns:
      float32 `[c, h, w]` in -1 to 1.
    """
    x = image.float().div_(255)
    draw = random.uniform
    shift, scale = options["shift"], options["scale"]
    if options["rotation"] or shift or scale or options["flip"]:
        x = warp(
            x,
            mirrored=random.random() < options["flip"],
            angle=draw(-options["rotation"], options["rotation"]),
            zoom=1.0 + draw(-scale, scale),
            down=draw(-shift, shift),
            right=draw(-shift, shift),
        )
    if limit := options["brightness"]:
        x.add_(draw(-limit, limit)).clamp_(0, 1)
    if limit := options["contrast"]:
        change_contrast(x, draw(1 - limit, 1 + limit))
    if random.random() < options["erase"]:
        share, ratio = draw(*options["erase_area"]), math.exp(draw(-1.2, 1.2))
        erase(x, share, ratio, random.random(), random.random())
    return x.mul_(2).sub_(1)


def warp(
    image: Tensor, *, mirrored: bool, angle: float, zoom: float, down: float, right: float
) -> Tensor:
    """Mirrors, rotates, shifts and scales about the center, in one resampling.

    Args:
      image: float `[c, h, w]`.
      mirrored: left and right changed.
      angle: degrees.
      zoom: above 1 enlarges.
      down: share of the height by which the place that a pixel comes from is shifted.
      right: share of the width, likewise.

    Returns:
      An image like `image`, bilinear; pixels from outside repeat the edge.
    """
    _, h, w = image.shape
    cos, sin = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    mirror = -1.0 if mirrored else 1.0
    # Places from -1 to 1, which are the centers of the first and the last pixel.
    across, along = 2 / (w - 1), 2 / (h - 1)
    theta = torch.tensor(
        [
            [
                [cos * mirror, -sin * across / along, right * w * across],
                [sin * mirror * along / across, cos, down * h * along],
            ]
        ]
    )
    grid = F.affine_grid(theta, [1, 1, h, w], align_corners=True)
    return F.grid_sample(image[None], grid, "bilinear", "border", align_corners=True)[0]


def change_contrast(image: Tensor, factor: float) -> None:
    """Multiplies, in place, an image's difference from its mean, and keeps it within 0 to 1."""
    mean = image.mean()
    image.sub_(mean).mul_(factor).add_(mean).clamp_(0, 1)


def erase(image: Tensor, share: float, ratio: float, top: float, left: float) -> None:
    """Fills a rectangle, in place, with noise from 0 to 1.

    Args:
      image: float `[c, h, w]`.
      share: of the image's area.
      ratio: of its height by its width.
      top: where it lies, of all the places from the top (0) to the bottom (1).
      left: likewise, from the left (0) to the right (1).
    """
    _, h, w = image.shape
    height, width = min(math.sqrt(share * ratio), 1.0) * h, min(math.sqrt(share / ratio), 1.0) * w
    first_row, first_column = top * (h - height), left * (w - width)
    # A pixel is inside where its center is.
    rows = slice(math.ceil(first_row - 0.5), math.ceil(first_row + height - 0.5))
    columns = slice(math.ceil(first_column - 0.5), math.ceil(first_column + width - 0.5))
    image[:, rows, columns].uniform_(0, 1)
