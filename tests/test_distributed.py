"""Processes find each other or say why not, and train, stop and go on as one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax._src import clusters
from ml_collections import ConfigDict

from benchmarks.devices import free_port, quick_network
from dmfer_jax import checkpoint, distributed, run_folder, sharding, state, train
from dmfer_jax.errors import UserError
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.reporting import figures
from dmfer_jax.reporting.writers import read_jsonl
from tests.conftest import make_tiny_config

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", None, None), "--coordinator given and --processes, --process not"),
        (("", 2, 0), "--processes, --process given and --coordinator not"),
        (("a:1", 2, 2), r"--process is 2 of --processes=2; expected 0 to 1"),
        (("a:1", 2, -1), r"--process is -1 of --processes=2; expected 0 to 1"),
        (("a:1", 0, 0), "--processes is 0; expected 1 or more"),
        (("a", 2, 1), "--coordinator is 'a'; expected host:port"),
        (("a:many", 2, 1), "--coordinator is 'a:many'; expected host:port"),
    ],
)
def test_flags_that_make_no_sense_are_an_error(given, message):
    with pytest.raises(UserError, match=message):
        distributed.start(*given)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OMPI = {
    "OMPI_VERSION": "4.1.6",
    "OMPI_MCA_orte_hnp_uri": "1314521088.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (SLURM, "slurm"),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),  # a shell inside an allocation of two
        (OMPI, "ompi"),
        ({**OMPI, "OMPI_COMM_WORLD_SIZE": "1"}, None),
    ],
)
def test_processes_are_joined_only_where_the_environment_tells_of_several(
    monkeypatch, environment, expected
):
    joined = []
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: joined.append(options))
    monkeypatch.setattr(distributed._Notice, "take_over", lambda: None)
    distributed.start()
    assert [one["cluster_detection_method"] for one in joined] == [expected] * (
        expected is not None
    )


@pytest.mark.parametrize(("platforms", "joins"), [("cpu", False), ("tpu", True), ("", True)])
def test_a_host_of_a_tpu_slice_works_alone_on_its_cpu(monkeypatch, platforms, joins):
    joined = []
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(clusters.GceTpuCluster, "is_env_present", lambda: True)
    monkeypatch.setattr(clusters.GceTpuCluster, "get_process_count", lambda: 4)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: joined.append(options))
    monkeypatch.setattr(distributed._Notice, "take_over", lambda: None)
    distributed.start()
    assert [one["cluster_detection_method"] for one in joined] == ["gcetpu"] * joins


def test_alone_work_is_done_at_once_and_a_signal_stops_at_once():
    assert distributed.main_first(lambda: "done") == "done"
    assert distributed.is_main()
    assert [distributed.stops_here(7, signalled) for signalled in (False, True)] == [False, True]


WORKER = """
import sys, time
from pathlib import Path
from tests import conftest
import jax
jax.config.update("jax_num_cpu_devices", 2)
from benchmarks.devices import quick_network
from dmfer_jax import distributed, feeding, train
from dmfer_jax.reporting import figures

coordinator, process, data_dir, folder = sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:])
quick = quick_network()
quick.__enter__()
figures.draw_report_figures = lambda *_: None
distributed.start(coordinator, 2, process, timeout=120)
config = conftest.make_tiny_config(data_dir)
config.optimizer.learning_rate = 0.1
config.model.scales, config.model.attention = "deep", "none"

honest, compile_step, compiled = feeding.Feed.train_batches, train.compile_train_step, []
def slowly(self, *args, **options):
    for batch in honest(self, *args, **options):
        time.sleep(0.4)  # so that a signal is heard before the run is over
        yield batch
def compile_once(*args):
    compiled.append(compiled[0] if compiled else compile_step(*args))
    return compiled[0]
train.compile_train_step = compile_once
feeding.Feed.train_batches = slowly
config.train.log_every = 1
try:
    train.train(config, folder / "signalled")
    status = 0
except SystemExit as stopped:
    status = stopped.code
feeding.Feed.train_batches = honest
train.train(config, folder / "handed")
(folder / f"status{process}").write_text(str(status))
"""


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Every run here is of a network that compiles soon."""
    with quick_network():
        yield


@pytest.fixture(scope="module")
def calm_config(data_dir) -> ConfigDict:
    """The tiny experiment, learning so slowly that differences of rounding grow little."""
    config = make_tiny_config(data_dir)
    config.optimizer.learning_rate = 0.1
    config.model.scales, config.model.attention = "deep", "none"  # compile sooner
    return config


@pytest.fixture(scope="module")
def whole(calm_config, tmp_path_factory) -> Path:
    """A run of 12 steps over four devices that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_report_figures", lambda *_: None)
        train.train(calm_config, workdir)
    return workdir


@pytest.fixture(scope="module")
def pair(data_dir, calm_config, tmp_path_factory) -> dict[str, Any]:
    """What two processes with two devices each leave.

    They begin the run `signalled`, in which process 1 gets SIGTERM; then they end the run `handed`,
    which this process has begun over four devices and stopped after step 5.
    """
    folder, port = tmp_path_factory.mktemp("pair"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "stops_here", lambda step, signalled: step == 5)
        with pytest.raises(SystemExit):
            train.train(calm_config, folder / "handed")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, f"localhost:{port}", str(number), data_dir, folder],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    log = folder / "signalled" / "metrics.jsonl"
    for _ in range(2400):
        if len(read_jsonl(log)) >= 2 or any(process.poll() is not None for process in started):
            break
        time.sleep(0.1)
    started[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return {
        "folder": folder,
        "said": said,
        "statuses": [(folder / f"status{number}").read_text() for number in range(2)],
    }


def test_signal_to_one_process_stops_all_at_the_same_step(pair):
    assert pair["statuses"] == [str(128 + signal.SIGTERM)] * 2
    rows = read_jsonl(pair["folder"] / "signalled" / "metrics.jsonl")
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) < 12
    with checkpoint.Checkpoints(pair["folder"] / "signalled") as checkpoints:
        assert checkpoints.step("last") == steps[-1]
    assert f"Interrupted. Saved at step {steps[-1]} of 12" in pair["said"][0][0]


def test_one_process_writes_and_prints(pair):
    output, errors = pair["said"][1]
    # JAX and Orbax say there that they were asked to stop.
    said = [
        line for line in errors.splitlines() if not re.search("SIGTERM caught|preemption", line)
    ]
    assert said == []
    # Gloo's threads print there from C++, one into the other's line.
    assert not re.search("DMFER|epoch|step|accuracy|Report", output)
    handed = pair["folder"] / "handed"
    assert "going on from step 5 of 12" in pair["said"][0][0]
    assert len(list((handed / "tensorboard").iterdir())) == 2  # before and after it was stopped
    rows = [(row["kind"], row["step"]) for row in read_jsonl(handed / "metrics.jsonl")]
    assert sorted(set(rows)) == sorted(rows)
    assert json.loads((handed / "report.json").read_text())["environment"]["processes"] == 2


def test_run_over_devices_goes_on_over_processes(pair, whole):
    assert_close(last_state(pair["folder"] / "handed"), last_state(whole))


@pytest.mark.parametrize("devices", [4, 1])
def test_run_over_processes_goes_on_over_devices(
    pair, whole, calm_config, tmp_path, monkeypatch, devices
):
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(jax.devices()[:devices]))
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: None)
    workdir = shutil.copytree(pair["folder"] / "signalled", tmp_path / "run")
    report = train.train(calm_config, workdir)
    assert report["checkpoints"]["last"]["splits"]["valid"]["examples"] == 16
    assert_close(last_state(workdir), last_state(whole))


def last_state(workdir: Path) -> Any:
    """The last state of a run, as arrays of this process."""
    config: Any = run_folder.load_config(workdir)
    model, optimizer = (
        state.make_model(config, 8),
        make_optimizer(config, make_schedule(config, 1)),
    )
    like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    with checkpoint.Checkpoints(workdir) as checkpoints:
        assert checkpoints.step("last") == 12
        place = sharding.replicated(sharding.make_mesh())
        return jax.device_get(checkpoints.load(12, like, place))


def assert_close(ours: Any, theirs: Any) -> None:
    """Compares all arrays; differences are shares of an array's largest value.

    Sums over a batch are rounded in another order, and training makes that grow: to 8e-6 in these
    12 steps. At a learning rate ten times as high it was 4e-3, and 0.3 in the momentum.
    """
    leaves = zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
    differences = {
        jax.tree_util.keystr(path): np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-6)
        for (path, a), b in leaves
    }
    worst = max(differences, key=lambda name: differences[name])
    assert differences[worst] < 1e-4, f"{worst}: {differences[worst]}"
