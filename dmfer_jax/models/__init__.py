"""The network, in Flax Linen."""
