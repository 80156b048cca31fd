"""The machine's ceiling: how fast a library multiplies large float32 matrices.

A side of the other benchmarks, in whose rounds it has its turns.
"""
# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import measurements
from benchmarks.side_by_side import Side, Turn, serve

SIZE = 2048
"""Rows and columns of both matrices; large enough that reading them costs little."""

FLOPS = 2 * SIZE**3
"""Operations of one product."""


PRODUCTS = 2
"""Done in a turn."""


def start(stack: ExitStack, interpreters: dict[str, str]) -> list[Side]:
    """Returns a side for each library.

    Args:
      stack: ends them.
      interpreters: "jax" or "torch" -> an interpreter that has it.
    """
    return [
        stack.enter_context(
            Side(f"product, {library}", python, "benchmarks.matrix_product", {"library": library})
        )
        for library, python in interpreters.items()
    ]


def rates(sides: list[Side], answers: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Returns each library's billions of operations a second, by the median time.

    Args:
      sides: of `start`.
      answers: of `take_turns`.
    """
    found = {}
    for side in sides:
        times = [time for answer in answers[side.name] for time in answer["seconds"]]
        rate = FLOPS / measurements.summarize(times)["median"] / 1e9
        found[side.name.removeprefix("product, ")] = round(rate, 1)
    return found


def describe(found: dict[str, float]) -> str:
    """Returns rates in words."""
    each = ", ".join(f"{library} {rate:.0f}" for library, rate in found.items())
    return f"Matrix product in GFLOP/s: {each}."


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
