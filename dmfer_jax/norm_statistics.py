"""Gives BatchNorms the statistics of data, and leaves the function that they compute as it is.

Weights whose BatchNorms were folded away come with a scale and a bias for each channel and with no
statistics. Trained on at once, every layer would be normalised by its batch and give something
else than before. So a mean and a variance are taken from some images, and the scale and bias are
changed by as much as these would change the output.

BatchNorm undoes the size of the kernel before it, so the size can be chosen, too, and it says how
far a step of training moves the kernel: a tenth as large, it moves by a hundred times as much of
itself (van Laarhoven, 2017). The face network's kernels are that small. They get the size of
random ones (He et al., 2015), so that one learning rate suits all layers.
"""

import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from dmfer_jax import sharding
from dmfer_jax.data import augment
from dmfer_jax.models.resnet import BatchNorm
from dmfer_jax.run import Run
from dmfer_jax.state import TrainState, with_variables

_IMAGES = 2048
"""Images that are looked at: each has hundreds of positions, or nine in the last layers."""

_EPSILON: float = BatchNorm.keywords["epsilon"]


def fit_backbone(run: Run, train_state: TrainState) -> TrainState:
    """Returns a first state whose backbone has the statistics of the first training images.

    The backbone computes the same function as before, and so does its moving average. It computes
    nearly the same in training, where BatchNorm takes each batch's own statistics.

    Args:
      run: that begins.
      train_state: with the weights it begins with.
    """
    options: Any = run.config
    size = options.train.batch_size
    batches = run.train_feed.train_batches(
        size,
        seed=options.seed,
        sampling=options.data.sampling,
        start_step=0,
        workers=options.data.workers,
    )
    count = min(-(-_IMAGES // size), len(run.train) // size)
    images = (batch["image"] for batch in itertools.islice(batches, count))
    variables = {"params": train_state.params, "batch_stats": train_state.batch_stats}
    fitted = fit_statistics(run.model, variables, images, "backbone", run.mesh)
    return with_variables(train_state, fitted)


def fit_statistics(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[jax.Array],
    part: str,
    mesh: Mesh,
) -> dict[str, Any]:
    """Sets the statistics of the BatchNorms of a part of a network to those of images.

    A convolution's kernel is multiplied by the u that gives its weights a mean square of 2 by the
    number of inputs. With the mean m and the variance v of what it gives then, and
    h = g / sqrt(old v + e) / u, BatchNorm's scale g and bias b become h * sqrt(v + e) and
    b + h * (m - u * old m).

    Args:
      model: the network.
      variables: its {"params", "batch_stats"}.
      batches: uint8 images `[n, h, w, c]`, all of one size.
      part: the name of the part, such as "backbone".
      mesh: that the images lie on.

    Returns:
      Variables of the same function, to rounding: float32 arrays.
    """

    def is_conv(module: nn.Module, method: str) -> bool:
        inside = len(module.path) > 0 and module.path[0] == part
        return method == "__call__" and isinstance(module, nn.Conv) and inside

    # Each process fetches them whole, whichever of them the images lie on.
    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def moments(images: jax.Array) -> Any:
        x = augment.normalize(augment.to_float(images))
        _, seen = model.apply(
            variables, x, capture_intermediates=is_conv, mutable=["intermediates"]
        )
        return jax.tree.map(
            lambda y: {"mean": y.mean((0, 1, 2)), "var": y.var((0, 1, 2))}, seen["intermediates"]
        )

    seen = [jax.device_get(moments(images)) for images in batches]
    together = jax.tree.map(lambda *each: np.stack(each).astype(np.float64), *seen)
    arrays = jax.device_get({name: variables[name] for name in ("params", "batch_stats")})
    params, stats = _fit(arrays["params"][part], arrays["batch_stats"][part], together[part])
    return {
        "params": {**arrays["params"], part: params},
        "batch_stats": {**arrays["batch_stats"], part: stats},
    }


def _fit(params: Any, stats: Any, seen: Any) -> tuple[Any, Any]:
    """Returns the params and statistics below a path."""
    if "norm" not in params:
        below = {name: _fit(branch, stats[name], seen[name]) for name, branch in params.items()}
        return {n: pair[0] for n, pair in below.items()}, {n: pair[1] for n, pair in below.items()}
    (moments,) = seen["conv"]["__call__"]
    kernel = params["conv"]["kernel"].astype(np.float64)
    growth = np.sqrt(2 * kernel.shape[-1] / np.sum(kernel**2))
    mean = growth * moments["mean"].mean(0)
    var = growth**2 * (moments["var"].mean(0) + moments["mean"].var(0))
    norm, old = params["norm"], stats["norm"]
    gain = norm["scale"] / np.sqrt(old["var"].astype(np.float64) + _EPSILON) / growth
    fitted = {
        "conv": {"kernel": growth * kernel},
        "norm": {
            "scale": gain * np.sqrt(var + _EPSILON),
            "bias": norm["bias"] + gain * (mean - growth * old["mean"]),
        },
    }
    as_float32 = partial(jax.tree.map, lambda value: value.astype(np.float32))
    return {**params, **as_float32(fitted)}, as_float32({"norm": {"mean": mean, "var": var}})
