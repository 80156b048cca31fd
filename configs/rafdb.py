"""DMFER on RAF-DB at 112 pixels: one accelerator.

  python -m dmfer_jax.train --config=configs/rafdb.py --config.data.source=path/to/RAF-DB

Trains on nine tenths of the owners' train part, chooses the epoch on the last tenth and is scored
on their 3,068 test images. The recipe follows those published for FER networks of this size,
without their face weights. It has not been run, so no accuracy is printed here.
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.data.dataset = "rafdb"
    config.data.image_size = 112  # the owners' aligned faces have 100
    config.model.dtype = "bfloat16"
    config.model.dropout = 0.2
    config.train.epochs = 60
    config.train.batch_size = 128  # 86 steps an epoch
    config.optimizer.ema_decay = 0.999
    return config
