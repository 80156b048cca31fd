"""One training step in PyTorch: what `dmfer_jax.steps` does after augmentation, in the same order.

Forward, losses, backward, clipping, fused update, centers, moving average. The two agree but for
the running variance of BatchNorm, which PyTorch takes as unbiased and Flax as biased, and for
weights that nothing reads (above a shallow scale alone), which decay in Flax only.
"""
# pyright: reportMissingImports=false

import math
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from dmfer_jax.errors import UserError
from dmfer_jax.loss_options import has_centers
from dmfer_jax.pytorch import losses
from dmfer_jax.pytorch.model import Dmfer, Outputs


class Trainer:
    """A network in training, with all that a step changes.

    Args:
      config: of the experiment.
      model: of `model.make_model`; put into training mode.
      total_steps: of the run, which the learning rate comes down over.
      centers: `[K, C]`, the centers to begin with where the config moves them by rule; random ones
        if None. Copied.
      class_weights: `[K]`, as of `steps.make_train_step`; all examples weigh alike if None.
      compile: whether forward and backward pass go through torch.compile (a minute at first).

    Raises:
      UserError: the config freezes stages or has rates by layer, which this training has not.

    Attributes:
      model: the network; its parameters and running statistics are the ones in training.
      optimizer, schedule: of `make_optimizer` and `make_schedule`.
      centers: `[K, C]`, moved by rule; None where there are none or they are parameters.
      ema: name in the state dict -> moving average, or None if switched off.
      steps: done so far.
    """

    def __init__(
        self,
        config: ConfigDict,
        model: Dmfer,
        total_steps: int,
        *,
        centers: Tensor | None = None,
        class_weights: Tensor | None = None,
        compile: bool = False,
    ) -> None:
        self.config: Any = config
        for field, plain in (("model.frozen_stages", 0), ("optimizer.layer_decay", 1)):
            section, name = field.split(".")
            if self.config[section][name] != plain:
                raise UserError(
                    f"config.{field} is {self.config[section][name]}; training in PyTorch is "
                    f"without it: set config.{field}={plain}"
                )
        self.model = model.train()
        self.optimizer = make_optimizer(self.config.optimizer, model)
        self.schedule = make_schedule(config, self.optimizer, total_steps)
        self.centers = None
        if has_centers(config.loss) and self.config.loss.centers == "state":
            random = nn.functional.normalize(torch.randn_like(model.head.weight), dim=-1)
            self.centers = random.detach() if centers is None else centers.detach().clone()
        self.class_weights = class_weights
        self.ema = None
        if self.config.optimizer.ema_decay:
            self.ema = {name: value.clone() for name, value in self._averaged().items()}
        self.steps = 0
        self._parameters = list(model.parameters())
        if compile:
            model.compile()  # in place: names in the state dict stay

    def step(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Does one step and returns its scalars, undivided from the device.

        Args:
          images: `[n, channels, h, w]`, normalised float; `[n, h, w, channels]` in memory costs no
            copy.
          targets: `[n, K]` distributions.

        Returns:
          `loss`, `cross_entropy`, `center_loss`, `accuracy`, `grad_norm`, each `[]`.
        """
        outputs: Outputs = self.model(images)
        entropy, center = self._example_losses(outputs, targets)
        loss = entropy + self.config.loss.weight * center
        self.optimizer.zero_grad()
        loss.backward()
        grad_norm = self._clip()
        self.optimizer.step()
        self.schedule.step()
        if self.centers is not None:
            losses.update_centers(
                self.centers,
                outputs.embedding,
                targets,
                rate=self.config.loss.center_rate,
                unit=self.config.loss.name not in losses.EUCLIDEAN_LOSSES,
            )
        if self.ema is not None:
            rate = 1.0 - min(self.config.optimizer.ema_decay, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.ema.values()), list(self._averaged().values()), rate)
        self.steps += 1
        correct = outputs.logits.argmax(-1) == targets.argmax(-1)
        return {
            "loss": loss.detach(),
            "cross_entropy": entropy.detach(),
            "center_loss": center.detach(),
            "accuracy": correct.float().mean(),
            "grad_norm": grad_norm,
        }

    def _example_losses(self, outputs: Outputs, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cross-entropy and the center loss, each the mean over the batch."""
        weights = None if self.class_weights is None else targets @ self.class_weights
        options = self.config.loss
        entropy = losses.cross_entropy(
            outputs.logits, targets, label_smoothing=options.label_smoothing
        )
        if options.name == "none":
            return _mean(entropy, weights), torch.zeros_like(entropy[0])
        if outputs.centers is None:
            outputs = outputs._replace(centers=self.centers)
        function, inputs, fields = losses.LOSSES[options.name]
        arguments = {field: options[field] for field in fields}
        loss = function(*(getattr(outputs, name) for name in inputs), targets, **arguments)
        if has_centers(options):
            return _mean(entropy, weights), _mean(loss, weights)
        return _mean(loss, weights), torch.zeros_like(loss[0])

    def _clip(self) -> Tensor:
        """Clips the gradient and returns the length that it had."""
        if limit := self.config.optimizer.clip_norm:
            return nn.utils.clip_grad_norm_(self._parameters, limit)
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _averaged(self) -> dict[str, Tensor]:
        state_dict = self.model.state_dict()
        return {name: value for name, value in state_dict.items() if value.is_floating_point()}


def make_optimizer(options: ConfigDict, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the fused update rule, with weight decay on kernels only and a rate of 1.

    Args:
      options: `config.optimizer`.
      model: the network.
    """
    values: Any = options
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        kernel = name.endswith(".weight") and parameter.ndim > 1
        (decayed if kernel else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": values.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if values.name == "sgd":
        momentum = values.momentum
        return torch.optim.SGD(groups, 1.0, momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, 1.0, fused=True)


def make_schedule(
    config: ConfigDict, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Sets the optimizer's rate, now and at each `step()`, to that of `optimizer.make_schedule`."""
    values: Any = config
    options = values.optimizer
    peak = options.learning_rate * values.train.batch_size / 256
    warmup = min(round(options.warmup_epochs / values.train.epochs * total_steps), total_steps - 1)

    def rate(step: int) -> float:
        if step < warmup:
            return peak * step / warmup
        share = min((step - warmup) / (total_steps - warmup), 1.0)
        return peak * 0.5 * (1.0 + math.cos(math.pi * share))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else (values * weights).sum() / weights.sum()
