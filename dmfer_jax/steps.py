"""The training step and the evaluation step: one pure jitted function each."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dmfer_jax import losses, metrics
from dmfer_jax.compiling import compiler_options
from dmfer_jax.data import augment
from dmfer_jax.loss_options import has_centers, has_unit_centers
from dmfer_jax.models import vectors
from dmfer_jax.models.dmfer import Dmfer, Outputs
from dmfer_jax.sharding import batched, platform, replicated
from dmfer_jax.state import TrainState, random_key

Batch = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
EvalTotals = dict[str, metrics.Metrics]
EvalStep = Callable[[dict[str, Any], Batch, EvalTotals], tuple[EvalTotals, jax.Array]]


def make_train_step(
    config: ConfigDict,
    model: Dmfer,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    class_weights: np.ndarray | None = None,
) -> TrainStep:
    """Returns the jitted step: augment, forward, losses, backward, update; its state is donated.

    With SAM (`climb`) it goes forward and backward twice; losses, statistics and centers are of the
    first time, the gradient of the second.

    The step takes the state and a batch (`image` uint8 `[n, h, w, c]`, `target` float32 `[n, K]`)
    and returns the new state and scalars on the device: `loss`, `cross_entropy`, `center_loss`,
    `accuracy`, `grad_norm`, `skipped` (see `keep_finite`); `center_spread` (1 less the mean cosine
    between the centers of different classes) where there are centers; and `attention_temperature`
    (the mean over heads) where there is channel attention.

    Args:
      config: of the experiment.
      model: of `state.make_model`.
      optimizer: of `make_optimizer`.
      mesh: of `sharding.make_mesh`.
      class_weights: `[K]` of `balanced_weights`. An example of shares t weighs sum_k t_k w_k, and
        both losses are the means by these weights over the global batch. For hard labels that is
        PyTorch's CrossEntropyLoss(weight=w), which divides by the sum of the weights, too; with
        soft targets and label smoothing PyTorch weighs each class's term by itself. All examples
        weigh alike if None.
    """
    loss_fn = make_loss_function(config, model, class_weights)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        images, targets = augment_batch(config, state.step, batch["image"], batch["target"])
        mask = jnp.ones(targets.shape[0])
        take_gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (parts, outputs, changed)), grads = take_gradient(
            state.params, state, images, targets
        )
        if config.optimizer.sam_rho:
            above = climb(state.params, grads, config.optimizer.sam_rho)
            _, grads = take_gradient(above, state, images, targets)
        batch_stats = changed["batch_stats"]
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        centers = _move_centers(config, state.centers, outputs.embedding, targets, mask)
        correct = outputs.logits.argmax(-1) == targets.argmax(-1)
        scalars = {
            "loss": loss,
            **parts,
            "accuracy": losses.masked_mean(correct.astype(jnp.float32), mask),
            "grad_norm": optax.tree.norm(grads),
            **_describe_parts(params, centers),
        }
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            centers=centers,
            opt_state=opt_state,
            ema=_update_ema(config.optimizer.ema_decay, state, params, batch_stats),
            skipped=state.skipped,
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(scalars["grad_norm"])
        new_state = keep_finite(config.train.nonfinite, finite, state, new_state)
        return new_state, {**scalars, "skipped": jnp.abs(new_state.skipped)}

    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, batched(mesh)),
        out_shardings=(whole, whole),
        donate_argnums=0,
        compiler_options=compiler_options(platform(mesh)),
    )


def climb(params: Any, grads: Any, rho: float) -> Any:
    """Returns the parameters a step of length rho up the gradient.

    There sharpness-aware minimization (SAM; Foret et al., ICLR 2021) takes the gradient by which it
    moves the parameters themselves, so that the loss gets low all around them.
    """
    scale = rho / jnp.maximum(optax.tree.norm(grads), 1e-12)
    return jax.tree.map(lambda value, grad: value + scale * grad, params, grads)


LossFunction = Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], Outputs, dict[str, Any]]]]


def make_loss_function(
    config: ConfigDict, model: Dmfer, class_weights: np.ndarray | None, **options: Any
) -> LossFunction:
    """Returns the function whose gradient a step takes.

    It takes parameters, the state before the step, and images and targets of `augment_batch`. It
    returns the loss [], and beside it its parts `cross_entropy` (of a margin head with the margin)
    and `center_loss`, the network's outputs and the collections that changed, `batch_stats` among
    them.

    Args:
      config: of the experiment.
      model: of `state.make_model`.
      class_weights: as in `make_train_step`.
      **options: for `model.apply`, such as `capture_intermediates`.
    """

    def loss_fn(params: Any, state: TrainState, images: jax.Array, targets: jax.Array) -> Any:
        captured = ["intermediates"] if "capture_intermediates" in options else []
        outputs, changed = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats", *captured],
            rngs={"dropout": random_key(config.seed, "dropout", state.step)},
            **options,
        )
        entropy, center = example_losses(config, outputs, state.centers, targets)
        ones = jnp.ones(targets.shape[0])
        weights = ones if class_weights is None else targets @ jnp.asarray(class_weights)
        parts = {
            "cross_entropy": _weighted_mean(entropy, weights),
            "center_loss": _weighted_mean(center, weights),
        }
        loss = parts["cross_entropy"] + config.loss.weight * parts["center_loss"]
        return loss, (parts, outputs, changed)

    return loss_fn


def augment_batch(
    config: ConfigDict, step: jax.Array, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns what the network sees of a batch in a step, and what it aims at.

    Args:
      config: of the experiment.
      step: int32 [], steps done before.
      images: uint8 `[n, h, w, c]`, as they lie in the records.
      targets: float32 `[n, K]`.

    Returns:
      float32 images, as large, in -1 to 1; and targets like those given.
    """
    key = random_key(config.seed, "augment", step)
    augmented = augment.augment(key, augment.to_float(images), config.augment)
    alpha: Any = config.augment.mixup
    if alpha:
        key = random_key(config.seed, "mixup", step)
        augmented, targets = augment.mix(key, augmented, targets, alpha)
    # Without this barrier XLA augments again in the backward pass.
    return jax.lax.optimization_barrier(augment.normalize(augmented)), targets


def keep_finite(policy: str, finite: jax.Array, old: TrainState, new: TrainState) -> TrainState:
    """Returns the new state, or one that nothing but numbers can come from.

    Whether a step's numbers are finite is decided on the device, so that no step waits for the host
    to look at them.

    Args:
      policy: where they are not, "skip" keeps the old state and counts the step; "stop" keeps it,
        its step too, counts it with a minus in front, and changes nothing in later steps either:
        whenever the host looks, it finds the state as it was before the step.
      finite: bool [], whether the step's loss and gradient are finite.
      old: before the step.
      new: after it.
    """
    good = finite if policy == "skip" else finite & (old.skipped >= 0)
    kept = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, old)
    if policy == "skip":
        return kept.replace(step=new.step, skipped=old.skipped + ~finite)
    stopped = -(jnp.abs(old.skipped) + (old.skipped >= 0))
    return kept.replace(skipped=jnp.where(good, old.skipped, stopped))


def make_eval_step(model: Dmfer, mesh: Mesh) -> EvalStep:
    """Returns the jitted step that adds a batch of `data.pipeline.eval_batches` to the totals.

    The step takes the network's variables, a batch and the totals so far (of `empty_totals`), and
    returns the new totals and the probabilities float32 `[n, K]`.
    """

    def step(
        variables: dict[str, Any], batch: Batch, totals: EvalTotals
    ) -> tuple[EvalTotals, jax.Array]:
        outputs: Any = model.apply(variables, augment.normalize(batch["image"]))
        return add_to_totals(outputs.logits, batch, totals)

    whole, split = replicated(mesh), batched(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, split, whole),
        out_shardings=(whole, split),
        donate_argnums=2,
        compiler_options=compiler_options(platform(mesh)),
    )


def add_to_totals(
    logits: jax.Array, batch: Batch, totals: EvalTotals
) -> tuple[EvalTotals, jax.Array]:
    """Counts the logits float `[n, K]` of a batch of `data.pipeline.eval_batches`.

    Returns:
      The new totals and the probabilities `[n, K]`.
    """
    entropy = losses.cross_entropy(logits, batch["target"])
    probabilities = jax.nn.softmax(logits)
    added = {
        name: metrics.from_batch(probabilities, batch["label"], entropy, batch[mask])
        for name, mask in (("all", "mask"), ("first", "first"))
    }
    return {name: totals[name].merge(added[name]) for name in added}, probabilities


def empty_totals(num_classes: int) -> EvalTotals:
    """Returns the totals of no examples: over "all", and over the "first" of equal pixels."""
    return {name: metrics.Metrics.empty(num_classes) for name in ("all", "first")}


def example_losses(
    config: ConfigDict, outputs: Outputs, centers: jax.Array | None, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the cross-entropy `[n]` and the center loss `[n]` (0 where there is none).

    A margin head's loss is in place of the cross-entropy, with the margin on the label's logit.

    Args:
      config: of the experiment.
      outputs: of the network.
      centers: `[K, C]` of the training state; learned ones come with the outputs.
      targets: `[n, K]` distributions.
    """
    entropy = losses.cross_entropy(
        outputs.logits, targets, label_smoothing=config.loss.label_smoothing
    )
    if config.loss.name == "none":
        return entropy, jnp.zeros_like(entropy)
    if outputs.centers is None:
        outputs = outputs._replace(centers=centers)
    function, inputs, fields = losses.LOSSES[config.loss.name]
    arguments = {field: config.loss[field] for field in fields}
    of_centers = has_centers(config.loss)
    labels = _center_labels(config, targets) if of_centers else targets
    loss = function(*(getattr(outputs, name) for name in inputs), labels, **arguments)
    return (entropy, loss) if of_centers else (loss, jnp.zeros_like(loss))


def balanced_weights(targets: np.ndarray) -> np.ndarray:
    """Returns the weights by which each class counts the same, however many examples it has.

    w_k = N / (K n_k), where n_k is the number of examples of class k (the sum of their shares in
    it, where targets are soft) and K counts the classes that have any. So N examples weigh N
    together. A class without examples has weight 0: its weight is never asked for.

    Args:
      targets: `[N, K]` distributions, of the whole training split.

    Returns:
      float32 `[K]`.
    """
    numbers = targets.sum(axis=0, dtype=np.float64)
    present = numbers > 0
    weights = len(targets) / (present.sum() * np.where(present, numbers, 1))
    return np.where(present, weights, 0).astype(np.float32)


def _move_centers(
    config: ConfigDict,
    centers: jax.Array | None,
    embedding: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
) -> jax.Array | None:
    """The centers of the training state after a batch; None where it holds none."""
    if centers is None:
        return None
    return losses.update_centers(
        centers,
        embedding,
        _center_labels(config, targets),
        mask,
        rate=config.loss.center_rate,
        unit=has_unit_centers(config.loss),
    )


def _center_labels(config: ConfigDict, targets: jax.Array) -> jax.Array:
    """The distributions `[n, K]` that losses on centers, and the rule that moves those, take."""
    return losses.hard_labels(targets) if config.loss.center_labels == "hard" else targets


def _describe_parts(params: Any, centers: jax.Array | None) -> dict[str, jax.Array]:
    """What the log says of centers and attention, as far as there are any."""
    described = {}
    centers = params.get("centers", centers)
    if centers is not None and len(centers) > 1:
        unit = vectors.unit(centers)
        classes, whole = len(centers), jnp.sum(jnp.square(unit.sum(0)))
        cosine = (whole - jnp.sum(jnp.square(unit))) / (classes * (classes - 1))
        described["center_spread"] = 1 - cosine
    if "temperature" in params.get("attention", {}):
        described["attention_temperature"] = params["attention"]["temperature"].mean()
    return described


def _weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(values * weights) / jnp.sum(weights)


def _update_ema(decay: float, state: TrainState, params: Any, batch_stats: Any) -> Any:
    """The moving average; shorter at first, so that random weights are soon forgotten."""
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    new = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda average, value: average + rate * (value - average), state.ema, new)
