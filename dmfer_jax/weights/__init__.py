"""Weights of other people's programs in, and ours out."""
