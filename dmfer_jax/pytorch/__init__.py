"""The same network and training step in PyTorch, and baselines: for parity, and as opponents.

The only room that imports torch; it needs the `torch` extra. It imports no JAX, so that a process
of it can be measured by itself. Weights cross over by `dmfer_jax.weights.pytorch`.
"""
