"""DMFER on FERPlus from random weights: one or two CPU cores.

  python -m dmfer_jax.train --config=configs/ferplus_cpu.py --config.data.source=path/to/folder

The full method at half the channels and 64 pixels, trained on the squares of the FER+ votes and
scored by the majority protocol. 2.6 hours of one core's time, 87.7 % on PublicTest
(mean of three seeds, results/runs.csv).
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.data.dataset = "ferplus"
    config.data.protocol = "majority"
    config.data.train_protocol = "votes"
    config.data.vote_power = 2.0
    config.data.image_size = 64
    config.data.channels = 1
    config.model.stem = "small"
    config.model.stem_stride = 2
    config.model.width = 0.5
    config.model.embedding = 128
    config.model.heads = 4
    config.model.flip_average = True
    config.augment.erase = 0.25
    config.optimizer.learning_rate = 0.3
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.epochs = 30
    config.train.batch_size = 64
    config.train.checkpoint_every = 200  # a few minutes' work at the most is lost
    return config
