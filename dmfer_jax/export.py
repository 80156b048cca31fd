"""Writes a checkpoint of a run as a portable file: weights, labels and preprocessing in one.

  python -m dmfer_jax.export --workdir=runs/ferplus_cpu --checkpoint=best --out=model.safetensors
  python -m dmfer_jax.export --workdir=runs/ferplus_cpu --half --temperature=1.3 --out=a.safetensors

Where the run keeps a moving average of its weights, this is what is written, since it is what was
scored. `dmfer_jax.loading` reads the file, and so does anything that reads safetensors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

import dmfer_jax
from dmfer_jax import command, run_folder, sharding
from dmfer_jax.config import split_dataset, validate
from dmfer_jax.data import preprocessing
from dmfer_jax.errors import UserError
from dmfer_jax.loss_options import network_options
from dmfer_jax.reporting import report as reports
from dmfer_jax.reporting import writers
from dmfer_jax.state import TrainState
from dmfer_jax.trained import load_trained
from dmfer_jax.weights.portable import Manifest, save_portable


def export(
    workdir: Path,
    which: str,
    out: Path,
    *,
    half: bool = False,
    temperature: float = 1.0,
    licence: str = "",
    notes: str = "",
) -> Manifest:
    """Writes a checkpoint of a run as a portable file.

    Args:
      workdir: of the run.
      which: "last" or "best".
      out: the file to write; an older one is replaced.
      half: stores kernels in float16.
      temperature: what the logits are divided by, so that probabilities say how often they are
        right (Guo et al., 2017). It goes into the weights of the head, and every reader of the file
        has it.
      licence: of the weights.
      notes: whatever else a user of them should know.

    Returns:
      What the file says of the network.

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
            **_describe_training(which, config, train_state, note),
            "temperature": temperature,
        },
        scores=_find_scores(workdir, options.valid_split, int(train_state.step)),
        code_version=dmfer_jax.__version__,
        licence=licence,
        notes=notes,
    )
    save_portable(out, variables, manifest, half=half)
    return manifest


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
    which: str, config: ConfigDict, train_state: TrainState, note: dict[str, Any]
) -> dict[str, Any]:
    """What the network was trained on, for how long, and which of its epochs this is."""
    options: Any = config.data
    is_ferplus = split_dataset(options.dataset)[0] == "ferplus"
    return {
        # Its full name; of format 1 only what was asked for is known.
        "dataset": note.get("run", {}).get("dataset", options.dataset),
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
    }


def _find_scores(workdir: Path, split: str, step: int) -> dict[str, Any] | None:
    """The scores on the validation split that the run's log has of a step."""
    for row in reversed(writers.read_jsonl(workdir / "metrics.jsonl")):
        if (row.get("kind"), row.get("split"), row["step"]) == ("eval", split, step):
            return {"split": split, **{name: row[name] for name in reports.HEADLINES}}
    return None


def main(argv: Sequence[str]) -> None:
    """Exports the checkpoint that the flags name."""
    del argv
    options = flags.FLAGS
    manifest = export(
        Path(options.workdir),
        options.checkpoint,
        Path(options.out),
        half=options.half,
        temperature=options.temperature,
        licence=options.licence,
        notes=options.notes,
    )
    training = manifest.training
    chosen = f"the best on {training['chosen_on']}" if training["chosen_on"] else "the last"
    print(
        f"{options.out}: {', '.join(manifest.labels)}; {manifest.image_size} x "
        f"{manifest.image_size} x {manifest.channels}; {training['dataset']}, step "
        f"{training['step']:,}, {chosen}"
    )


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("checkpoint", "last", ("last", "best"), "Last epoch, or best on validation.")
    flags.DEFINE_string("out", None, "The file to write, such as model.safetensors.", required=True)
    flags.DEFINE_bool("half", False, "Stores kernels in float16: half the bytes.")
    flags.DEFINE_float("temperature", 1.0, "What logits are divided by, for calibration.")
    flags.DEFINE_string("licence", "", "Of the weights, to be written into the file.")
    flags.DEFINE_string("notes", "", "What else a user of the weights should know.")
    command.run(main)
