"""Makes a model of a portable file: what it says of itself is all that is needed."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dmfer_jax import state
from dmfer_jax.config import get_config, validate
from dmfer_jax.data import preprocessing
from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.predictor import BUCKETS, Predictor
from dmfer_jax.weights.npz import load_npz
from dmfer_jax.weights.packaged import packaged_models
from dmfer_jax.weights.portable import load_portable
from dmfer_jax.weights.sealing import Manifest

PROGRAMS = (".stablehlo", ".onnx")
"""How the names of programs end, which `exported` loads."""

DEFAULT_MODEL = "ferplus-small"
"""The one of them that commands take unless told."""


def find_model(model: str) -> Path:
    """Returns the file of a model.

    Args:
      model: a name of one in the package, or a path.

    Raises:
      UserError: there is neither; the message lists the names.
    """
    packaged = packaged_models()
    if model in packaged:
        return packaged[model]
    if (path := Path(os.path.expanduser(model))).is_file():
        return path
    if path.is_dir():
        raise UserError(
            f"{model} is a folder; if it is that of a run, write its model with `python -m "
            f"dmfer_jax.export --workdir={model} --checkpoint=best --out=model.safetensors` and "
            "give that file"
        )
    raise UserError(
        f"there is no model {model!r}; it can be the path of a file that `python -m "
        f"dmfer_jax.export` wrote, or a model of this package: {', '.join(packaged) or 'none yet'}"
    )


def load_predictor(
    path: str | os.PathLike[str],
    *,
    buckets: Sequence[int] = BUCKETS,
) -> Predictor:
    """Returns a predictor of the network in a portable file.

    Args:
      path: of a file that `dmfer_jax.export` wrote: a portable file, or one of arrays (.npz).
      buckets: of `Predictor`.

    Raises:
      UserError: the file cannot be used; see `load_weights`.
    """
    manifest, variables = load_weights(path)
    return Predictor(
        make_network(manifest),
        variables,
        manifest.image_size,
        manifest.channels,
        manifest.labels,
        buckets=buckets,
    )


def load_weights(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, Any]]:
    """Reads a portable file, or a file of arrays (.npz), of a network of this release.

    Returns:
      Its manifest, and the variables {"params", "batch_stats"} of float32 arrays.

    Raises:
      UserError: the file cannot be used; see `load_portable`, `load_npz` and `make_network`.
    """
    if Path(path).suffix in PROGRAMS:
        raise UserError(
            f"{path} is a program made of a network, whose weights cannot be had from it; give the "
            ".safetensors or .npz file that it was made of"
        )
    load = load_npz if Path(path).suffix == ".npz" else load_portable
    manifest, variables = load(path)
    try:
        model = make_network(manifest)
        _check_variables(model, variables, (manifest.image_size, manifest.channels))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return manifest, variables


def make_network(manifest: Manifest) -> Dmfer:
    """Returns the network that a manifest describes.

    Raises:
      UserError: an option is not one of this release, or out of range, or the preprocessing is not
        what this release does.
    """
    expected = preprocessing.describe(manifest.image_size, manifest.channels)
    if differs := sorted(
        name
        for name in expected.keys() | manifest.preprocessing.keys()
        if expected.get(name) != manifest.preprocessing.get(name)
    ):
        raise UserError(
            f"the network's images were prepared in another way than this release of dmfer-jax "
            f"does: {', '.join(map(repr, differs)):.200} of its preprocessing; install the release "
            f"that wrote it, {manifest.code_version!r:.40}"
        )
    options = dict(manifest.model)
    of_loss = _take_options_of_loss(options)
    config = _config_of(manifest, options)
    return state.make_model(config, len(manifest.labels)).clone(**of_loss)


_LARGEST = {"width": 16, "embedding": 2**14, "heads": 2**14}
"""Of options without a bound of their own; tracing a network asks for no more memory than these."""


def _take_options_of_loss(options: dict[str, Any]) -> dict[str, Any]:
    """Takes out of a manifest's options those that its loss asked for (`network_options`)."""
    found = {
        "learned_centers": options.pop("learned_centers", None),
        "attentive": options.pop("attentive", False),
        "cosine_scale": options.pop("cosine_scale", None),
    }
    for name in ("learned_centers", "attentive"):
        if not isinstance(found[name], bool):
            raise UserError(f"the network's {name} is {found[name]!r:.40}; expected true or false")
    scale = found["cosine_scale"]
    if scale is not None and not (isinstance(scale, float) and 0 < scale < math.inf):
        raise UserError(
            f"the network's cosine_scale is {scale!r:.40}; expected null, or a number above 0 such "
            "as 64.0"
        )
    return found


def _config_of(manifest: Manifest, options: Mapping[str, Any]) -> ConfigDict:
    """An experiment with the manifest's network, valid as if a user had asked for it."""
    config = get_config()
    for name, value in options.items():
        if name not in config.model:
            raise UserError(
                f"the network has the option {name[:60]!r}, which this release of dmfer-jax does "
                f"not know; install the release that wrote it, {manifest.code_version!r:.40}"
            )
        if type(value) is not type(config.model[name]):
            raise UserError(
                f"the network's {name} is {value!r:.40}; expected a value such as "
                f"{config.model[name]!r}"
            )
        if name in _LARGEST and not value <= _LARGEST[name]:
            raise UserError(f"the network's {name} is {value!r:.40}; expected {_LARGEST[name]}")
        config.model[name] = value
    config.data.image_size, config.data.channels = manifest.image_size, manifest.channels
    validate(config)
    return config


def _check_variables(model: Dmfer, variables: Mapping[str, Any], image: tuple[int, int]) -> None:
    """Refuses weights that are not those of the network: names and shapes, none less, none more."""
    size, channels = image
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    try:
        expected = jax.eval_shape(model.init, jax.random.key(0), images)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the network that it describes cannot take images of {size} pixels ({error})"
        ) from error
    wanted, found = _shapes(expected), _shapes(variables)
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            raise UserError(
                f"the weights are not those of the network that it describes: {path[:120]} is "
                f"{found.get(path, 'missing')}; expected {wanted.get(path, 'none')}"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(part.key) for part in path): leaf.shape for path, leaf in leaves}
