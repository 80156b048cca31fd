"""Discriminative multiscale facial expression recognition in JAX and Flax.

Importing this package is quick: it pulls in neither JAX nor TensorFlow.
"""

import time

__version__ = "0.1.0"

IMPORTED_AT = time.monotonic()
"""When a command began: it imports this package before anything else."""
