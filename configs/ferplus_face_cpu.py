"""DMFER on FERPlus from face weights: two CPU cores.

  python -m dmfer_jax.train --config=configs/ferplus_face_cpu.py --config.data.source=path/to/folder

The full method on the face recognition network that lies in this package: both scales, channel
self-attention, center cosine loss. Trained on the FER+ vote distributions and scored by the
majority protocol. A first recipe, of which nothing has been searched yet: 85.8 % on PublicTest
after two hours of two shared CPU cores (results/ferplus_face_cpu_seed0.json).
"""

from ml_collections import ConfigDict

from dmfer_jax import config as base


def get_config() -> ConfigDict:
    """Returns the experiment."""
    config = base.get_config()
    config.init_from = "face"
    config.data.dataset = "ferplus"
    config.data.protocol = "majority"
    config.data.train_protocol = "votes"
    config.data.image_size = 112
    config.data.channels = 1
    config.model.backbone = "face_resnet"
    config.model.embedding = 256
    config.model.heads = 4
    config.model.dropout = 0.2
    config.optimizer.learning_rate = 0.03  # the weights are small: much more destroys them
    config.optimizer.layer_decay = 0.75  # layers drawn at random have more to learn
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.epochs = 10
    config.train.batch_size = 64
    config.train.checkpoint_every = 100
    return config
