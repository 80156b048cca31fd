"""Finds the network's tensors among those of a weights file.

Three layouts are known: torchvision's ResNets ("layer1.0.conv1.weight") and the face recognition
network of `weights.face`, of which the backbone is taken, and that of `pytorch.to_state_dict`, of
which every part is taken whose shapes agree; what has a row for each class, where the classes do,
too. A backbone that is not complete is refused: half a network trains, and nobody sees why it is
bad.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.models import face_resnet
from dmfer_jax.models.resnet import BACKBONES
from dmfer_jax.weights import face
from dmfer_jax.weights.pickle_machine import shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue in 0 to 1: what networks with torchvision's names are trained on."""

_BY_CLASS = ("head", "centers")  # parts with a row for each class
_PREFIXES = ("module.", "backbone.")
_STEM = "backbone.stem.conv.weight"
_NORM = r"(weight|bias|running_mean|running_var)"
_TRANSLATIONS: tuple[tuple[str, str], ...] = (
    (r"conv1\.weight", "stem.conv.weight"),
    (rf"bn1\.{_NORM}", r"stem.norm.\1"),
    (r"layer(\d)\.(\d+)\.conv([123])\.weight", r"stage\1_block<\2>.conv\3.conv.weight"),
    (rf"layer(\d)\.(\d+)\.bn([123])\.{_NORM}", r"stage\1_block<\2>.conv\3.norm.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.weight", r"stage\1_block<\2>.downsample.conv.weight"),
    (rf"layer(\d)\.(\d+)\.downsample\.1\.{_NORM}", r"stage\1_block<\2>.downsample.norm.\3"),
)
"""Torchvision's names -> ours; blocks are counted from 0 there and from 1 here."""

_ADAPTED = (
    "the first convolution was adapted from images normalised by ImageNet's mean and standard "
    "deviation to images in -1 to 1; exact but for the zeros padded at the border"
)
_TRANSLATED = (
    "scales and biases became BatchNorms, and the first convolution was adapted to images in -1 to "
    "1, both exactly; the last stage is left out"
)
_SUMMED = "the first convolution's RGB kernels were summed for grey images"


class Match(NamedTuple):
    """What a network takes from a file.

    Attributes:
      taken: name of `pytorch.to_state_dict` -> float32 array of the network's shape.
      tensors: how many the network has.
      unused: names in the file that it does not take; `num_batches_tracked` is not counted.
      random: parts of the network that stay as they are drawn, such as "head".
      notes: what was changed on the way, each a sentence.
      fitted: whether the backbone's BatchNorms have the statistics of data.
    """

    taken: dict[str, np.ndarray]
    tensors: int
    unused: tuple[str, ...]
    random: tuple[str, ...]
    notes: tuple[str, ...]
    fitted: bool

    def lines(self) -> list[str]:
        """The report, to print."""
        return [
            f"matched {len(self.taken)} of the network's {self.tensors} tensors",
            f"not used of the file: {_listed(self.unused)}",
            f"drawn at random: {', '.join(self.random) or 'nothing'}",
            *self.notes,
        ]


def match(
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    backbone: str,
    normalization: str,
    *,
    same_classes: bool = True,
) -> Match:
    """Finds a network's tensors in a file.

    Names are looked for behind any "module." and "backbone.". Where the file is of RGB and the
    network of grey images, the kernels of the first convolution are summed over the channels:
    the same function of an image whose channels are equal.

    Args:
      tensors: of `reading.read_weights`.
      shapes: name of `pytorch.to_state_dict` -> shape, of the whole network.
      backbone: name of the network's.
      normalization: of the images that weights with torchvision's names are for: "symmetric" is
        ours, and for "imagenet" the first convolution is adapted, see `adapt_to_symmetric`.
      same_classes: whether the file tells apart the network's classes, as far as is known.

    Returns:
      What is taken; of the backbone it is everything.

    Raises:
      UserError: the backbone is not complete, or is another one; the message does not name the
        file.
    """
    of_face = face.holds_face_network(tensors)
    found, unused, foreign = (
        (*face.translate(tensors), False) if of_face else _name_as_ours(tensors)
    )
    _check_backbone(found, unused if foreign else [], shapes, backbone)
    to_grey = shapes[_STEM][1] == 1 and found[_STEM].shape[1:2] == (3,)
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    if to_grey:
        wanted[_STEM] = (wanted[_STEM][0], 3, *wanted[_STEM][2:])
    _check_shapes(found, wanted)
    found |= {name: _as_float32(name, found[name]) for name in found if name in shapes}
    notes = [_TRANSLATED] if of_face else []
    if foreign and found[_STEM].shape[1] == 3 and normalization == "imagenet":
        found |= adapt_to_symmetric(found)
        notes.append(_ADAPTED)
    if to_grey:
        found[_STEM] = found[_STEM].sum(axis=1, keepdims=True)
        notes.append(_SUMMED)
    random = []
    taken: dict[str, np.ndarray] = {}
    for part in sorted({name.split(".")[0] for name in shapes}):
        names = [name for name in shapes if name.split(".")[0] == part]
        fits = same_classes or part not in _BY_CLASS
        if fits and all(
            name in found and found[name].shape == tuple(shapes[name]) for name in names
        ):
            taken |= {name: found[name].astype(np.float32) for name in names}
        else:
            random.append(part)
    unused += [name for name in found if name not in taken]
    return Match(taken, len(shapes), tuple(unused), tuple(random), tuple(notes), not of_face)


def adapt_to_symmetric(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adapts a stem from images normalised as ImageNet's are to ours, which are in -1 to 1.

    With y = 2 x - 1, (x - mean) / std is y / (2 std) + (1 - 2 mean) / (2 std). The factor goes into
    the kernel, exactly. What the summand adds to each output channel is taken from BatchNorm's
    running mean, exactly where the kernel lies inside the image. At the border both networks pad
    with zeros, which is the mean colour there and mid-grey here: outputs whose kernel reaches over
    the border (of a 7x7/2 stem the first two rows and columns, and the last one or two) differ. The
    features of a random ResNet-18 at 112 pixels differ by 0.4 % in length; unadapted by 7.6 %.

    Args:
      found: has `backbone.stem.conv.weight` `[o, 3, k, k]` and `backbone.stem.norm.running_mean`.

    Returns:
      These two, in float64.
    """
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    kernel = found[_STEM].astype(np.float64)
    name = "backbone.stem.norm.running_mean"
    added = np.einsum("oihw,i->o", kernel, (1 - 2 * mean) / (2 * std))
    return {
        _STEM: kernel / (2 * std)[:, None, None],
        name: found[name].astype(np.float64) - added,
    }


def _name_as_ours(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str], bool]:
    """Returns tensors by our names, names that have none, and whether they were torchvision's."""
    counted = [name for name in tensors if name.split(".")[-1] != "num_batches_tracked"]
    ours = {name: _without(name, ("module.",)) for name in counted}
    if _STEM in ours.values():
        return _renamed(tensors, ours), [], False
    translated = {name: _translate(_without(name, _PREFIXES)) for name in counted}
    known = {name: f"backbone.{new}" for name, new in translated.items() if new}
    if _STEM not in known.values():
        raise UserError(_describe_other(counted))
    unused = [name for name, new in translated.items() if not new]
    return _renamed(tensors, known), unused, True


def _renamed(tensors: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    renamed: dict[str, np.ndarray] = {}
    for old, new in names.items():
        if new in renamed:
            raise UserError(f"it has {shown(old)} and another tensor of the same meaning")
        renamed[new] = tensors[old]
    return renamed


def _without(name: str, prefixes: tuple[str, ...]) -> str:
    while name.startswith(prefixes):
        name = name.split(".", 1)[1]
    return name


def _translate(name: str) -> str | None:
    for pattern, ours in _TRANSLATIONS:
        if found := re.fullmatch(pattern, name):
            translated = found.expand(ours)
            return re.sub(r"<(\d{1,4})>", lambda index: str(int(index[1]) + 1), translated)
    return None


def _check_backbone(
    found: Mapping[str, np.ndarray],
    unused: Iterable[str],
    shapes: Mapping[str, tuple[int, ...]],
    backbone: str,
) -> None:
    """Refuses another backbone than the network's, and one of which tensors are missing."""
    here = {name for name in shapes if name.startswith("backbone.")}
    there = {name for name in found if name.startswith("backbone.")}
    missing, extra = [name for name in shapes if name in here - there], sorted(there - here)
    if missing or extra:
        held = _find_depth(there)
        if held and held != backbone:
            raise UserError(
                f"it holds a backbone {held}, and config.model.backbone is {backbone!r}; set "
                f"config.model.backbone={held}"
            )
        raise UserError(
            f"its backbone is not the network's {backbone}: missing are {_listed(missing)}, and "
            f"the network has no {_listed(extra)}"
        )
    parts = r"(conv1|bn1|layer\d)\."
    if strange := [name for name in unused if re.match(parts, _without(name, _PREFIXES))]:
        raise UserError(
            f"its backbone has parts that {backbone} does not have: {_listed(strange)}. It "
            "computes something else (squeeze-and-excitation, PReLU, a bias?), and cannot be taken"
        )


def _find_depth(names: Iterable[str]) -> str | None:
    """Which backbone has these blocks."""
    blocks = {name.split(".")[1] for name in names if name.startswith("backbone.stage")}
    counts = tuple(
        sum(block.startswith(f"stage{stage}_") for block in blocks) for stage in range(1, 5)
    )
    if counts == face_resnet.BLOCKS:
        return "face_resnet"
    bottleneck = any(".conv3." in name for name in names)
    for name, options in BACKBONES.items():
        if (options["blocks"], options.get("bottleneck", False)) == (counts, bottleneck):
            return name
    return None


def _check_shapes(found: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a backbone of other shapes than the network's."""
    names = [name for name in shapes if name.startswith("backbone.")]
    wrong = [name for name in names if found[name].shape != shapes[name]]
    if not wrong:
        return
    first = [
        f"{name} is {found[name].shape} in the file and {shapes[name]} in the network"
        for name in wrong[:3]
    ]
    there, here = found[_STEM].shape, shapes[_STEM]
    advice = ""
    if len(there) == 4 and there[2:] != here[2:] and there[2] in (3, 7):
        stem = "imagenet" if there[2] == 7 else "small"
        advice = f". Its first convolution is {there[2]}x{there[2]}: set config.model.stem={stem}"
    elif len(there) == 4 and there[0] != here[0]:
        base = 32 if _find_depth(found) == "face_resnet" else 64
        advice = f". Set config.model.width={there[0] / base:g}"
    elif len(there) == 4 and there[1] != here[1]:
        advice = f". It is of images of {there[1]} channel(s): set config.data.channels={there[1]}"
    raise UserError(f"{len(wrong)} of its tensors have another shape: {'; '.join(first)}{advice}")


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
    """Returns a writable copy of numbers that a network can have."""
    # Not np.floating: bfloat16 is none of NumPy's own types.
    if array.dtype.kind in "iub" or array.dtype.itemsize not in (2, 4, 8):
        raise UserError(f"its tensor for {name} is of {array.dtype}; expected fractions")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UserError(f"its tensor for {name} has numbers that are not finite; get it again")
    if name.endswith("running_var") and (numbers < 0).any():
        raise UserError(f"its tensor for {name} has variances below 0; get it again")
    return numbers


def _describe_other(names: list[str]) -> str:
    """Says what seems to be in a file without a ResNet of ours."""
    begins = {_without(name, _PREFIXES).split(".")[0] for name in names}
    seems = "it holds no ResNet under names known here"
    if {"input_layer", "body"} <= begins:
        seems = "it seems to hold an IR-50 (the ResNet of ArcFace), another architecture"
    elif "features" in begins:
        seems = "it seems to hold a network whose layers have numbers for names"
    elif {"patch_embed", "blocks"} & begins:
        seems = "it seems to hold a vision transformer"
    return (
        f"{seems}: its tensors are {_listed(names)}. Taken are ResNet-18, 34 and 50 with "
        "torchvision's names (conv1.weight, layer1.0.conv1.weight, ...), with or without 'module.' "
        "and 'backbone.' before them, the face recognition network of face-api, and this project's "
        "own files (backbone.stem.conv.weight, ...)"
    )


def _listed(names: Iterable[str]) -> str:
    """How many, and the first few, as they may be printed whatever is in them."""
    names = [shown(name)[1:-1] for name in names]
    if not names:
        return "nothing"
    return f"{len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
