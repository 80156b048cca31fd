"""The network: backbone, two scales, channel self-attention, compression, head.

Reconstructed from the abstract of Wen et al., *A discriminative multiscale feature extraction
network for facial expression recognition in the wild* (2024). What the abstract leaves open is an
attribute here.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from dmfer_jax.models.channel_attention import ChannelSelfAttention, SqueezeExcite
from dmfer_jax.models.face_resnet import FaceResNet
from dmfer_jax.models.loss_parts import AttentionNetwork, CosineHead
from dmfer_jax.models.resnet import BACKBONES, ConvNorm, ResNet
from dmfer_jax.models.two_scale import TwoScaleFeatures
from dmfer_jax.models.vectors import EXACT


class Outputs(NamedTuple):
    """What the network gives, in float32 (or in float64, where it computes in that).

    Attributes:
      logits: `[n, K]`.
      embedding: `[n, C]`, what the center cosine loss works on.
      centers: `[K, C]` if they are learned parameters, else None.
      attention: `[n, C]` in 0 to 1, what DACL's network says of the embedding, else None.
    """

    logits: Array
    embedding: Array
    centers: Array | None
    attention: Array | None = None


class Dmfer(nn.Module):
    """The discriminative multiscale feature extraction network.

    Attributes:
      num_classes: K.
      backbone: "resnet10", "resnet18", "resnet34", "resnet50" or "face_resnet" (see `FaceResNet`).
      stem, stem_stride: see `ResNet`; "face_resnet" has a stem of its own.
      width, frozen_stages: see `ResNet`.
      embedding: C, the channels of each scale and the length of the embedding.
      scales, shallow_stage: see `TwoScaleFeatures`.
      attention: "channel", "squeeze_excite" or "none".
      heads, depthwise: see `ChannelSelfAttention`.
      compress: "conv" (1x1 convolution and BatchNorm to C) or "top" (of each pair of a shallow and
        a deep channel, the one that answers more strongly).
      dropout: rate, on the embedding before the linear layer.
      flip_average: when not training, the embedding is the mean of those of the image and of its
        mirror image.
      learned_centers: makes the class centers a parameter instead of training state.
      attentive: adds the network of the attentive center loss, see `AttentionNetwork`.
      cosine_scale: s of a `CosineHead`; None is a linear head.
      folded: see `ResNet`; such a network cannot be trained. `folding.fold_batch_norm` makes it.
      dtype, param_dtype: see `ResNet`.
    """

    num_classes: int
    backbone: str = "resnet18"
    stem: str = "imagenet"
    stem_stride: int = 1
    width: float = 1.0
    embedding: int = 512
    scales: str = "both"
    shallow_stage: int = 2
    attention: str = "channel"
    heads: int = 8
    depthwise: bool = False
    compress: str = "conv"
    dropout: float = 0.0
    frozen_stages: int = 0
    flip_average: bool = False
    learned_centers: bool = False
    attentive: bool = False
    cosine_scale: float | None = None
    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Returns logits and embedding of images `[n, h, w, 1 or 3]`, normalised float.

        Args:
          images: as `data.augment.normalize` gives them.
          train: BatchNorm on the batch's own statistics, dropout on (needs a "dropout" rng).

        Raises:
          ValueError: a folded network is to be trained.
        """
        if train and self.folded:
            raise ValueError("a folded network has no BatchNorm left to train; train the original")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        layers = {"folded": self.folded, **types}
        pairs = self.flip_average and not train
        images = beside_mirror_images(images) if pairs else images  # [n or 2n, h, w, 1 or 3]
        shared = {"width": self.width, "frozen_stages": self.frozen_stages, "name": "backbone"}
        if self.backbone == "face_resnet":
            backbone = FaceResNet(**shared, **layers)
        else:
            stem = {"stem": self.stem, "stem_stride": self.stem_stride}
            backbone = ResNet(**BACKBONES[self.backbone], **stem, **shared, **layers)
        stages = backbone(images, train)
        x = TwoScaleFeatures(
            self.embedding, self.scales, self.shallow_stage, name="two_scale", **layers
        )(stages, train)  # [n, t, t, C or 2C]
        if self.attention == "channel":
            x = ChannelSelfAttention(self.heads, self.depthwise, name="attention", **types)(x)
        elif self.attention == "squeeze_excite":
            x = SqueezeExcite(name="attention", **types)(x)
        if self.compress == "conv":
            # No ReLU: an embedding without negative values could never be far from another class.
            x = ConvNorm(self.embedding, 1, relu=False, name="compress", **layers)(x, train)
        else:
            x = keep_top_channels(x, self.embedding)
        embedding = x.mean(axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))  # [n, C]
        attention = centers = None
        if self.attentive:
            attention = AttentionNetwork(name="attentive", **layers)(x, train)
        if pairs:
            embedding, attention = jax.tree.map(mean_of_pairs, (embedding, attention))
        if self.learned_centers:
            shape = (self.num_classes, self.embedding)
            centers = self.param("centers", nn.initializers.normal(1.0), shape, jnp.float32)
        y = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        scale = self.cosine_scale
        exact = partial(nn.Dense, precision=EXACT)
        head = exact if scale is None else partial(CosineHead, scale=scale)
        logits = head(self.num_classes, param_dtype=self.param_dtype, name="head")(y)
        return Outputs(logits, embedding, centers, attention)


def beside_mirror_images(images: Array) -> Array:
    """Returns `[2n, h, w, c]`: each image of `[n, h, w, c]`, and behind it its mirror image.

    Not all images and then all mirror images: what lies on several devices stays where it is.
    """
    both = jnp.stack([images, jnp.flip(images, axis=2)], axis=1)
    return both.reshape(-1, *images.shape[1:])


def mean_of_pairs(rows: Array) -> Array:
    """Returns the means `[n, C]` of each two neighbours of `[2n, C]`."""
    return rows.reshape(-1, 2, rows.shape[-1]).mean(axis=1)


def keep_top_channels(x: Array, channels: int) -> Array:
    """Keeps, of the channels at the same place in each scale, the one with the larger mean square.

    Args:
      x: `[n, t, t, scales * channels]`.
      channels: how many to keep.

    Returns:
      `[n, t, t, channels]`.
    """
    n, h, w, c = x.shape
    by_scale = x.reshape(n, h, w, c // channels, channels)
    strength = jnp.mean(jnp.square(by_scale), axis=(1, 2), keepdims=True)
    strongest = jnp.argmax(strength, axis=3, keepdims=True)  # [n, 1, 1, 1, channels]
    # Chosen by comparing, and not by indices, of which runtimes make slow and large programs.
    chosen = strongest == jnp.arange(c // channels)[:, None]  # [n, 1, 1, scales, channels]
    return jnp.where(chosen, by_scale, 0).sum(axis=3)
