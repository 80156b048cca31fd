"""Writes a trained network as one file: weights, labels and preprocessing in one.

  python -m dmfer_jax.export --workdir=runs/ferplus_cpu --checkpoint=best --out=model.safetensors
  python -m dmfer_jax.export --model=model.safetensors --to=onnx --int8 --calibrate_on=faces/

The network is a checkpoint of a run, or in a file that this command wrote before. Where the run
keeps a moving average of its weights, this is what is written, since it is what was scored. The
formats are described in `docs/export.md`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

import dmfer_jax
from dmfer_jax import command, initial, run_folder, sharding
from dmfer_jax.config import split_dataset, validate
from dmfer_jax.data import preprocessing
from dmfer_jax.errors import UserError
from dmfer_jax.exported import onnx_file
from dmfer_jax.formats import calibration, stablehlo
from dmfer_jax.loading import find_model, load_weights
from dmfer_jax.loss_options import network_options
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting import writers
from dmfer_jax.state import TrainState
from dmfer_jax.trained import load_trained
from dmfer_jax.weights.npz import save_npz
from dmfer_jax.weights.portable import check_finite, save_portable
from dmfer_jax.weights.pytorch import to_state_dict
from dmfer_jax.weights.sealing import Manifest

FORMATS = ("safetensors", "stablehlo", "onnx", "npz")
"""What `--to` can be, and how the files' names end."""


def export(
    workdir: Path,
    which: str,
    out: Path,
    *,
    half: bool = False,
    **said: Any,
) -> Manifest:
    """Writes a checkpoint of a run as a portable file, and returns what the file says.

    Args:
      workdir: of the run.
      which: "last" or "best".
      out: the file to write; an older one is replaced.
      half: stores kernels in float16.
      **said: of `take_from_run`.

    Raises:
      UserError: see `take_from_run`.
    """
    manifest, variables = take_from_run(workdir, which, **said)
    write("safetensors", out, manifest, variables, half=half)
    return manifest


def take_from_run(
    workdir: Path,
    which: str,
    *,
    temperature: float = 1.0,
    licence: str = "",
    notes: str = "",
) -> tuple[Manifest, dict[str, Any]]:
    """Returns the network of a checkpoint, ready to be written.

    Args:
      workdir: of the run.
      which: "last" or "best".
      temperature: what the logits are divided by, so that probabilities say how often they are
        right (Guo et al., 2017). It goes into the weights of the head, and every reader of the file
        has it.
      licence: of the weights.
      notes: whatever else a user of them should know.

    Returns:
      What a file is to say of the network, and its {"params", "batch_stats"}.

    Raises:
      UserError: there is no such run or checkpoint, its weights are not finite, or the temperature
        is not above 0.
    """
    if not 0 < temperature < float("inf"):
        raise UserError(f"--temperature is {temperature}; it must be above 0, such as 1.2")
    config = run_folder.load_config(workdir)
    validate(config)
    one_device = sharding.make_mesh(jax.devices()[:1])
    _, train_state, note = load_trained(workdir, which, config, one_device)
    variables = jax.device_get(train_state.eval_variables())
    model, variables = _calibrate(network_options(config), variables, temperature)
    options: Any = config.data
    manifest = Manifest(
        labels=tuple(note["labels"]),
        image_size=options.image_size,
        channels=options.channels,
        preprocessing=preprocessing.describe(options.image_size, options.channels),
        model=model,
        training={
            **_describe_training(workdir, which, config, train_state, note),
            "temperature": temperature,
        },
        scores=_find_scores(workdir, options.valid_split, int(train_state.step), temperature),
        code_version=dmfer_jax.__version__,
        licence=licence,
        notes=notes,
    )
    return manifest, variables


def write(
    to: str,
    out: Path,
    manifest: Manifest,
    variables: Mapping[str, Any],
    *,
    half: bool = False,
    calibrate_on: np.ndarray | None = None,
) -> None:
    """Writes a network in one of the `FORMATS`; an older file is replaced.

    Args:
      to: the format.
      out: the file.
      manifest: of the network.
      variables: its {"params", "batch_stats"}.
      half: of `save_portable`.
      calibrate_on: of `save_onnx`.

    Raises:
      UserError: the network cannot be written so, has a weight that is not finite, or a package
        for it is not installed.
    """
    check_finite(to_state_dict(variables))
    if to == "npz":
        save_npz(out, manifest, variables)
    elif to == "stablehlo":
        stablehlo.save_stablehlo(out, manifest, variables)
    elif to == "onnx":
        onnx_file().save_onnx(out, manifest, variables, calibrate_on=calibrate_on)
    else:
        save_portable(out, variables, manifest, half=half)


def _calibrate(
    model: dict[str, Any], variables: dict[str, Any], temperature: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the network's options and variables, its logits divided by a temperature."""
    if model["cosine_scale"] is not None:
        return {**model, "cosine_scale": model["cosine_scale"] / temperature}, variables
    params = variables["params"]
    head = {name: leaf / np.float32(temperature) for name, leaf in params["head"].items()}
    return model, {**variables, "params": {**params, "head": head}}


def _describe_training(
    workdir: Path, which: str, config: ConfigDict, train_state: TrainState, note: dict[str, Any]
) -> dict[str, Any]:
    """What the network was trained on, for how long, and which of its epochs this is."""
    options: Any = config.data
    before = initial.describe_start(workdir).get("init_from", {}).get("trained_on")
    is_ferplus = split_dataset(options.dataset)[0] == "ferplus"
    return {
        "dataset": note["run"]["dataset"],
        "protocol": options.protocol if is_ferplus else None,
        "train_protocol": (options.train_protocol or options.protocol) if is_ferplus else None,
        "train_splits": list(options.train_splits),
        "drop_classes": list(options.drop_classes),
        "seed": config.seed,
        "checkpoint": which,
        "chosen_on": options.valid_split if which == "best" else None,  # by its accuracy
        "step": int(train_state.step),
        "epoch": note["epoch"],
        "moving_average": train_state.ema is not None,
        **({"began_on": before} if before else {}),
    }


def _find_scores(workdir: Path, split: str, step: int, temperature: float) -> dict[str, Any] | None:
    """The scores on the validation split that the run's log has of a step.

    Another temperature leaves the classes as they are, and not how sure they are.
    """
    of_probabilities = ("ece", "loss") if temperature != 1 else ()
    names = [name for name in reports.HEADLINES if name not in of_probabilities]
    for row in reversed(writers.read_jsonl(workdir / "metrics.jsonl")):
        if (row.get("kind"), row.get("split"), row["step"]) == ("eval", split, step):
            return {"split": split, **{name: row[name] for name in names}}
    return None


_ENOUGH = 100  # images whose ranges int8 can take
_OF_RUN = ("checkpoint", "temperature", "licence", "notes")
"""Flags that say what is taken from a run; a file has these things said of it already."""


def main(argv: Sequence[str]) -> None:
    """Exports the network that the flags name."""
    del argv
    options = flags.FLAGS
    _check_flags(options)
    out = _out(options)
    if options.workdir:
        said = {name: getattr(options, name) for name in _OF_RUN[1:]}
        said = {name: value for name, value in said.items() if value is not None}
        manifest, variables = take_from_run(
            Path(options.workdir), options.checkpoint or "last", **said
        )
    else:
        manifest, variables = load_weights(find_model(options.model))
    images = None
    if options.int8:
        images = (
            calibration.images_of_folder(Path(options.calibrate_on), manifest)
            if options.calibrate_on
            else calibration.images_of_run(Path(options.workdir))
        )
    write(options.to, out, manifest, variables, half=options.half, calibrate_on=images)
    training = manifest.training
    chosen = f"the best on {training['chosen_on']}" if training.get("chosen_on") else "the last"
    summary = (
        f"{out}: {', '.join(manifest.labels)}; {manifest.image_size} x "
        f"{manifest.image_size} x {manifest.channels}; {training.get('dataset')}, step "
        f"{_count(training.get('step'))}, {chosen}; {out.stat().st_size / 1e6:.1f} MB"
        + (f"; int8, calibrated on {len(images)} images" if images is not None else "")
    )
    print(command.printable(summary))
    if images is not None and len(images) < _ENOUGH:
        print(f"note: {len(images)} images say little of the ranges; give {_ENOUGH} or more")


def _count(value: object) -> str:
    """A number with its commas; what a stranger's file has in its place as it is."""
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _check_flags(options: Any) -> None:
    """Refuses flags that contradict each other, before anything is loaded."""
    if bool(options.workdir) == bool(options.model):
        raise UserError(
            "give either --workdir, the folder of a run, or --model, a file that this command wrote"
            + " (both are given)" * bool(options.workdir)
        )
    given = [name for name in _OF_RUN if getattr(options, name) is not None]
    if options.model and given:
        raise UserError(
            f"--{given[0]} goes with --workdir: what a model's file says stays as it was written"
        )
    if options.half and options.to != "safetensors":
        raise UserError(f"--half goes with --to=safetensors; --to is {options.to}")
    if options.int8 and options.to != "onnx":
        raise UserError(f"--int8 goes with --to=onnx; --to is {options.to}")
    if options.calibrate_on and not options.int8:
        raise UserError("--calibrate_on goes with --int8: only its ranges are taken of images")
    if options.int8 and options.model and not options.calibrate_on:
        raise UserError(
            "--int8 takes ranges of images: name a folder of a hundred or more aligned faces with "
            "--calibrate_on (with --workdir it takes the run's validation images)"
        )


def _out(options: Any) -> Path:
    """Returns the file to write."""
    origin = Path(options.workdir or options.model)
    name = (origin.resolve().name if options.workdir else origin.stem) + ".int8" * options.int8
    out = Path(os.path.expanduser(options.out or f"{name}.{options.to}"))
    if out.suffix != f".{options.to}":
        raise UserError(
            f"--out is {out} and --to is {options.to}: let the name end with .{options.to}, by "
            "which loaders know the format"
        )
    if options.model and out.exists() and out.samefile(find_model(options.model)):
        raise UserError(f"{out} is the model itself; give another name with --out")
    return out


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run to export.")
    flags.DEFINE_string("model", None, "Or: a file that this command wrote, or a packaged model.")
    flags.DEFINE_enum("to", "safetensors", FORMATS, "The format.")
    flags.DEFINE_string("out", None, "The file to write; <name>.<format> unless told.")
    flags.DEFINE_enum("checkpoint", None, ("last", "best"), "Last epoch, or best on validation.")
    flags.DEFINE_bool("half", False, "Stores kernels in float16: half the bytes (safetensors).")
    flags.DEFINE_bool("int8", False, "Convolutions in int8: a quarter of the bytes (onnx).")
    flags.DEFINE_string("calibrate_on", None, "Folder of aligned faces to take int8's ranges of.")
    flags.DEFINE_float("temperature", None, "What logits are divided by, for calibration.")
    flags.DEFINE_string("licence", None, "Of the weights, to be written into the file.")
    flags.DEFINE_string("notes", None, "What else a user of the weights should know.")
    command.run(main)
