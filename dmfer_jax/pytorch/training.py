"""One training step in PyTorch: what `dmfer_jax.steps` does after augmentation, in the same order.

Forward, losses, backward, clipping, fused update, centers, moving average. The two agree but for
the running variance of BatchNorm, which PyTorch takes as unbiased and Flax as biased, and for
weights that nothing reads (above a shallow scale alone), which decay in Flax only.
"""
# pyright: reportMissingImports=false

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from dmfer_jax.loss_options import has_centers, has_unit_centers
from dmfer_jax.pytorch import limits, losses


class Trainer:
    """A network in training, with all that a step changes.

    Args:
      config: of the experiment.
      model: of `model.make_model`, or another that gives `logits`, `embedding` and `centers` as
        `model.Outputs` does; put into training mode.
      total_steps: of the run, which the learning rate comes down over.
      centers: `[K, C]`, the centers to begin with where the config moves them by rule; random ones
        if None. Copied.
      class_weights: `[K]`, as of `steps.make_train_step`; all examples weigh alike if None.
      extra_loss: takes the network's outputs and targets `[n, K]`, and returns a loss `[n]` that is
        added to the cross-entropy as it is, in place of the config's center loss.
      compile: whether forward and backward pass go through torch.compile (a minute at first).

    Raises:
      UserError: the config asks for what this training has not (see `limits`).

    Attributes:
      model: the network; its parameters and running statistics are the ones in training.
      optimizer, schedule: of `make_optimizer` and `make_schedule`.
      centers: `[K, C]`, moved by rule; None where there are none or they are parameters.
      ema: name in the state dict -> moving average, or None if switched off.
      steps: done so far.
      nonfinite: int32 [], for whoever counts the steps whose loss or gradient is not finite.
    """

    def __init__(
        self,
        config: ConfigDict,
        model: nn.Module,
        total_steps: int,
        *,
        centers: Tensor | None = None,
        class_weights: Tensor | None = None,
        extra_loss: Callable[[Any, Tensor], Tensor] | None = None,
        compile: bool = False,
    ) -> None:
        self.config: Any = config
        limits.check_training(config)
        self.model = model.train()
        self.optimizer = make_optimizer(self.config.optimizer, model)
        self.schedule = make_schedule(config, self.optimizer, total_steps)
        self.centers = None
        if has_centers(config.loss) and self.config.loss.centers == "state":
            head: Any = model.head  # [K, C], as the centers are
            random = nn.functional.normalize(torch.randn_like(head.weight), dim=-1)
            self.centers = random.detach() if centers is None else centers.detach().clone()
        self.class_weights = class_weights
        self.extra_loss = extra_loss
        self.ema = None
        self.begin_average()
        self.steps = 0
        self.nonfinite = torch.zeros((), dtype=torch.int32, device=next(model.parameters()).device)
        self._parameters = list(model.parameters())
        if compile:
            model.compile()  # in place: names in the state dict stay

    def begin_average(self) -> None:
        """Begins the moving average, if there is one, with the network's numbers as they are."""
        if self.config.optimizer.ema_decay:
            self.ema = {name: value.clone() for name, value in self._averaged().items()}

    def step(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Does one step and returns its scalars, undivided from the device.

        Args:
          images: `[n, channels, h, w]`, normalised float; `[n, h, w, channels]` in memory costs no
            copy.
          targets: `[n, K]` distributions.

        Returns:
          `loss`, `cross_entropy`, `center_loss` (or the extra one), `accuracy`, `grad_norm`, each
          `[]`.
        """
        outputs, loss, entropy, center = self._backward(images, targets)
        if rho := self.config.optimizer.sam_rho:
            with self._climbed(rho):
                self._backward(images, targets)
        grad_norm = self._clip()
        self.optimizer.step()
        self.schedule.step()
        if self.centers is not None:
            losses.update_centers(
                self.centers,
                outputs.embedding,
                self._center_labels(targets),
                rate=self.config.loss.center_rate,
                unit=has_unit_centers(self.config.loss),
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

    def eval_variables(self) -> dict[str, Tensor]:
        """The network's numbers to evaluate with, by name: their moving average, if there is one.

        They are not copied, and change as training goes on.
        """
        return self._averaged() if self.ema is None else self.ema

    def class_centers(self) -> Tensor | None:
        """The class centers `[K, C]` of the config's loss, wherever they live; None without one.

        Learned ones are those of the variables that are evaluated.
        """
        return self.eval_variables().get("centers") if self.centers is None else self.centers

    def state_dict(self) -> dict[str, Any]:
        """Everything that steps change, for `torch.save`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "centers": self.centers,
            "ema": self.ema,
            "steps": self.steps,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned, of a training by the same config."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.centers is not None:
            self.centers.copy_(saved["centers"])
        if self.ema is not None:
            for name, average in self.ema.items():
                average.copy_(saved["ema"][name])
        self.steps = saved["steps"]

    def _backward(self, images: Tensor, targets: Tensor) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Takes the gradient; returns the network's outputs, the loss and its two parts."""
        if self.config.model.dropout:  # drawn anew for each step: nothing random is carried along
            torch.manual_seed((self.config.seed << 32) + self.steps)
        outputs: Any = self.model(images)
        entropy, center = self._example_losses(outputs, targets)
        loss = entropy + (1.0 if self.extra_loss else self.config.loss.weight) * center
        self.optimizer.zero_grad()
        loss.backward()
        return outputs, loss, entropy, center

    @contextlib.contextmanager
    def _climbed(self, rho: float) -> Iterator[None]:
        """Moves the parameters up their gradient, see `steps.climb`; afterwards all is as before.

        Running statistics, too: those of a network that is never used count nowhere.
        """
        learning = [one for one in self._parameters if one.grad is not None]
        gradient: Any = [one.grad for one in learning]
        kept = [value.detach().clone() for value in (*learning, *self.model.buffers())]
        scale = rho / nn.utils.get_total_norm(gradient).clamp(min=1e-12)
        with torch.no_grad():
            torch._foreach_add_(learning, torch._foreach_mul(gradient, scale))
        yield
        with torch.no_grad():
            for value, before in zip((*learning, *self.model.buffers()), kept, strict=True):
                value.copy_(before)

    def _example_losses(self, outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the cross-entropy and the center loss, each the mean over the batch."""
        weights = None if self.class_weights is None else targets @ self.class_weights
        options = self.config.loss
        entropy = losses.cross_entropy(
            outputs.logits, targets, label_smoothing=options.label_smoothing
        )
        if self.extra_loss:
            return _mean(entropy, weights), _mean(self.extra_loss(outputs, targets), weights)
        if options.name == "none":
            return _mean(entropy, weights), torch.zeros_like(entropy[0])
        if outputs.centers is None:
            outputs = outputs._replace(centers=self.centers)
        function, inputs, fields = losses.LOSSES[options.name]
        arguments = {field: options[field] for field in fields}
        of_centers = has_centers(options)
        labels = self._center_labels(targets) if of_centers else targets
        loss = function(*(getattr(outputs, name) for name in inputs), labels, **arguments)
        if of_centers:
            return _mean(entropy, weights), _mean(loss, weights)
        return _mean(loss, weights), torch.zeros_like(loss[0])

    def _center_labels(self, targets: Tensor) -> Tensor:
        hard = self.config.loss.center_labels == "hard"
        return losses.hard_labels(targets) if hard else targets

    def _clip(self) -> Tensor:
        """Clips the gradient and returns the length that it had."""
        if limit := self.config.optimizer.clip_norm:
            return nn.utils.clip_grad_norm_(self._parameters, limit)
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _averaged(self) -> dict[str, Tensor]:
        state_dict = self.model.state_dict()
        return {name: value for name, value in state_dict.items() if value.is_floating_point()}


def make_optimizer(options: ConfigDict, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the fused update rule, with weight decay on kernels only.

    Args:
      options: `config.optimizer`.
      model: the network; what of it is frozen is left out.

    Returns:
      An optimizer whose rate is 1 above the backbone, and less by `layer_decay` from stage to
      stage below.
    """
    values: Any = options
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = values.layer_decay ** (_ABOVE - _stage(name))
            decayed = name.endswith(".weight") and parameter.ndim > 1
            groups.setdefault((rate, decayed), []).append(parameter)
    by_rate = [
        {
            "params": groups[rate, decayed],
            "weight_decay": values.weight_decay if decayed else 0.0,
            "lr": rate,
        }
        for rate, decayed in sorted(groups, reverse=True)
    ]
    if values.name == "sgd":
        momentum = values.momentum
        return torch.optim.SGD(by_rate, 1.0, momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(by_rate, 1.0, fused=True)


_ABOVE = 5
"""What `_stage` says of parts above the backbone, which come after stage 4."""


def _stage(name: str) -> int:
    """The stage of the backbone that a parameter belongs to; 0 is the stem."""
    part, _, within = name.partition(".")
    if part != "backbone":
        return _ABOVE
    found = re.match(r"stage(\d)_", within)
    return int(found[1]) if found else 0


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
