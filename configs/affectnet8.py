"""DMFER on AffectNet, 8 classes, at 112 pixels: one accelerator.

  python -m dmfer_jax.train --config=configs/affectnet8.py --config.data.source=path/to/AffectNet

Trains on the owners' training set but for 3,755 images, on which the epoch is chosen, and is scored
on their validation set, as papers are. Which release it was belongs to the number: with both built,
name one by --config.data.dataset=affectnet/new or affectnet/old_cropped.

The training set is strongly imbalanced (36 happy faces for one of contempt) and the test set is
balanced. Most published recipes sample classes evenly without a word; here that is an option to be
named beside the result: --config.data.sampling=balanced (or square_root). The recipe follows those
published for FER networks of this size, without their face weights. It has not been run, so no
accuracy is printed here.
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.data.dataset = "affectnet"
    config.data.image_size = 112
    config.data.memory_gib = 16.0  # 10 GiB of images; where they do not fit, each epoch decodes
    config.model.dtype = "bfloat16"
    config.train.epochs = 20  # 1,109 steps each; ten times as many images as FERPlus
    config.train.batch_size = 256
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.ema_decay = 0.9995
    return config
