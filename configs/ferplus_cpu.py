"""DMFER on FERPlus at 48 pixels: two CPU cores.

  python -m dmfer_jax.train --config=configs/ferplus_cpu.py --config.data.source=path/to/folder

The smallest honest run on real faces: grey images at their own size, a ResNet-18 of 16 to 128
channels, trained on the FER+ vote distributions and scored by the majority protocol. Half an hour
on two CPU cores, 79.4 % on PublicTest (results/ferplus_cpu_seed0.json).
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.data.dataset = "ferplus"
    config.data.protocol = "majority"
    config.data.train_protocol = "votes"
    config.data.image_size = 48
    config.data.channels = 1
    config.model.stem = "small"
    config.model.stem_stride = 2
    config.model.width = 0.25
    config.model.embedding = 128
    config.model.heads = 4
    config.augment.erase = 0.25  # a short run has no time for more
    config.optimizer.name = "adamw"  # leaves chance level sooner than SGD does
    config.optimizer.learning_rate = 0.008
    config.optimizer.weight_decay = 0.02
    config.optimizer.warmup_epochs = 1.0
    config.train.epochs = 10
    config.train.batch_size = 64
    config.optimizer.ema_decay = 0.995
    config.train.checkpoint_every = 100  # a few minutes' work at the most is lost
    return config
