"""Discriminative multiscale facial expression recognition in JAX and Flax.

Importing this package is quick: it pulls in neither JAX nor TensorFlow.
"""

__version__ = "0.1.0"
