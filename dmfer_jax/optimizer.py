"""The optimizer: an optax chain made from `config.optimizer`."""

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


def make_optimizer(options: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns clipping, weight decay and the update rule, as one optax transformation.

    Args:
      options: `config.optimizer`.
      schedule: of `make_schedule`.
    """
    parts = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    if options.name == "sgd":
        parts += [
            optax.add_decayed_weights(options.weight_decay, mask=decayed),
            optax.sgd(schedule, momentum=options.momentum, nesterov=True),
        ]
    else:
        parts += [optax.adamw(schedule, weight_decay=options.weight_decay, mask=decayed)]
    return optax.chain(*parts)


def decayed(params: Any) -> Any:
    """Returns a tree of bools: which parameters weight decay applies to.

    Only kernels: not norms, biases, the attention's temperatures, or learned centers.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
