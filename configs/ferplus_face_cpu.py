"""DMFER on FERPlus from face weights: one or two CPU cores.

  python -m dmfer_jax.train --config=configs/ferplus_face_cpu.py --config.data.source=path/to/folder

The full method on the face recognition network that lies in this package: both scales, channel
self-attention, center cosine loss. Trained on the squares of the FER+ votes and scored by the
majority protocol. 2.2 to 3.6 hours of one core's time, 88.6 % on PublicTest (mean of three
seeds, results/runs.csv). What was tried before is in results/search_face.csv.
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
    config.data.image_size = 131
    config.data.channels = 1
    config.data.vote_power = 2.0  # squared: rare votes count less
    config.augment.erase = 0.0
    config.model.backbone = "face_resnet"
    config.model.frozen_stages = 1
    config.model.embedding = 256
    config.model.heads = 4
    config.model.flip_average = True
    config.optimizer.learning_rate = 0.3
    config.optimizer.layer_decay = 0.75  # layers drawn at random have more to learn
    config.optimizer.warmup_epochs = 0.5
    config.optimizer.ema_decay = 0.999
    config.train.epochs = 36
    config.train.batch_size = 64
    config.train.checkpoint_every = 200
    return config
