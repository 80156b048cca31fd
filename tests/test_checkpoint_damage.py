"""Damaged checkpoints: noticed, named by the file, and replaced by the one before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

from dmfer_jax import checkpoint_record, state
from dmfer_jax.checkpoint import Checkpoints
from dmfer_jax.errors import UserError


def make_state(step: int, value: float = 0.0) -> state.TrainState:
    """A state of a few arrays, with an optimizer's."""
    params = {"head": {"kernel": jnp.full((3, 2), value), "bias": jnp.full(2, value)}}
    statistics = {"norm": {"mean": jnp.full(2, value), "var": jnp.full(2, value)}}
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.sgd(lambda _: 0.1, momentum=0.9, nesterov=True)
    )
    return state.TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats=statistics,
        centers=jnp.full((2, 3), value),
        opt_state=optimizer.init(params),
        ema={"params": params, "batch_stats": statistics},
        skipped=jnp.zeros((), jnp.int32),
    )


def load(folder: Path, step: int) -> state.TrainState:
    place = SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(folder) as checkpoints:
        return checkpoints.load(step, make_state(0), place)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A run with the checkpoints of steps 4 and 8."""
    folder = tmp_path_factory.mktemp("sound")
    with Checkpoints(folder) as checkpoints:
        for step in (4, 8):
            checkpoints.save(make_state(step, step / 10), {"epoch": step / 4}, 0.5)
    return folder


def damage(path: Path, other: Path, kind: str, rng: np.random.Generator) -> None:
    """Harms a file in one of four ways; `other` is the same one of the step before."""
    content = bytearray(path.read_bytes())
    if kind == "flip":
        if content:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
    elif kind == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "delete":
        path.unlink()
    else:
        path.write_bytes(other.read_bytes())


def counterpart(path: Path, checkpoints: Path) -> Path:
    """The file of step 4 that stands for one of step 8; some names are drawn by chance."""
    inside = path.relative_to(checkpoints / "8")
    same = checkpoints / "4" / inside
    return same if same.exists() else next(iter(same.parent.iterdir()))


@pytest.mark.parametrize("kind", ["flip", "truncate", "delete", "swap"])
def test_every_damage_of_every_file_is_noticed_and_named(sound, tmp_path, kind):
    rng = np.random.default_rng(0)
    files = [p for p in sorted((sound / "checkpoints" / "8").rglob("*")) if p.is_file()]
    trials = 0
    for file in files * 8:
        folder = shutil.copytree(sound, tmp_path / str(trials))
        path = folder / file.relative_to(sound)
        other = counterpart(path, folder / "checkpoints")
        damage(path, other, kind, rng)
        if path.exists() and path.read_bytes() == file.read_bytes():
            shutil.rmtree(folder)  # an empty file cut short, or another one that holds the same
            continue
        with Checkpoints(folder) as checkpoints:
            with pytest.raises(UserError) as refused:
                checkpoints.load(8, make_state(0), SingleDeviceSharding(jax.devices()[0]))
            (message,) = checkpoints.tidy()
            assert checkpoints.step("last") == checkpoints.step("best") == 4
        assert str(path) in str(refused.value)
        assert str(path) in message
        assert (folder / "damaged" / "8").is_dir()
        trials += 1
        shutil.rmtree(folder)
    assert trials >= 50


def test_the_sound_one_that_is_left_is_what_was_saved(sound, tmp_path):
    folder = shutil.copytree(sound, tmp_path / "run")
    (folder / "checkpoints" / "8" / "checkpoint.json").unlink()
    with Checkpoints(folder) as checkpoints:
        checkpoints.tidy()
    jax.tree.map(np.testing.assert_array_equal, load(folder, 4), make_state(4, 0.4))


def test_values_that_differ_from_their_digests_are_refused_where_files_are_whole(sound, tmp_path):
    folder = shutil.copytree(sound, tmp_path / "run")
    inside = folder / "checkpoints" / "8"
    arrays = checkpoint_record.read_record(inside).arrays
    arrays["params/head/bias"]["sha256"] = "0" * 64
    (inside / "checkpoint.json").unlink()
    checkpoint_record.write_record(inside, 8, {}, None, arrays)
    with pytest.raises(UserError, match="values of params/head/bias are not those that were saved"):
        load(folder, 8)


def test_where_none_is_sound_nothing_is_moved_and_nothing_begins_anew(sound, tmp_path):
    folder = shutil.copytree(sound, tmp_path / "run")
    for step in ("4", "8"):
        (folder / "checkpoints" / step / "checkpoint.json").write_text("{}")
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="no checkpoint in"):
        checkpoints.tidy()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"4", "8"}


def test_what_a_killed_process_left_is_removed(sound, tmp_path):
    folder = shutil.copytree(sound, tmp_path / "run")
    (folder / "checkpoints" / "12.partial.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.tidy() == []
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"4", "8"}


def test_other_arrays_are_listed_by_name(sound):
    other = make_state(0).replace(centers=None, params={"head": {"kernel": jnp.zeros((3, 4))}})
    with Checkpoints(sound) as checkpoints, pytest.raises(UserError) as refused:
        checkpoints.load(8, other, SingleDeviceSharding(jax.devices()[0]))
    message = str(refused.value)
    assert "params/head/bias is float32 [2] in it and missing by the config" in message
    assert "params/head/kernel is float32 [3, 2] in it and float32 [3, 4] by the config" in message
    assert "centers is float32 [2, 3] in it and missing by the config" in message


def test_checkpoint_of_a_later_format_is_left_alone(sound, tmp_path, monkeypatch):
    folder = shutil.copytree(sound, tmp_path / "run")
    inside = folder / "checkpoints" / "8"
    (inside / "checkpoint.json").unlink()
    with monkeypatch.context() as later:
        later.setattr(checkpoint_record, "FORMAT", 3)
        checkpoint_record.write_record(inside, 8, {"version": "9.1"}, None, {})
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match=r"is of format 3"):
        checkpoints.tidy()
    assert inside.is_dir()


FILL = """
import resource, signal, sys
from pathlib import Path
import jax
from tests.test_checkpoint_damage import make_state
from dmfer_jax.checkpoint import Checkpoints
from dmfer_jax.errors import UserError
noise = jax.random.normal(jax.random.key(0), (300, 300))  # which cannot be compressed
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    checkpoints.save(make_state(12).replace(centers=noise), {"epoch": 3}, 0.9)
    checkpoints.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        checkpoints.save(make_state(16).replace(centers=noise), {"epoch": 4}, 0.9)
        checkpoints.wait()
    except UserError as error:
        print("refused:", error)
"""


def test_disk_that_fills_leaves_the_checkpoint_before(sound, tmp_path):
    # A limit on the size of files stands for it: writing fails midway, as on a full disk.
    folder = shutil.copytree(sound, tmp_path / "run")
    root = str(Path(__file__).parents[1])
    process = subprocess.run(
        [sys.executable, "-c", FILL, str(folder)],
        env={**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "refused: the checkpoint of step 16 could not be written to" in process.stdout
    assert "the newest one is of step 12" in process.stdout
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"8", "12"}
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.tidy() == []
