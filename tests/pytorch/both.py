"""One experiment, its network in Flax and in PyTorch with the same weights, and one batch."""
# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from dmfer_jax import config as configs
from dmfer_jax import state
from dmfer_jax.data import augment
from dmfer_jax.models import face_resnet, resnet
from dmfer_jax.pytorch import model as twin_model
from dmfer_jax.pytorch import resnet as twin_resnet
from dmfer_jax.weights.pytorch import to_state_dict
from tests.models.variables import draw_variables

CLASSES = 8


def use_one_block_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three stages of one block: a quarter of the time to compile."""
    for name in ("resnet18", "resnet50"):
        monkeypatch.setitem(resnet.BACKBONES[name], "blocks", (1, 1, 1))
        bottleneck = twin_resnet.BACKBONES[name][1]
        monkeypatch.setitem(twin_resnet.BACKBONES, name, ((1, 1, 1), bottleneck))
    monkeypatch.setattr(face_resnet, "BLOCKS", (1, 1, 1))
    monkeypatch.setattr(twin_resnet, "FACE_BLOCKS", (1, 1, 1))


def tiny(**changes: Any) -> ConfigDict:
    """Stages of 8 to 32 channels at 32 pixels, an embedding of 16; nothing random in a step."""
    config = configs.get_config()
    options: dict[str, Any] = {
        "data.image_size": 32,
        "model.stem": "small",
        "model.stem_stride": 2,
        "model.width": 0.125,
        "model.embedding": 16,
        "model.heads": 2,
        "train.epochs": 1,
        "train.batch_size": 8,
        **{f"augment.{name}": 0.0 for name in config.augment if name != "erase_area"},
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    config.update_from_flattened_dict(options)
    return config


def make_both(config: ConfigDict) -> tuple[Any, dict[str, Any], Any]:
    """Returns the network in Flax, its variables, and the network in PyTorch with the same."""
    model = state.make_model(config, CLASSES)
    size, channels = config.data.image_size, config.data.channels
    variables = draw_variables(model, jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32))
    twin = twin_model.make_model(config, CLASSES)
    load(twin, variables)
    return model, variables, twin


def load(twin: Any, variables: dict[str, Any]) -> None:
    tensors = {name: torch.from_numpy(a) for name, a in to_state_dict(variables).items()}
    missing, unexpected = twin.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


def draw_batch(config: ConfigDict, count: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns uint8 images, soft targets, and centers of different lengths."""
    rng = np.random.default_rng(0)
    size, channels = config.data.image_size, config.data.channels
    images = rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    targets = rng.dirichlet([0.3] * CLASSES, count).astype(np.float32)
    centers = rng.normal(0, 1, (CLASSES, config.model.embedding)).astype(np.float32)
    return images, targets, centers


def to_tensor(images: np.ndarray) -> Any:
    return torch.from_numpy(np.array(augment.normalize(jnp.asarray(images)))).permute(0, 3, 1, 2)
