"""The face recognition network's weights as those of `models.face_resnet.FaceResNet`.

They lie in this package (`dlib_face/`, see its README). A layer there is a convolution with a bias,
then a scale and a bias for each channel, which are a BatchNorm whose statistics were folded away.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dmfer_jax.errors import UserError
from dmfer_jax.models.face_resnet import BLOCKS
from dmfer_jax.models.resnet import BatchNorm

FACE_WEIGHTS = Path(__file__).parent / "dlib_face" / "face_recognition_model-weights_manifest.json"
"""The manifest of the weights in this package."""

MEAN = (122.782, 117.001, 104.298)
"""What the network takes from red, green and blue in 0 to 255."""

DIVISOR = 256.0
"""And what it divides the rest by."""

_STEM = "conv32_down"
_EPSILON: float = BatchNorm.keywords["epsilon"]


def holds_face_network(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a file's tensors are those of the face recognition network."""
    return f"{_STEM}/conv/filters" in tensors


def translate(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the network's backbone by our names, and the names of what it does not take.

    BatchNorm gets a mean and a variance that make it the file's scale and bias. They are those of
    no data: `norm_statistics` sets them before training. The stem takes images in -1 to 1, exactly:
    it has no padding, so what the file subtracts from each colour is a constant of each channel.

    Args:
      tensors: name in the file -> array; kernels are `[h, w, in, out]`.

    Returns:
      Name of `pytorch.to_state_dict` -> array, of as many layers as the file has, and the names of
      its other tensors.

    Raises:
      UserError: the shapes of a layer do not fit each other.
    """
    found: dict[str, np.ndarray] = {}
    used = set()
    for theirs, ours in _layers().items():
        names = [f"{theirs}/{part}" for part in _PARTS]
        if all(name in tensors for name in names):
            used.update(names)
            kernel, bias, scale, shift = (tensors[name].astype(np.float64) for name in names)
            each = {bias.shape, scale.shape, shift.shape}
            if kernel.ndim != 4 or each != {kernel.shape[3:]}:
                shapes = ", ".join(f"{name} {tensors[name].shape}" for name in names)
                raise UserError(f"the layer {theirs} is no convolution with a scale: {shapes}")
            if theirs == _STEM and kernel.shape[2] == 3:
                bias = bias + np.einsum("hwio,i->o", kernel, (127.5 - np.array(MEAN)) / DIVISOR)
                kernel = kernel * (127.5 / DIVISOR)
            found |= {
                f"{ours}.conv.weight": np.moveaxis(kernel, (3, 2), (0, 1)),
                f"{ours}.norm.weight": scale,
                f"{ours}.norm.bias": shift,
                f"{ours}.norm.running_mean": -bias,
                f"{ours}.norm.running_var": np.full_like(bias, 1 - _EPSILON),
            }
    return found, [name for name in tensors if name not in used]


_PARTS = ("conv/filters", "conv/bias", "scale/weights", "scale/biases")


def _layers() -> dict[str, str]:
    """Name in the file -> our name of every layer of the backbone."""
    layers = {_STEM: "backbone.stem"}
    for stage, blocks in enumerate(BLOCKS):
        channels = 32 * 2**stage
        theirs = [f"conv{channels}_{index}" for index in range(1, blocks + 1)]
        if stage:
            theirs = [f"conv{channels}_down", *theirs[:-1]]
        for index, name in enumerate(theirs):
            ours = f"backbone.stage{stage + 1}_block{index + 1}"
            layers |= {f"{name}/conv{half}": f"{ours}.conv{half}" for half in (1, 2)}
    return layers
