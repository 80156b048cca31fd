"""DMFER on AffectNet, 7 classes (without contempt), at 112 pixels: one accelerator.

  python -m dmfer_jax.train --config=configs/affectnet7.py --config.data.source=path/to/AffectNet

`affectnet8.py`, with contempt left out of training and test when records are read: 3,500 test
images (3,499 or 3,500 of the new release). The same records serve both. It has not been run, so no
accuracy is printed here.
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.load_config("configs/affectnet8.py")
    config.data.drop_classes = ("contempt",)
    return config
