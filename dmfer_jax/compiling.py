"""How the steps are compiled: XLA's options, beside other work, and what to do with the memory.

Compiling needs shapes and no values. So it begins before the weights are there, and the time to
the first step is that of the longer of the two.
"""

import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding
from ml_collections import ConfigDict

from dmfer_jax.sharding import batched


def compiler_options(platform: str) -> dict[str, Any] | None:
    """Returns what XLA is told for programs of the network.

    By default XLA orders the operations for CPUs so that many can run at once. But each of them
    takes all cores: that order gains nothing, and holds more of the activations at a time.

    Args:
      platform: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu":
        return None
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def init_options(platform: str) -> dict[str, Any] | None:
    """Returns what XLA is told for the program that draws the first weights.

    Compiling what draws random numbers takes four times as long at CPUs' usual level, for the same
    numbers in the same time. Where JAX is told to optimize little, that level is lower still.
    """
    if platform != "cpu" or jax.config.read("jax_disable_most_optimizations"):
        return None
    return {"xla_backend_optimization_level": 1}


def compile_beside(compile: Callable[[], Any]) -> Callable[[], Any]:
    """Begins to compile in a thread; returns what waits for it, and gives its result or error."""
    threads = ThreadPoolExecutor(max_workers=1)
    future = threads.submit(compile)
    threads.shutdown(wait=False)
    return future.result


def shape_batch(
    config: ConfigDict, num_classes: int, size: int, mesh: Mesh, *, scored: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes, types and places of a batch.

    Args:
      config: of the experiment.
      num_classes: K.
      size: images, over all devices together.
      mesh: of `sharding.make_mesh`.
      scored: whether it is one to evaluate, with the label and the masks of each example.
    """
    data: Any = config.data
    pixels = (data.image_size, data.image_size, data.channels)
    fields: dict[str, tuple[tuple[int, ...], Any]] = {
        "image": (pixels, jnp.uint8),
        "target": ((num_classes,), jnp.float32),
    }
    if scored:
        fields |= {"label": ((), jnp.int32), "mask": ((), jnp.float32), "first": ((), jnp.float32)}
    shapes = {
        name: jax.ShapeDtypeStruct((size, *shape), dtype) for name, (shape, dtype) in fields.items()
    }
    return place(shapes, batched(mesh))


def place(shapes: Any, sharding: Sharding) -> Any:
    """Returns shapes with the place that arrays of them will have."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def give_back_memory() -> None:
    """Gives the memory that compiling has left free back to the system, where glibc keeps it.

    It is half a gigabyte after the steps of ResNet-18, which the process would hold to its end.
    """
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
