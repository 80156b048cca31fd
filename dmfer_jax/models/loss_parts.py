"""Parts of the network that only some of the losses need: a head of cosines, DACL's attention."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from dmfer_jax.models.resnet import ConvNorm
from dmfer_jax.models.vectors import product, unit


class CosineHead(nn.Module):
    """Logits s cos(x, w_j) `[n, K]` of embeddings `[n, C]`: no bias, and no length matters.

    The head that CosFace (Wang et al., 2018) and ArcFace (Deng et al., 2019) train with a margin.
    The margin is of their losses; the logits have none, in training neither.

    Attributes:
      classes: K.
      scale: s, the inverse temperature of the softmax over cosines.
    """

    classes: int
    scale: float
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:  # noqa: D102 (the class says it)
        # Of length about 1: the longer a w_j is, the less a step turns it.
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (x.shape[-1], self.classes), self.param_dtype)
        return self.scale * product(unit(x), unit(kernel, axis=0))


class AttentionNetwork(nn.Module):
    """The attention network of DACL: how much each dimension of the embedding counts.

    From a feature map `[n, t, t, C]` to weights `[n, C]` in 0 to 1, for `losses.attentive_center`.
    Prediction does not need it.

    Of Farzaneh and Qi, *Facial Expression Recognition in the Wild via Deep Attentive Center Loss*
    (WACV 2021), whose code (github.com/amirhfarzaneh/dacl) has linear layers from the flattened map
    to 3,584, 512 and 64 numbers, BatchNorm behind each, ReLU behind the first two and tanh behind
    the third, and then a softmax over two numbers for each dimension. Here the layer of 3,584 is
    left out, the second one has C numbers, and the softmax over two is a sigmoid of one, which is
    their difference. The map is the one that the embedding is the mean of.

    Attributes:
      folded, dtype, param_dtype: see `ResNet`.
    """

    folded: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:  # noqa: D102
        n, c = x.shape[0], x.shape[-1]
        layer = partial(
            ConvNorm, size=1, folded=self.folded, dtype=self.dtype, param_dtype=self.param_dtype
        )
        y = layer(c, name="hidden")(x.reshape(n, 1, 1, -1), train)
        y = nn.tanh(layer(64, relu=False, name="code")(y, train)).reshape(n, 64)
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        return nn.sigmoid(nn.Dense(c, param_dtype=self.param_dtype, name="weights")(y))
