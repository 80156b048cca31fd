"""The machine's ceiling: how fast a library multiplies large float32 matrices.

A side of the other benchmarks, in whose rounds it has its turns.
"""
# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.side_by_side import Turn, serve

SIZE = 2048
"""Rows and columns of both matrices; large enough that reading them costs little."""

FLOPS = 2 * SIZE**3
"""Operations of one product."""


def prepare(options: dict[str, Any]) -> tuple[dict[str, Any], Turn]:
    """Makes the matrices.

    Args:
      options: `library`, "jax" or "torch".

    Returns:
      No facts, and the turn: takes `products`, how many; returns their `seconds`.
    """
    a, b = np.random.default_rng(0).normal(size=(2, SIZE, SIZE)).astype(np.float32)
    multiply: Callable[[], Any]
    if options["library"] == "jax":
        import jax

        left, right = jax.device_put(a), jax.device_put(b)
        product = jax.jit(jax.numpy.matmul)
        multiply = lambda: product(left, right).block_until_ready()  # noqa: E731
    else:
        import torch

        left, right = torch.from_numpy(a), torch.from_numpy(b)
        multiply = lambda: torch.mm(left, right)  # noqa: E731

    def turn(products: int) -> dict[str, Any]:
        seconds = []
        for _ in range(products):
            began = time.perf_counter()
            multiply()
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}

    turn(2)
    return {}, turn


if __name__ == "__main__":
    serve(prepare)
