"""Four virtual devices for every test, each program compiled once, and a tiny run to look at."""

import contextlib
import fcntl
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from dmfer_jax import config as configs
from dmfer_jax.building import ensure_built
from dmfer_jax.models import channel_attention, convolution, resnet

# Before any device is touched. Tests are for the CPU, on machines with accelerators, too.
os.environ["JAX_PLATFORMS"] = "cpu"
jax.config.update("jax_platforms", "cpu")
# Sharded code is the same for 1 and many devices, so tests use many.
jax.config.update("jax_num_cpu_devices", 4)
# Compiling is most of the suite's time, and its networks are too small to gain from it.
jax.config.update("jax_disable_most_optimizations", True)
# Nobody reads from which line of Python an instruction comes, and noting it takes a while.
jax.config.update("jax_traceback_in_locations_limit", 0)
# Tracing makes many objects that live on; to look through them again and again took a tenth of the
# time.
gc.set_threshold(200_000, 50, 100)

# Servers of tests are on this machine, and no proxy leads to them. JAX warns of any such variable.
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
# For the commands that tests start: what is set in the environment, here and below, they find set.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
# XLA ends the process where one device waits a minute for another, which happens beside other work.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
# The older code generator of XLA compiles in half the time; the newest JAX has it no more, and ends
# the process when it is asked for.
OLDER_GENERATOR = "--xla_cpu_use_fusion_emitters=false"


def _known(flags: str) -> bool:
    asked = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    tried = [sys.executable, "-c", "import jax; jax.devices()"]
    return subprocess.run(tried, env=asked, capture_output=True, check=False).returncode == 0


if "XLA_FLAGS" not in os.environ:
    wished = (f"{PATIENT} {OLDER_GENERATOR}", PATIENT)
    os.environ["XLA_FLAGS"] = next(filter(_known, wished), "")

# Files that take longest, to be begun first, so that no process is left with one at the end. The
# first of them trains the run `finished`; the next two do not wait for it.
SLOW = (
    "explain",
    "distributed",
    "notebooks",
    "train",
    "package",
    "sharding",
    "nonfinite",
    "initial",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest in front."""
    places = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of the session share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session", autouse=True)
def _compile_once(shared_folder: Path):
    """Several tests start the same training, or the same command; they share what is compiled."""
    settings = {
        "jax_compilation_cache_dir": str(shared_folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session", autouse=True)
def _convolve_as_xla_does():
    """Other formulations are more to compile, and have tests of their own in tests/models."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (resnet, channel_attention):
            patched.setattr(module, "convolve", jax.lax.conv_general_dilated)
        yield


@pytest.fixture
def convolve_as_users_do(monkeypatch: pytest.MonkeyPatch):
    """For tests of whole networks: in the formulations that a network computes in elsewhere."""
    for module in (resnet, channel_attention):
        monkeypatch.setattr(module, "convolve", convolution.convolve)


@pytest.fixture(scope="session")
def data_dir(shared_folder: Path) -> Path:
    """A folder that holds the records of the tiny embedded faces."""
    folder = shared_folder / "records"
    ensure_built("synthetic_faces/tiny", "", str(folder))  # one builds, the others wait for it
    return folder


@pytest.fixture
def tiny_config(data_dir: Path) -> ConfigDict:
    """An experiment of seconds, for a test to change."""
    return make_tiny_config(data_dir)


@pytest.fixture(scope="session")
def finished(data_dir: Path, shared_folder: Path, tmp_path_factory) -> tuple[Path, dict]:
    """A finished run of the tiny experiment: its folder and its report."""
    from dmfer_jax import train

    first, kept = shared_folder / "first_finished", shared_folder / "finished.pickle"
    first.mkdir(exist_ok=True)
    with _locked(shared_folder / "finished.lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(train.train(make_tiny_config(data_dir), first)))
    # Each process has its own: tests may write there.
    workdir = tmp_path_factory.mktemp("finished")
    shutil.copytree(first, workdir, dirs_exist_ok=True)
    return workdir, pickle.loads(kept.read_bytes())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process of the session holds the lock."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_tiny_config(data_dir: Path) -> ConfigDict:
    """Returns a very narrow network on a few dozen drawn faces of 32 pixels."""
    config = configs.get_config()
    config.data.dataset = "synthetic_faces/tiny"
    config.data.data_dir = str(data_dir)
    config.data.image_size = 32
    config.data.test_splits = ("test", "test_occlusion", "test_pose")
    config.model.backbone = "resnet10"
    config.model.stem = "small"
    config.model.stem_stride = 2
    config.model.width = 0.125
    config.model.embedding = 16
    config.model.heads = 2
    config.optimizer.ema_decay = 0.9
    config.optimizer.learning_rate = 1.0  # 0.03 at this batch size
    config.optimizer.warmup_epochs = 0.5
    config.train.epochs = 2
    config.train.batch_size = 8
    config.train.eval_batch_size = 12
    config.train.log_every = 2
    return config


def save_random_run(workdir: Path, config: ConfigDict, class_names: Sequence[str]) -> Path:
    """Saves random weights as the only checkpoint of a run: much to score, nothing to train."""
    from dmfer_jax import checkpoint, run_folder, sharding, state
    from dmfer_jax.optimizer import make_optimizer, make_schedule

    model = state.make_model(config, len(class_names))
    optimizer = make_optimizer(config, make_schedule(config, 1))
    run_folder.save_config(workdir, config)
    init = jax.jit(
        lambda: state.init_state(config, model, optimizer),
        out_shardings=sharding.replicated(sharding.make_mesh()),
    )
    note = {
        **{"epoch": 1.0, "seconds": 1.0, "cpu_seconds": 1.0, "input_wait": 0.0},
        "labels": list(class_names),
        "config": json.loads(config.to_json_best_effort()),
        "run": {"dataset": config.data.dataset},
    }
    with checkpoint.Checkpoints(workdir) as checkpoints:
        checkpoints.save(init(), note, 0.5)
    return workdir
