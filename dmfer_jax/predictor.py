"""Predicts the expressions of any number of images with a few compiled programs.

A compiled program takes one number of images. So a handful of numbers, the buckets, are compiled
once each, and any number of images is predicted by filling these: 75 images are 64, 8, 1, 1 and 1.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dmfer_jax.compiling import compiler_options
from dmfer_jax.data.augment import normalize
from dmfer_jax.errors import UserError
from dmfer_jax.folding import fold_batch_norm
from dmfer_jax.models.convolution import is_product
from dmfer_jax.models.dmfer import Dmfer

BUCKETS = (1, 8, 64)
"""Numbers of images that a program is compiled for.

1 is a face of a camera, which must not wait for others. At 64 both CPUs and accelerators are close
to their best rate, and activations still fit into any memory. 8, between them, keeps the faces of
a group photo from costing one call each or the work of 64. A factor of 8 from one to the next
keeps the compiling, seconds for each bucket, at three programs.
"""

_LARGE_KERNEL = 2**16
"""Channels in, times channels out, from which the way that a kernel lies matters."""


class Predictions(NamedTuple):
    """Of n images, in their order.

    Attributes:
      probabilities: float32 `[n, K]`; rows sum to 1.
      embedding: float32 `[n, C]`, before the linear layer.
    """

    probabilities: np.ndarray
    embedding: np.ndarray


class Predictor:
    """A trained network, ready to be called with uint8 images from any number of threads.

    Its weights lie on the default device once, whatever the number of buckets. An image's
    predictions do not depend on the other images of the call, to float32's rounding.

    Args:
      model: the network, folded or not.
      variables: of the network, as `TrainState.eval_variables` gives them.
      image_size: height and width in pixels.
      channels: 1 or 3.
      class_names: of the K classes, in the order of the logits.
      buckets: numbers of images to compile a program for.
      dtype: to compute in; bfloat16 is faster on accelerators only.
      fold: whether BatchNorm is folded into the convolutions, which changes rounding only.

    Attributes:
      class_names: see above.
      image_shape: height, width and channels of an image.

    Raises:
      UserError: the class names or the buckets do not fit.
    """

    def __init__(
        self,
        model: Dmfer,
        variables: Mapping[str, Any],
        image_size: int,
        channels: int,
        class_names: Sequence[str],
        *,
        buckets: Sequence[int] = BUCKETS,
        dtype: Any = jnp.float32,
        fold: bool = True,
    ) -> None:
        if len(class_names) != model.num_classes:
            raise UserError(
                f"there are {len(class_names)} class names, {', '.join(class_names)}; the network "
                f"tells {model.num_classes} classes apart: give a name for each"
            )
        if not buckets or min(buckets) < 1:
            raise UserError(
                f"buckets are {tuple(buckets)}; expected one or more numbers of images, each at "
                f"least 1, such as {BUCKETS}"
            )
        self.class_names = tuple(class_names)
        self.buckets = tuple(sorted(set(buckets)))
        self.image_shape = (image_size, image_size, channels)
        if fold and not model.folded:
            model, variables = fold_batch_norm(model, variables)
        self._model = model.clone(dtype=dtype)
        self._device = jax.local_devices()[0]
        # Kernels are used in this type; kept in it, they need no conversion in every call.
        kept = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if leaf.ndim == 4 else leaf,
            jax.device_get(dict(variables)),
        )
        self._originals = jax.eval_shape(lambda: kept)
        if self._device.platform == "cpu":
            kept = _transpose_multiplied(self._model, kept, self.image_shape)
        self._variables = jax.device_put(kept, self._device)
        options = compiler_options(self._device.platform)
        self._jitted = jax.jit(self._predict, compiler_options=options)
        self._programs: dict[int, Any] = {}
        self._compiling = threading.Lock()

    def __call__(self, images: np.ndarray) -> Predictions:
        """Predicts images; each bucket that it needs is compiled when it is first needed.

        Args:
          images: uint8 `[n, h, w, c]`, n from 0 on.

        Raises:
          UserError: the images have another type or shape.
        """
        check_images(images, self.image_shape)
        n, done = len(images), 0
        outputs: list[Any] = []
        for bucket in fill_buckets(n, self.buckets):
            batch = _pad(images[done : done + bucket], bucket)
            done += bucket
            program = self._program(bucket)
            outputs.append(program(self._variables, jax.device_put(batch, self._device)))
            if len(outputs) > 1:  # fetched while the device works on the next ones
                outputs[-2] = jax.device_get(outputs[-2])
        nothing = Predictions(
            np.zeros((0, self._model.num_classes), np.float32),
            np.zeros((0, self._model.embedding), np.float32),
        )
        parts = zip(nothing, *jax.device_get(outputs), strict=True)
        return Predictions(*(np.concatenate(part)[:n] for part in parts))

    def warm_up(self) -> None:
        """Compiles the program of every bucket now, rather than when it is first needed."""
        for bucket in self.buckets:
            self._program(bucket)

    def _program(self, bucket: int) -> Any:
        """The compiled program of a bucket."""
        if bucket not in self._programs:  # whoever has a program need not wait for the lock
            with self._compiling:
                if bucket not in self._programs:
                    images = jax.ShapeDtypeStruct((bucket, *self.image_shape), jnp.uint8)
                    # Nothing is donated: no output could take the place of the images.
                    lowered = self._jitted.lower(self._variables, images)
                    self._programs[bucket] = lowered.compile()
        return self._programs[bucket]

    def _predict(self, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        variables = jax.tree.map(
            lambda leaf, like: leaf if leaf.shape == like.shape else leaf.T.reshape(like.shape),
            variables,
            self._originals,
        )
        outputs: Any = self._model.apply(variables, normalize(images))
        return jax.nn.softmax(outputs.logits), outputs.embedding


def check_images(images: Any, image_shape: tuple[int, ...]) -> None:
    """Checks that something is an array of images.

    Args:
      images: to be uint8 `[n, h, w, c]`.
      image_shape: (h, w, c).

    Raises:
      UserError: it is not.
    """
    expected = f"uint8 [n, {', '.join(map(str, image_shape))}]"
    if not hasattr(images, "dtype") or not hasattr(images, "shape"):
        raise UserError(f"images are a {type(images).__name__}; expected an array {expected}")
    found = f"images are {images.dtype} {list(images.shape)}"
    if images.dtype != np.uint8:
        raise UserError(f"{found}; expected {expected}, pixels as in a file, from 0 to 255")
    if images.ndim == 3:
        raise UserError(f"{found}; expected {expected}: give one image as images[None]")
    if images.shape[1:] != image_shape:
        raise UserError(f"{found}; expected {expected}, as the network was trained on")


def fill_buckets(n: int, buckets: Sequence[int]) -> list[int]:
    """Returns the sizes of the calls that take n images; the last one may be padded.

    From the largest bucket down, each is filled as often as it can be. A rest that fills more than
    half of a bucket takes it: one call that is padded costs less than many small ones. So,
    where there is a bucket of 1, less than half of what is computed is padding.

    >>> fill_buckets(75, (1, 8, 64))
    [64, 8, 1, 1, 1]
    >>> fill_buckets(40, (1, 8, 64))
    [64]

    Args:
      n: from 0 on.
      buckets: sizes to choose from.
    """
    calls: list[int] = []
    for bucket in sorted(buckets, reverse=True):
        times, n = divmod(n, bucket)
        if 2 * n > bucket or (n and bucket == min(buckets)):
            times, n = times + 1, 0
        calls += [bucket] * times
    return calls


def _transpose_multiplied(model: Dmfer, variables: Any, image_shape: tuple[int, ...]) -> Any:
    """Lays kernels that CPUs use in one matrix product out as `[o, k * k * c]`.

    With few images a product takes little longer than reading its matrix, and XLA is faster at it
    transposed: one image of 112 pixels took about a fifth less of one core's time.
    """

    def run(variables: Any, images: jax.Array) -> Any:
        return model.apply(
            variables, images, capture_intermediates=lambda module, _: isinstance(module, nn.Conv)
        )

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    outputs = jax.eval_shape(run, variables, images)[1]["intermediates"]

    def transpose(path: Any, leaf: np.ndarray) -> np.ndarray:
        if leaf.ndim != 4:
            return leaf
        output = outputs
        for part in path[1:-1]:  # all but the collection and the kernel's own name
            output = output[part.key]
        size, _, c, o = leaf.shape
        _, height, width, _ = output["__call__"][0].shape
        # Small kernels gain nothing; those of one channel may be depthwise, which are not products.
        if c == 1 or c * o < _LARGE_KERNEL or not is_product(size, height, width):
            return leaf
        return np.ascontiguousarray(leaf.reshape(-1, o).T)

    return jax.tree_util.tree_map_with_path(transpose, variables)


def _pad(images: np.ndarray, count: int) -> np.ndarray:
    """Adds black images up to a count."""
    if len(images) == count:
        return images
    missing = np.zeros((count - len(images), *images.shape[1:]), np.uint8)
    return np.concatenate([images, missing])
