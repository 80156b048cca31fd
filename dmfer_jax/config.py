"""Every option of an experiment, once, with its default; and what combinations make sense.

The files in `configs/` call `get_config()` and change a few fields. On the command line any field
is set by `--config.section.field=value`; a name that does not exist is an error that suggests the
nearest one.
"""

import math
import re
import runpy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dmfer_jax.errors import UserError
from dmfer_jax.loss_options import NAMES, has_centers

DATASETS: tuple[str, ...] = ("synthetic_faces", "ferplus", "rafdb", "affectnet", "folder")
"""Datasets there are builders for; "name/variant" is one of several builds of the same, such as
"affectnet/new", or "synthetic_faces/tiny", a few faces of each kind for tests."""

DATA_DIR = "~/.cache/dmfer_jax"
"""Where built records are kept unless a flag says otherwise."""


def get_config() -> ConfigDict:
    """Returns the base experiment: DMFER on ResNet-18 at 112 pixels, SGD, center cosine loss."""
    config = ConfigDict()
    config.seed = 0  # of the weights, the order of the examples, augmentation and dropout
    # Weights to begin with: a file of PyTorch or safetensors; face: those of face_resnet, which lie
    # in this package; ferplus-small, or another model of it; "": random
    config.init_from = ""
    # How images were normalised for weights with torchvision's names: imagenet (by its mean and
    # standard deviation) | symmetric (in -1 to 1, as here)
    config.init_normalization = "imagenet"

    config.data = data = ConfigDict()
    data.dataset = "synthetic_faces"  # one of DATASETS, or "name/variant"
    data.source = ""  # file or folder as downloaded; read only when records have to be built
    data.data_dir = DATA_DIR  # where built records are kept
    data.protocol = "majority"  # FERPlus: how votes become labels; see data/protocols.py
    data.train_protocol = ""  # FERPlus: for the training split; "" is the same, "votes" is soft
    data.vote_power = 1.0  # "votes" to this power; 2 brings the targets nearer to the winner
    data.image_size = 112  # pixels, height and width
    data.channels = 3  # 3 (RGB) or 1 (grey)
    data.train_splits = ("train",)  # trained on; with the validation split no epoch is chosen
    data.valid_split = "valid"  # the best epoch is chosen on this one
    data.test_splits = ("test",)  # scored once, after training; () is none
    # Names of classes to leave out, ("contempt",) makes AffectNet-7 of 8; a soft target's share in
    # one of them is left out, and the others make 1.
    data.drop_classes = ()
    data.sampling = "natural"  # natural | balanced (every class as often) | square_root
    data.limit = 0  # use only the first so many examples of each split; 0 is all
    data.memory_gib = 4.0  # a split whose decoded images fit in this is kept in memory
    data.device_gib = 2.0  # and one whose images fit in this, on every device, too; 0 is none
    data.workers = 4  # processes that decode images: once where they fit, else whenever asked for

    # Each is a strength; 0 is off. All are off outside training.
    config.augment = augment = ConfigDict()
    augment.flip = 0.5  # probability of a mirror image
    augment.rotation = 10.0  # up to so many degrees, either way
    augment.shift = 0.06  # up to this share of the image's side
    augment.scale = 0.1  # between 1 - scale and 1 + scale
    augment.erase = 0.5  # probability of erasing a rectangle
    augment.erase_area = (0.02, 0.25)  # the rectangle's share of the image
    augment.brightness = 0.2  # added, up to this share of the full range
    augment.contrast = 0.2  # contrast times 1 - contrast to 1 + contrast
    augment.mixup = 0.0  # alpha of mixup, such as 0.2: images are laid over each other

    config.model = model = ConfigDict()
    model.backbone = "resnet18"  # resnet10 | resnet18 | resnet34 | resnet50 | face_resnet
    # Of the resnets: imagenet (7x7/2 and pool) | small (3x3; for 48 and 64 pixels)
    model.stem = "imagenet"
    model.stem_stride = 1  # of the small stem: 1 | 2
    model.width = 1.0  # times the backbone's channels
    model.embedding = 512  # channels of each scale, and length of the embedding
    model.scales = "both"  # both | deep | shallow
    model.shallow_stage = 2  # 1 | 2 | 3
    model.attention = "channel"  # channel | squeeze_excite | none
    model.heads = 8  # of channel attention
    model.depthwise = False  # 3x3 depthwise convolutions behind q, k and v
    model.compress = "conv"  # conv | top
    model.dropout = 0.0
    # When not training: the mean of the embeddings of the image and of its mirror image
    model.flip_average = False
    model.frozen_stages = 0  # n: the stem and stages 1 to n stay as they are, BatchNorm too
    model.dtype = "float32"  # computed in float32 | bfloat16; parameters stay float32

    config.loss = loss = ConfigDict()
    # of loss_options.NAMES; cosface and arcface replace cross-entropy and linear head
    loss.name = "center_cosine"
    loss.weight = 0.1  # lambda: cross-entropy + weight * center loss
    loss.scale = 30.0  # s; cosface and arcface were published with 64
    loss.margin = 0.2  # m; cosface was published with 0.35, arcface with 0.5 (radians)
    loss.beta = 1.0  # weight of the repulsion in the island forms
    loss.centers = "state"  # state (moved by rule) | learned (moved by the optimizer)
    loss.center_rate = 0.5  # alpha of the rule
    loss.center_labels = "soft"  # for losses on centers: soft (shares) | hard (likeliest class)
    loss.label_smoothing = 0.0  # of the cross-entropy
    loss.class_weights = "none"  # none | balanced (each class counts the same; both losses)

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "sgd"  # sgd (Nesterov) | adamw
    optimizer.learning_rate = 0.1  # peak, for a batch of 256; scaled linearly with the batch
    optimizer.momentum = 0.9  # of sgd
    optimizer.weight_decay = 5e-4  # not on norms, biases, temperatures and centers
    optimizer.layer_decay = 1.0  # stage 4 learns at this times the rate, stage 3 at its square, ...
    optimizer.warmup_epochs = 2.0  # linear, from 0; then half a cosine down to 0
    optimizer.clip_norm = 5.0  # of the whole gradient; 0 is off
    optimizer.sam_rho = 0.0  # radius of SAM, such as 0.05; a step takes twice the time; 0 is off
    optimizer.ema_decay = 0.0  # moving average of the weights, used to evaluate; 0 is off

    config.train = train = ConfigDict()
    train.epochs = 40
    train.batch_size = 256  # global: over all devices and hosts together
    train.eval_batch_size = 512  # global; a power of two splits over the chips of any TPU slice
    train.log_every = 50  # steps
    train.checkpoint_every = 0  # steps between checkpoints within an epoch; 0 is epoch ends only
    train.nonfinite = "stop"  # stop | skip (and count) a step whose loss or gradient is not finite
    return config


_LABEL_RULES = ("majority", "majority_new", "plurality", "plurality_first")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "init_normalization": ("imagenet", "symmetric"),
    "data.protocol": _LABEL_RULES,
    "data.train_protocol": ("", *_LABEL_RULES, "votes"),
    "data.sampling": ("natural", "balanced", "square_root"),
    "data.channels": (1, 3),
    "model.backbone": ("resnet10", "resnet18", "resnet34", "resnet50", "face_resnet"),
    "model.stem": ("imagenet", "small"),
    "model.stem_stride": (1, 2),
    "model.scales": ("both", "deep", "shallow"),
    "model.shallow_stage": (1, 2, 3),
    "model.frozen_stages": (0, 1, 2, 3, 4),
    "model.attention": ("channel", "squeeze_excite", "none"),
    "model.compress": ("conv", "top"),
    "model.dtype": ("float32", "bfloat16"),
    "loss.name": NAMES,
    "loss.centers": ("state", "learned"),
    "loss.center_labels": ("soft", "hard"),
    "loss.class_weights": ("none", "balanced"),
    "optimizer.name": ("sgd", "adamw"),
    "train.nonfinite": ("stop", "skip"),
}

_AT_LEAST: dict[str, float] = {
    "data.image_size": 16,
    "data.limit": 0,
    "data.memory_gib": 0,
    "data.device_gib": 0,
    "data.workers": 1,
    "model.heads": 1,
    "model.embedding": 1,
    "loss.weight": 0,
    "loss.beta": 0,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay": 0,
    "optimizer.warmup_epochs": 0,
    "optimizer.clip_norm": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.eval_batch_size": 1,
    "train.log_every": 1,
    "train.checkpoint_every": 0,
}

_WITHIN: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),  # JAX takes others modulo 2**32, and Grain refuses negative ones
    "data.vote_power": (0.1, 100),
    "augment.flip": (0, 1),
    "augment.erase": (0, 1),
    "augment.rotation": (0, 180),
    "augment.shift": (0, 1),
    "augment.scale": (0, 0.9),
    "augment.brightness": (0, 1),
    "augment.contrast": (0, 1),
    "augment.mixup": (0, 100),
    "model.dropout": (0, 0.95),
    "loss.label_smoothing": (0, 0.9),
    "loss.margin": (-1, 1),  # a cosine; below 0 makes sense in the island form
    "loss.center_rate": (0, 1),
    "optimizer.momentum": (0, 0.9999),
    "optimizer.layer_decay": (0.01, 1),
    "optimizer.sam_rho": (0, 10),
    "optimizer.ema_decay": (0, 0.99999),
}


def validate(config: ConfigDict) -> None:
    """Checks every value, and the combinations that cannot work.

    Raises:
      UserError: naming the field, its value and what is allowed; also where a field is missing, or
        is none of `get_config()`, as mistyped ones are.
    """
    _validate_fields(config, get_config())

    def value(path: str) -> Any:
        found: Any = config
        for part in path.split("."):
            found = found[part]
        return found

    split_dataset(value("data.dataset"))
    for path, allowed in _CHOICES.items():
        if value(path) not in allowed:
            names = ", ".join(repr(a) for a in allowed)
            raise UserError(f"config.{path} is {value(path)!r}; it can be {names}")
    for path, low in _AT_LEAST.items():
        if not low <= value(path) < math.inf:
            raise UserError(f"config.{path} is {value(path)!r}; it must be a number from {low} on")
    for path, (low, high) in _WITHIN.items():
        if not low <= value(path) <= high:
            raise UserError(f"config.{path} is {value(path)!r}; it must be {low} to {high}")
    for path in ("model.width", "loss.scale"):
        if not 0 < value(path) < math.inf:
            raise UserError(f"config.{path} is {value(path)!r}; it must be a number above 0")
    area = value("augment.erase_area")
    numbers = all(isinstance(share, (int, float)) for share in area)
    if len(area) != 2 or not numbers or not 0 < area[0] <= area[1] < 1:
        raise UserError(
            f"config.augment.erase_area is {tuple(area)}; expected (low, high) shares in 0 to 1"
        )
    if config.data.vote_power != 1 and config.data.train_protocol != "votes":
        raise UserError("config.data.vote_power is for config.data.train_protocol=votes alone")
    _validate_splits(config.data)
    _validate_combinations(config.model, config.loss)
    if config.data.sampling != "natural" and config.loss.class_weights != "none":
        raise UserError(
            f"config.data.sampling is {config.data.sampling!r} and config.loss.class_weights is "
            f"{config.loss.class_weights!r}: together they favour rare classes twice; choose one"
        )


def _validate_fields(config: ConfigDict, known: ConfigDict, path: str = "config") -> None:
    if unknown := sorted(set(config) - set(known)):
        raise UserError(
            f"{path} has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}"
        )
    for name, default in known.items():
        if name not in config:
            raise UserError(f"{path}.{name} is missing; as it comes, it is {default!r}")
        if isinstance(default, ConfigDict):
            _validate_fields(config[name], default, f"{path}.{name}")


def split_dataset(dataset: str) -> tuple[str, str]:
    """Returns name and variant of a dataset; the variant of "ferplus" is "".

    Raises:
      UserError: there is no such dataset, or the variant has other characters than letters, digits,
        "_" and "-".
    """
    name, slash, variant = dataset.partition("/")
    if name not in DATASETS or not re.fullmatch(r"[A-Za-z0-9_-]+" if slash else "", variant):
        raise UserError(
            f"config.data.dataset is {dataset!r}; it can be {', '.join(map(repr, DATASETS))}, or "
            "'name/variant' of one, the variant of letters, digits, '_' and '-'"
        )
    return name, variant


def _validate_splits(data: ConfigDict) -> None:
    train_splits: Any = data.train_splits
    tests: Any = data.test_splits
    fields = {"train_splits": train_splits, "valid_split": data.valid_split, "test_splits": tests}
    for field, value in fields.items():
        names = [value] if field == "valid_split" else value
        # Joined by "+", as TFDS would take them, a split would escape the check below.
        named = all(isinstance(name, str) and re.fullmatch(r"\w+", name) for name in names)
        if not named or len(set(names)) < len(names) or (field == "train_splits" and not names):
            raise UserError(
                f"config.data.{field} is {value!r}; expected names of splits, such as 'valid' or "
                "('train', 'valid'), each once"
            )
    if both := sorted(set(train_splits) & set(tests)):
        raise UserError(
            f"config.data.train_splits and config.data.test_splits both have '{both[0]}'; a model "
            "must not be scored on what it was trained on"
        )


def _validate_combinations(model: ConfigDict, loss: ConfigDict) -> None:
    tokens = model.embedding * (2 if model.scales == "both" else 1)
    if model.attention == "channel" and tokens % model.heads:
        raise UserError(
            f"config.model.heads is {model.heads}, which does not divide the {tokens} "
            "channels that attention works on (embedding times scales)"
        )
    if loss.centers == "learned" and not has_centers(loss):
        raise UserError(
            f"config.loss.centers is 'learned', but config.loss.name is {loss.name!r}, which has "
            "no class centers; set config.loss.centers=state"
        )
    if loss.name == "arcface" and loss.margin < 0:
        raise UserError(
            f"config.loss.margin is {loss.margin!r}; for config.loss.name=arcface it is an angle "
            "in radians that is added, and must be 0 to 1"
        )
    if loss.name in ("center_cosine_island", "island") and loss.centers == "state" and loss.beta:
        raise UserError(
            f"config.loss.name is {loss.name!r}, whose repulsion of centers has no effect on "
            "centers that are moved by rule; set config.loss.centers=learned, or config.loss.beta=0"
        )


def find_config(path: str) -> str:
    """Returns the path of a config file; those that ship are found from any folder.

    Args:
      path: a file, or `configs/<name>.py` or `<name>.py` of the ones that ship.

    Raises:
      UserError: there is no such file; the message lists the configs that ship.
    """
    if Path(path).is_file():
        return path
    shipped = {shipped.name: str(shipped) for shipped in shipped_configs()}
    # Only by these two names: a mistyped path must not start another experiment.
    if Path(path).parent in (Path(), Path("configs")) and Path(path).name in shipped:
        return shipped[Path(path).name]
    names = ", ".join(f"configs/{name}" for name in shipped)
    raise UserError(f"there is no config file '{path}'; the ones that ship are {names}")


def shipped_configs() -> list[Path]:
    """Returns the config files that ship, sorted by name."""
    package = Path(__file__).parent
    # In an installed package the configs lie inside it, in a checkout beside it.
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return sorted(folder.glob("*.py"))


def load_config(path: str) -> ConfigDict:
    """Returns the config that the file's `get_config()` makes.

    Raises:
      UserError: there is no such file.
    """
    return runpy.run_path(find_config(path))["get_config"]()
