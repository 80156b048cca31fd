"""DMFER on FERPlus at 112 pixels: one accelerator.

  python -m dmfer_jax.train --config=configs/ferplus.py --config.data.source=path/to/folder

Trains on the FER+ vote distributions and is scored by the majority protocol, as most papers are.
The recipe follows those published for FER networks of this size, without their face weights. It
has not been run yet, so no accuracy is printed here.
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.data.dataset = "ferplus"
    config.data.protocol = "majority"
    config.data.train_protocol = "votes"
    config.data.image_size = 112
    config.model.dtype = "bfloat16"
    config.model.dropout = 0.2
    config.train.epochs = 60
    config.train.batch_size = 256
    config.optimizer.ema_decay = 0.999
    return config
