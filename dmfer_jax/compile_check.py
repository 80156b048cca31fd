r"""Compiles the training and the evaluation step for TPUs that need not be there.

  python -m dmfer_jax.compile_check --config=configs/ferplus.py --topology=v5e:2x4
  python -m dmfer_jax.compile_check --config=configs/ferplus.py --topology=v5e:1x1,v5e:4x4 \
      --batch_per_chip=1024 --out=checks.json

Tells what a chip needs and does in each step, the time that its datasheet gives for each of these,
and the images per second that the longest time allows. It needs no data and no TPU, only the
package libtpu, which holds the compiler.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

# JAX and libtpu read these when they are imported. A TPU that is there is left to others, none is
# asked for what it is, and what libtpu says of a machine without one would fill a page.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from dmfer_jax import command, compiled, compiling, files, sharding, state, steps
from dmfer_jax import config as configs
from dmfer_jax.chips import Topology, find_topology
from dmfer_jax.errors import UserError
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.reporting.console import print_table

STEPS = ("training", "evaluation")
"""What is compiled, in the order of every table."""

SUMMARY = (
    "topology",
    "chips",
    "step",
    "images a chip",
    "memory GB",
    "of HBM",
    "GFLOPs",
    "GB moved",
    "collectives",
    "in a row",
    "MB reduced",
    "arithmetic ms",
    "bandwidth ms",
    "interconnect ms",
    "images/s a chip",
    "images/s in all",
)
"""Columns of the table over all topologies."""


def compile_steps(
    config: ConfigDict, mesh: Mesh, classes: int, train_batch: int, eval_batch: int
) -> Iterator[tuple[str, Any, int]]:
    """Yields each of `STEPS`, its compiled program and its global batch.

    Args:
      config: of the experiment.
      mesh: over the devices of a topology.
      classes: K.
      train_batch: images of a training step on all chips together.
      eval_batch: the same of an evaluation step.
    """
    model = state.make_model(config, classes)
    # The length of a run changes numbers of the schedule, not the program.
    optimizer = make_optimizer(config, make_schedule(config, 1000))
    train_state = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    train_state = compiling.place(train_state, sharding.replicated(mesh))
    batch = compiling.shape_batch(config, classes, train_batch, mesh)
    train_step: Any = steps.make_train_step(config, model, optimizer, mesh)
    yield "training", train_step.lower(train_state, batch).compile(), train_batch

    batch = compiling.shape_batch(config, classes, eval_batch, mesh, scored=True)
    totals = jax.eval_shape(lambda: steps.empty_totals(classes))
    totals = compiling.place(totals, sharding.replicated(mesh))
    eval_step: Any = steps.make_eval_step(model, mesh)
    lowered = eval_step.lower(train_state.eval_variables(), batch, totals)
    yield "evaluation", lowered.compile(), eval_batch


def check(
    config: ConfigDict, topology: Topology, classes: int = 8, batch_per_chip: int = 0
) -> dict[str, Any]:
    """Compiles both steps for a topology, and returns what they say.

    Args:
      config: of the experiment; its batches are global.
      topology: of `chips.find_topology`.
      classes: K.
      batch_per_chip: images on each chip, in place of the config's batches; 0 keeps them.

    Returns:
      `topology`, `chips` and, of each of `STEPS`: `batch_per_chip`, the fields of
      `compiled.Program`, `memory_share` (of HBM), `bounds_ms` and `images_per_second` (`per_chip`
      and `in_all`, at most).

    Raises:
      UserError: libtpu is missing, or a batch cannot be split over the chips.
    """
    mesh = sharding.make_mesh(topology_devices(topology))
    if batch_per_chip:
        batches = (batch_per_chip * mesh.size,) * 2
    else:
        options: Any = config.train
        sharding.check_batch_size(options.batch_size, "train.batch_size", mesh)
        batches = (options.batch_size, sharding.round_up(options.eval_batch_size, mesh))
    result: dict[str, Any] = {"topology": topology.name, "chips": topology.chips}
    for name, program, batch in compile_steps(config, mesh, classes, *batches):
        result[name] = _describe(compiled.read_program(program), topology, batch)
    return result


def topology_devices(topology: Topology) -> Sequence[Any]:
    """Returns stand-ins for the devices of a topology.

    Raises:
      UserError: libtpu is missing.
    """
    if not (importlib.util.find_spec("libtpu") or os.environ.get("TPU_LIBRARY_PATH")):
        raise UserError(
            "compiling for TPUs needs the package libtpu, which is not installed; install it by "
            "pip install 'dmfer-jax[tpu]', or by pip install libtpu"
        )
    return topologies.get_topology_desc(platform="tpu", topology_name=topology.name).devices


def step_table(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows, without a header, of all that `check` found, per chip."""
    programs = [result[name] for name in STEPS]

    def row(title: str, *cells: str) -> list[str]:
        return [title, *cells]

    def megabytes(title: str, field: str) -> list[str]:
        return row(title, *(f"{program[field] / 1e6:,.1f} MB" for program in programs))

    rows = [row("images", *(f"{program['batch_per_chip']:,}" for program in programs))]
    rows += [megabytes(f"memory: {field}", field) for field in _MEMORY]
    rows += [
        megabytes("memory in all", "memory"),
        row("share of HBM", *(f"{program['memory_share']:.1%}" for program in programs)),
        row("operations", *(f"{program['flops'] / 1e9:,.1f} GFLOPs" for program in programs)),
        megabytes("bytes moved", "bytes_moved"),
    ]
    kinds = sorted({kind for program in programs for kind in program["collectives"]})
    for kind in kinds:
        found = [program["collectives"].get(kind, (0, 0)) for program in programs]
        rows.append(row(kind, *(f"{count}, {size / 1e6:,.2f} MB" for count, size in found)))
    rows.append(row("collectives in a row", *(str(p["longest_chain"]) for p in programs)))
    for bound in compiled.Bounds._fields:
        rows.append(row(f"{bound} bound", *(f"{p['bounds_ms'][bound]:,.2f} ms" for p in programs)))
    for key, title in (("per_chip", "images/s these allow"), ("in_all", "on all chips")):
        rows.append(row(title, *(f"{p['images_per_second'][key]:,.0f}" for p in programs)))
    return rows


def summary_table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the rows of the table over all topologies, with the columns `SUMMARY`."""
    return [
        [
            result["topology"],
            str(result["chips"]),
            name,
            f"{program['batch_per_chip']:,}",
            f"{program['memory'] / 1e9:.2f}",
            f"{program['memory_share']:.0%}",
            f"{program['flops'] / 1e9:,.0f}",
            f"{program['bytes_moved'] / 1e9:,.1f}",
            str(sum(count for count, _ in program["collectives"].values())),
            str(program["longest_chain"]),
            f"{sum(size for _, size in program['collectives'].values()) / 1e6:,.2f}",
            *(f"{program['bounds_ms'][bound]:,.2f}" for bound in compiled.Bounds._fields),
            f"{program['images_per_second']['per_chip']:,.0f}",
            f"{program['images_per_second']['in_all']:,.0f}",
        ]
        for result in results
        for name, program in ((name, result[name]) for name in STEPS)
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, its first column text and the others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


_MEMORY = ("arguments", "outputs", "aliased", "temporaries", "code")


def _describe(program: compiled.Program, topology: Topology, batch: int) -> dict[str, Any]:
    bounds = compiled.bounds(program, topology)
    return {
        "batch_per_chip": batch // topology.chips,
        **program._asdict(),
        "memory": program.memory,
        "memory_share": program.memory / topology.chip.memory_bytes,
        "bounds_ms": {name: 1e3 * seconds for name, seconds in bounds._asdict().items()},
        "images_per_second": {
            "per_chip": batch / topology.chips / bounds.seconds,
            "in_all": batch / bounds.seconds,
        },
    }


def main(argv: Sequence[str]) -> None:
    """Checks what the flags describe."""
    del argv
    options = flags.FLAGS
    configs.validate(options.config)
    slices = [find_topology(name.strip()) for name in options.topology]
    console, results = Console(highlight=False), []
    for topology in slices:
        results.append(check(options.config, topology, options.classes, options.batch_per_chip))
        hbm = topology.chip.memory_bytes / 1e9
        title = f"{topology.name}: {topology.chips} chip(s) with {hbm:g} GB of HBM each"
        print_table(console, title, ["on each chip", *STEPS], step_table(results[-1]))
    if len(results) > 1:
        print("\n" + markdown(SUMMARY, summary_table(results)))
    if options.out:
        report = {
            "config": options.config.to_dict(),
            "classes": options.classes,
            "versions": {name: version(name) for name in ("jax", "jaxlib", "libtpu")},
            "datasheets": {topology.chip.name: topology.chip._asdict() for topology in slices},
            "results": results,
        }
        files.write_text(options.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/ferplus.py.")
    flags.DEFINE_list("topology", ["v5e:2x4"], "Slices to compile for, such as v5e:2x4,v6e:2x4.")
    flags.DEFINE_integer("batch_per_chip", 0, "Images; 0: the config's.", lower_bound=0)
    flags.DEFINE_integer("classes", 8, "Expressions that the network tells.", lower_bound=2)
    flags.DEFINE_string("out", "", "JSON file to write.")
    flags.mark_flag_as_required("config")
    command.run(main)
