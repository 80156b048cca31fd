"""The network: backbone, two scales, channel self-attention, compression, head.

Reconstructed from the abstract of Wen et al., *A discriminative multiscale feature extraction
network for facial expression recognition in the wild* (2024). What the abstract leaves open is an
attribute here.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from dmfer_jax.models.channel_attention import ChannelSelfAttention, SqueezeExcite
from dmfer_jax.models.face_resnet import FaceResNet
from dmfer_jax.models.resnet import BACKBONES, ConvNorm, ResNet
from dmfer_jax.models.two_scale import TwoScaleFeatures


class Outputs(NamedTuple):
    """What the network gives, in float32 (or in float64, where it computes in that).

    Attributes:
      logits: `[n, K]`.
      embedding: `[n, C]`, what the center cosine loss works on.
      centers: `[K, C]` if they are learned parameters, else None.
    """

    logits: Array
    embedding: Array
    centers: Array | None


class Dmfer(nn.Module):
    """The discriminative multiscale feature extraction network.

    Attributes:
      num_classes: K.
      backbone: "resnet18", "resnet34", "resnet50" or "face_resnet" (see `FaceResNet`).
      stem, stem_stride: see `ResNet`; "face_resnet" has a stem of its own.
      width, frozen_stages: see `ResNet`.
      embedding: C, the channels of each scale and the length of the embedding.
      scales, shallow_stage: see `TwoScaleFeatures`.
      attention: "channel", "squeeze_excite" or "none".
      heads, depthwise: see `ChannelSelfAttention`.
      compress: "conv" (1x1 convolution and BatchNorm to C) or "top" (of each pair of a shallow and
        a deep channel, the one that answers more strongly).
      dropout: rate, on the embedding before the linear layer.
      learned_centers: makes the class centers a parameter instead of training state.
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
    learned_centers: bool = False
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
        embedding = x.mean(axis=(1, 2))
        embedding = embedding.astype(jnp.promote_types(x.dtype, jnp.float32))  # [n, C]
        centers = None
        if self.learned_centers:
            shape = (self.num_classes, self.embedding)
            centers = self.param("centers", nn.initializers.normal(1.0), shape, jnp.float32)
        y = nn.Dropout(self.dropout, deterministic=not train)(embedding)
        logits = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(y)
        return Outputs(logits, embedding, centers)


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
    return jnp.take_along_axis(by_scale, strongest, axis=3)[:, :, :, 0]
