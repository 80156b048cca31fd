"""The optimizer: an optax chain made from `config.optimizer`."""

import re
from typing import Any

import jax
import optax
from ml_collections import ConfigDict


def make_schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
    """Returns step -> learning rate: a linear warm-up, then half a cosine down to 0.

    The peak is `optimizer.learning_rate` times batch/256 (Goyal et al., 2017).
    """
    options = config.optimizer
    peak = options.learning_rate * config.train.batch_size / 256
    # A run shorter than its warm-up still gets a peak, and a step to come down in.
    warmup = min(round(options.warmup_epochs / config.train.epochs * total_steps), total_steps - 1)
    if warmup <= 0:
        return optax.cosine_decay_schedule(peak, total_steps)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, total_steps)


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns clipping, weight decay and the update rule, as one optax transformation.

    With `layer_decay` d, stage 4 of the backbone moves by d times the rate, stage 3 by d^2, and so
    on to d^5 for the stem; weight decay scales alike. What stands above the backbone has the whole
    rate. Such rates were proposed with ELECTRA (Clark et al., 2020) and BEiT (Bao et al., 2022).

    What `model.frozen_stages` freezes gets no update, no decay and no momentum, and the gradient's
    norm is that of the rest.

    Args:
      config: of the experiment.
      schedule: of `make_schedule`.
    """
    options, frozen_stages = config.optimizer, config.model.frozen_stages
    parts = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    if options.name == "sgd":
        parts += [
            optax.add_decayed_weights(options.weight_decay, mask=decayed),
            optax.sgd(schedule, momentum=options.momentum, nesterov=True),
        ]
    else:
        parts += [optax.adamw(schedule, weight_decay=options.weight_decay, mask=decayed)]
    if options.layer_decay != 1:
        parts += [_scale_by_stage(options.layer_decay)]
    rule = optax.chain(*parts)
    if not frozen_stages:
        return rule

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _stage(path) <= frozen_stages else "learns", params
        )

    return optax.multi_transform({"learns": rule, "frozen": optax.set_to_zero()}, labels)


def decayed(params: Any) -> Any:
    """Returns a tree of bools: which parameters weight decay applies to.

    Only kernels: not norms, biases, the attention's temperatures, or learned centers.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


_ABOVE = 5
"""What `_stage` says of parts above the backbone, which come after stage 4."""


def _stage(path: Any) -> int:
    """The stage of the backbone that a parameter belongs to; 0 is the stem."""
    part, name = (str(getattr(entry, "key", "")) for entry in (*path, "")[:2])
    if part != "backbone":
        return _ABOVE
    found = re.match(r"stage(\d)_", name)
    return int(found[1]) if found else 0


def _scale_by_stage(decay: float) -> optax.GradientTransformation:
    """Multiplies each update by `decay` to the power of how far below the head it is."""

    def scale(updates: Any, _: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, update: update * decay ** (_ABOVE - _stage(path)), updates
        )

    return optax.stateless(scale)
