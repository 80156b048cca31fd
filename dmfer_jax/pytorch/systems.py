"""The systems in PyTorch that a comparison trains: each a network with its losses, by one recipe.

They begin from the same weights of the backbone as this project does, see the same batches, and
are moved by the same optimizer on the same schedule. What is theirs alone, PyTorch draws from the
seed.
"""
# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dmfer_jax.pytorch import limits
from dmfer_jax.pytorch.dan import DanNetwork, dan_loss
from dmfer_jax.pytorch.model import Dmfer, make_model
from dmfer_jax.pytorch.plain import PlainNetwork
from dmfer_jax.pytorch.training import Trainer

TWIN = "dmfer_torch"
"""The same network as this project's; the others have its backbone alone."""

SYSTEMS: dict[str, tuple[Callable[[ConfigDict, int], nn.Module], Any]] = {
    TWIN: (make_model, None),
    "plain_torch": (PlainNetwork, None),
    "dan_torch": (DanNetwork, dan_loss),
}
"""Name -> what makes the network, and its loss beside the cross-entropy if not the config's."""


def new_trainer(
    system: str,
    config: ConfigDict,
    num_classes: int,
    total_steps: int = 1,
    *,
    class_weights: np.ndarray | None = None,
) -> Trainer:
    """Returns a system with weights drawn from the seed, on the device of `find_device`.

    Args:
      system: of `SYSTEMS`.
      config: of the experiment; `plain_torch` and `dan_torch` go with `loss.name` "none".
      num_classes: K.
      total_steps: of the run.
      class_weights: as of `Trainer`.

    Raises:
      UserError: the config asks for what the side in PyTorch has not (see `limits`).
    """
    limits.check_type(config)
    torch.manual_seed(config.seed)
    make_network, extra_loss = SYSTEMS[system]
    network, device = make_network(config, num_classes).to(find_device()), find_device()
    weights = None if class_weights is None else torch.tensor(class_weights, device=device)
    return Trainer(config, network, total_steps, class_weights=weights, extra_loss=extra_loss)


def begin_with(
    trainer: Trainer, weights: Mapping[str, np.ndarray], centers: np.ndarray | None
) -> None:
    """Gives a system before its first step what this project begins with.

    The twin takes all of it, the others the backbone's weights.

    Args:
      trainer: that has done no step.
      weights: of this project's network, as of `weights.pytorch.to_state_dict`.
      centers: `[K, C]`, where they are moved by rule.
    """
    everything = isinstance(trainer.model, Dmfer)
    taken = {
        name: torch.tensor(array)
        for name, array in weights.items()
        if everything or name.startswith("backbone.")
    }
    missing, unexpected = trainer.model.load_state_dict(taken, strict=False)
    lost = [
        name
        for name in missing
        if (everything or name.startswith("backbone.")) and not name.endswith("num_batches_tracked")
    ]
    assert not lost, lost
    assert not unexpected, unexpected
    if trainer.centers is not None:
        trainer.centers.copy_(torch.tensor(centers))
    trainer.begin_average()


def find_device() -> torch.device:
    """Returns the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_device() -> dict[str, Any]:
    """Returns the version of PyTorch, and the name of the device that it computes on."""
    device = find_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"torch": torch.__version__, "torch_device": name}


def train_on(trainer: Trainer, images: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Does one step on arrays.

    Args:
      trainer: that does it.
      images: `[n, h, w, c]`, normalised float32.
      targets: float32 `[n, K]`.

    Returns:
      The scalars of `Trainer.step`, and `skipped`, how many steps so far had a loss or gradient
      that is not finite; each is an object that NumPy takes, and that waits for the device only
      then.
    """
    device = find_device()
    x = torch.tensor(images, device=device).permute(0, 3, 1, 2)
    scalars = trainer.step(x, torch.tensor(targets, device=device))
    finite = (scalars["loss"] + scalars["grad_norm"]).isfinite()
    trainer.nonfinite = trainer.nonfinite + (~finite).int()
    scalars["skipped"] = trainer.nonfinite
    return {name: _Fetched(value) for name, value in scalars.items()}


@torch.inference_mode()
def predict(network: nn.Module, variables: dict[str, Tensor], images: np.ndarray) -> np.ndarray:
    """Returns the logits float32 `[n, K]` of images `[n, h, w, c]`, normalised float32.

    Args:
      network: whose numbers are not used, and which is in training mode afterwards.
      variables: the numbers to predict with, as of `Trainer.eval_variables`.
      images: of any number.
    """
    network.eval()
    x = torch.tensor(images, device=find_device()).permute(0, 3, 1, 2)
    logits = torch.func.functional_call(network, variables, (x,)).logits
    network.train()
    return logits.cpu().numpy()


def measure(network: nn.Module, image_size: int, channels: int) -> dict[str, int]:
    """Returns `parameters` and `flops` of a network, counted as `models.summary` counts.

    Args:
      network: in training mode, which it is in afterwards as well.
      image_size: height and width in pixels.
      channels: 1 or 3.
    """
    network.eval()
    image = torch.zeros(1, channels, image_size, image_size, device=find_device())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    network.train()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "flops": counter.get_total_flops()}


class _Fetched:
    """A tensor that comes to the host when it is asked for."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self._tensor.cpu().numpy()
