"""How steps are compiled: beside other work, from shapes alone, and what is left of it."""

import resource
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import compiling, sharding
from dmfer_jax.building import ensure_built
from dmfer_jax.data import sources
from dmfer_jax.feeding import Feed


def test_compiling_goes_on_beside_and_its_error_is_raised_where_it_is_waited_for():
    may_end = threading.Event()
    result = compiling.compile_beside(lambda: may_end.wait(10) and "compiled")
    may_end.set()  # never reached, were it to block
    assert result() == result() == "compiled"

    def fail():
        raise ValueError("no such operation")

    with pytest.raises(ValueError, match="no such operation"):
        compiling.compile_beside(fail)()


def test_cpus_are_given_an_order_that_holds_fewer_values_at_a_time():
    def long_chains(x: jax.Array) -> jax.Array:
        # Sorted, as XLA computes products of matrices in ways of its own, and fuses all else.
        parts = [jnp.sort(jnp.sin(x + k), axis=0) for k in range(8)]
        return sum(jnp.sum(jnp.sort(part, axis=1) * part) for part in parts)  # pyright: ignore[reportReturnType]

    x = jnp.ones((256, 256))

    def temporaries(options) -> int:
        lowered = jax.jit(long_chains, compiler_options=options).lower(x)
        analysis: Any = lowered.compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporaries(compiling.compiler_options("cpu")) < temporaries(None)
    assert compiling.compiler_options("gpu") is compiling.compiler_options("tpu") is None


@pytest.mark.parametrize("scored", [False, True])
def test_shapes_of_a_batch_are_those_of_the_batches_read(tiny_config, scored):
    data, mesh = tiny_config.data, sharding.make_mesh()
    dataset_dir = ensure_built(data.dataset, data.source, data.data_dir)
    split = sources.load_split(dataset_dir, "valid", data, train=not scored)
    feed = Feed(split, mesh, 1.0)
    if scored:
        batch = next(feed.eval_batches(4))
    else:
        options = {"sampling": "natural", "start_step": 0, "workers": 1}
        batch = next(feed.train_batches(4, seed=0, **options))
    classes = len(split.class_names)
    shapes = compiling.shape_batch(tiny_config, classes, 4, mesh, scored=scored)
    assert {n: (s.shape, s.dtype, s.sharding) for n, s in shapes.items()} == {
        n: (a.shape, a.dtype, a.sharding) for n, a in batch.items()
    }


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_that_is_free_goes_back_to_the_system():
    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    # Small blocks, which glibc keeps; one at the end of the heap holds all before it.
    blocks = [np.ones(1_000, np.float64) for _ in range(20_000)]
    last, blocks = blocks[-1], None
    before = resident_mib()
    compiling.give_back_memory()
    assert resident_mib() < before - 50
    del last
