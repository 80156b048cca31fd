"""The attentions of `dmfer_jax.models.channel_attention`, in PyTorch: `[n, c, h, w]` in and out."""
# pyright: reportMissingImports=false

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
