"""The steps compile for TPUs that are not there, and what is wrong is said before hours of it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = (
    "--config.data.image_size=16",
    "--config.model.stem=small",
    "--config.model.stem_stride=2",
    "--config.model.width=0.125",
    "--config.model.embedding=16",
    "--config.model.heads=2",
)


needs_compiler = pytest.mark.skipif(
    find_spec("libtpu") is None or "DMFER_COMPILE_CHECK" not in os.environ,
    reason="needs libtpu, TPUs' compiler, and a minute; set DMFER_COMPILE_CHECK=1 to run it",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user would: libtpu must not be loaded into the tests' process."""
    command = [sys.executable, "-m", "dmfer_jax.compile_check", "--config=configs/ferplus.py"]
    ours = ("JAX_PLATFORMS", "JAX_DISABLE_MOST_OPTIMIZATIONS")  # no user has them set
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [*command, *SMALL, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_unknown_topology_is_one_line_that_lists_those_there_are():
    found = run("--topology=v5e:2x4,v5e:3x4")
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "no TPU topology 'v5e:3x4'" in found.stderr
    assert "v5e:2x4" in found.stderr


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_package_to_install_is_named():
    found = run()
    assert found.returncode == 2
    assert "pip install" in found.stderr
    assert "libtpu" in found.stderr
    assert "Traceback" not in found.stderr


@needs_compiler
def test_more_chips_need_no_more_collectives(tmp_path):
    out = tmp_path / "checks.json"
    found = run("--topology=v5e:2x2,v5e:2x4", "--batch_per_chip=8", f"--out={out}")
    assert found.returncode == 0, found.stderr
    four, eight = json.loads(out.read_text())["results"]
    assert (four["chips"], eight["chips"]) == (4, 8)
    for step in ("training", "evaluation"):
        assert four[step]["collectives"]["all-reduce"] == eight[step]["collectives"]["all-reduce"]
        assert four[step]["flops"] == pytest.approx(eight[step]["flops"], rel=0.01)  # per chip


GATHER = """
from dmfer_jax import compile_check, feeding, sharding
import jax, jax.numpy as jnp, numpy as np

chips = compile_check.topology_devices(compile_check.find_topology("v5e:2x4"))
mesh, (size, number, batch) = sharding.make_mesh(chips), (112, 10_000, 256)
rows = feeding.lay_out(np.zeros((1, size, size, 3), np.uint8)).shape[1:]
whole = {
    "image": jax.ShapeDtypeStruct((number, *rows), jnp.uint8),
    "target": jax.ShapeDtypeStruct((number, 8), jnp.float32),
}
gather = feeding.make_gather(mesh, (size, size, 3))
program = gather.lower(whole, jax.ShapeDtypeStruct((batch,), jnp.int32)).compile()
print(program.memory_analysis().temp_size_in_bytes)
"""


@needs_compiler
def test_a_batch_is_gathered_without_a_copy_of_all_images():
    found = subprocess.run(
        [sys.executable, "-c", GATHER], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(found.stdout.split()[-1]) < 10_000 * 112 * 112 * 3 / 20
