"""The training state: pure data, everything that a step changes and a checkpoint holds."""

import zlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dmfer_jax import losses
from dmfer_jax.loss_options import has_centers, has_unit_centers, network_options
from dmfer_jax.models import vectors
from dmfer_jax.models.dmfer import Dmfer


class TrainState(flax.struct.PyTreeNode):
    """What a training step takes and gives.

    Attributes:
      step: int32 [], steps done.
      params: the network's parameters, float32.
      batch_stats: BatchNorm's running mean and variance.
      centers: float32 `[K, C]`, moved by rule; None where there are none or they are parameters.
      opt_state: optax's.
      ema: {"params", "batch_stats"}, moving averages used to evaluate; None if switched off.
      skipped: int32 [], steps that changed nothing, since their loss or gradient was not finite;
        below 0 the run is to stop, and steps change nothing any more (see `steps.keep_finite`).
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    centers: jax.Array | None
    opt_state: optax.OptState
    ema: Any
    skipped: jax.Array

    def eval_variables(self) -> dict[str, Any]:
        """The network's variables to evaluate and predict with."""
        if self.ema is not None:
            return self.ema
        return {"params": self.params, "batch_stats": self.batch_stats}

    def class_centers(self) -> jax.Array | None:
        """The class centers `[K, C]`, wherever they live; None if the loss has none.

        Learned ones are those of the variables that are evaluated.
        """
        return self.eval_variables()["params"].get("centers", self.centers)


def with_variables(state: TrainState, variables: Any) -> TrainState:
    """Returns a first state with other {"params", "batch_stats"}, on the devices that it is on.

    The moving average begins with them, too. The optimizer's state of a first step does not depend
    on them.
    """
    before = {"params": state.params, "batch_stats": state.batch_stats}

    def place() -> Any:
        return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), variables, before)

    # Two copies: the step is given the buffers of its state, each once.
    ema = None if state.ema is None else place()
    return state.replace(**place(), ema=ema)


def random_key(seed: int, name: str, step: int | jax.Array = 0) -> jax.Array:
    """Returns the random key of one use at one step; nothing random is ever carried along.

    Args:
      seed: of the run.
      name: what the numbers are for, such as "dropout".
      step: of the training.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def make_model(config: ConfigDict, num_classes: int) -> Dmfer:
    """Returns the network that the config describes."""
    options = network_options(config)
    return Dmfer(num_classes=num_classes, dtype=jnp.dtype(options.pop("dtype")), **options)


def init_state(
    config: ConfigDict, model: Dmfer, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the state before the first step; a pure function of the config, for use under jit."""
    size, channels = config.data.image_size, config.data.channels
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    # Nothing is computed but the weights: the forward pass needs no compiling.
    variables = model.lazy_init(random_key(config.seed, "weights"), images)
    params: Any = variables["params"]
    batch_stats = variables["batch_stats"]
    centers = None
    if has_centers(config.loss) and config.loss.centers == "state":
        key = random_key(config.seed, "centers")
        centers = losses.init_centers(key, model.num_classes, model.embedding)
    elif "centers" in params and has_unit_centers(config.loss):
        # The gradient of a cosine is as 1 / length: long ones would hardly turn.
        params = {**params, "centers": vectors.unit(params["centers"])}
    ema = {"params": params, "batch_stats": batch_stats} if config.optimizer.ema_decay else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        centers=centers,
        opt_state=optimizer.init(params),
        ema=ema,
        skipped=jnp.zeros((), jnp.int32),
    )
