"""The twin is compared with the network as it trains, whatever formulations that computes in."""

import pytest

from dmfer_jax.models import channel_attention, resnet
from dmfer_jax.models.convolution import convolve


@pytest.fixture(autouse=True)
def _convolve_as_users_do(monkeypatch: pytest.MonkeyPatch):
    for module in (resnet, channel_attention):
        monkeypatch.setattr(module, "convolve", convolve)
