"""Grad-CAM: which places of a face speak for a class, at either scale and after compression.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
localization", ICCV 2017. The network is used as it is: Flax lets a call be looked at, and its
inputs be changed, from outside.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dmfer_jax.data.augment import normalize
from dmfer_jax.models.dmfer import Dmfer, keep_top_channels


class Explained(NamedTuple):
    """Of n faces, in their order.

    Attributes:
      maps: {"shallow", "deep", "compressed": float32 `[n, t, t]`}, none below 0, each on its own
        grid; a scale that the network does not have is absent. Of the class asked for.
      probabilities: float32 `[n, K]`.
    """

    maps: dict[str, np.ndarray]
    probabilities: np.ndarray


def grad_cam(features: Array, gradients: Array) -> Array:
    """Returns relu(sum_k a_k A^k) `[n, h, w]`, where a_k is the mean of dy/dA^k over places.

    Args:
      features: A, `[n, h, w, k]`.
      gradients: dy/dA, of the same shape; y is a class's logit.
    """
    weights = jnp.mean(gradients, axis=(1, 2), keepdims=True)
    return nn.relu(jnp.sum(weights * features, axis=-1))


def explain_faces(
    model: Dmfer, variables: Any, images: np.ndarray, classes: np.ndarray | None = None
) -> Explained:
    """Computes the maps of faces at each scale.

    The map of a scale is that of what the two-scale part reads: the stage's features on their own
    grid, and of the gradient what reaches the logit through this scale alone. The shallow stage's
    part in the deep features belongs to the deep scale. A face's maps do not depend on the others.
    Of a network that averages over the mirror image, they are of the image as it is.

    Args:
      model: not folded.
      variables: of the network, as `TrainState.eval_variables` gives them.
      images: uint8 `[n, h, w, c]`.
      classes: int `[n]`, whose logits to explain; of each face the predicted one if None.
    """
    seen = normalize(jnp.asarray(images))
    plain = model.clone(dtype=jnp.float32, flip_average=False)
    found = _explain(plain, variables, seen, classes)
    maps, probabilities = jax.device_get(found)
    in_order = {scale: maps[scale] for scale in (*_places(model), "compressed")}
    return Explained(in_order, probabilities)


def stages_of_maps(model: Dmfer) -> dict[str, int]:
    """Returns the stage of the backbone on whose grid each map is: {"shallow": ..., ...}."""
    return {"shallow": model.shallow_stage, "deep": 4, "compressed": 4}


def lay_over_image(heat: np.ndarray, model: Dmfer, stage: int, size: int) -> np.ndarray:
    """Returns a map `[t, t]` at the image's size, each cell at the place of the pixels it is of.

    Every strided layer of the ResNets is padded on all sides by half its kernel, so cell i of a
    stage is centered on pixel i times the stage's stride, and the first cell on the first pixel.
    Stretching the map over the image would shift what it shows by half a cell, 8 pixels of 48. The
    face network's have no padding, so that its first cell is one stride and a pixel further.

    Args:
      heat: float `[t, t]`.
      model: that it is of.
      stage: of the backbone, on whose grid the map is: 1 to 4.
      size: height and width of the image, in pixels.

    Returns:
      float `[size, size]`, linear between the cells and constant beyond the last ones.
    """
    of_face = model.backbone == "face_resnet"
    first = 4 if of_face or model.stem == "imagenet" else model.stem_stride
    stride = first * 2 ** (stage - 1)
    centers = stride * np.arange(len(heat)) + (stride + 1 if of_face else 0)
    pixels = np.arange(size)
    rows = np.array([np.interp(pixels, centers, column) for column in heat.T]).T  # [size, t]
    return np.array([np.interp(pixels, centers, row) for row in rows])


@partial(jax.jit, static_argnums=0)
def _explain(model: Dmfer, variables: Any, images: Array, classes: Array | None) -> Any:
    """The maps and the probabilities of normalised images."""
    outputs, features = _apply(model, variables, images, {})
    chosen = outputs.logits.argmax(-1) if classes is None else classes
    compressed = features.pop("compressed")

    def logit(added: dict[str, Array]) -> Array:
        logits = _apply(model, variables, images, added)[0].logits
        return jnp.sum(jnp.take_along_axis(logits, chosen[:, None], axis=-1))

    gradients = jax.grad(logit)(jax.tree.map(jnp.zeros_like, features))
    # The embedding is the mean of the compressed map over its places.
    places = compressed.shape[1] * compressed.shape[2]
    per_place = gradients.pop("embedding")[:, None, None] / places
    maps = {scale: grad_cam(features[scale], gradient) for scale, gradient in gradients.items()}
    maps["compressed"] = grad_cam(compressed, jnp.broadcast_to(per_place, compressed.shape))
    return maps, jax.nn.softmax(outputs.logits)


def _apply(
    model: Dmfer, variables: Any, images: Array, added: dict[str, Array]
) -> tuple[Any, dict[str, Array]]:
    """Runs the network, with something added to some of its features.

    Returns:
      Its outputs, and its features: "shallow" and "deep" as they enter the two-scale part,
      "embedding" `[n, C]` as it enters the head, and "compressed" `[n, t, t, C]`, to which nothing
      can be added.
    """
    found: dict[str, Array] = {}

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = context.module.path
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if path == ("two_scale",):
            stages, train = list(args[0]), *args[1:]
            for scale, index in _places(model).items():
                found[scale] = stages[index] = stages[index] + added.get(scale, 0)
            args = (tuple(stages), train)
        if path == ("head",):
            found["embedding"] = args[0] + added.get("embedding", 0)
            args = (found["embedding"],)
        output = call(*args, **kwargs)
        # The last of these; "top" compresses without a module of its own.
        if path in (("two_scale",), ("attention",), ("compress",)):
            found["compressed"] = output
        return output

    with nn.intercept_methods(intercept):
        outputs = model.apply(variables, images)
    if model.compress == "top":
        found["compressed"] = keep_top_channels(found["compressed"], model.embedding)
    return outputs, found


def _places(model: Dmfer) -> dict[str, int]:
    """Where the scales that are used stand among the stages."""
    places = {"shallow": model.shallow_stage - 1, "deep": -1}
    return {scale: at for scale, at in places.items() if model.scales in ("both", scale)}
