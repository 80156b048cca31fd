"""A trained network together with what finds faces: photos in, expressions out."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from dmfer_jax import exported, loading
from dmfer_jax.data.images import resized
from dmfer_jax.errors import UserError
from dmfer_jax.faces import FaceFinder, FoundFace, cut_out, scale_face
from dmfer_jax.formats.program import Loaded
from dmfer_jax.photos import PhotoLike, read_photo
from dmfer_jax.predictor import BUCKETS, Predictor


@dataclass(frozen=True, eq=False)  # arrays are not equal or unequal as a whole
class Face:
    """What is said of one face. Pixels are those of the upright photo.

    Attributes:
      expression: the name of the likeliest class.
      probabilities: {name of each class: 0 to 1}, which sum to 1.
      box: left, top, right and bottom in pixels; of a crop the whole of it.
      landmarks: float32 `[5, 2]`, x and y in pixels of `faces.LANDMARKS`; None of a crop.
      score: how sure the finder is that this is a face, 0 to 1; None of a crop.
      embedding: float32 `[C]`, what the network's last layer is given.
    """

    expression: str
    probabilities: dict[str, float]
    box: tuple[float, float, float, float]
    landmarks: np.ndarray | None
    score: float | None
    embedding: np.ndarray = field(repr=False)


class Photo(NamedTuple):
    """What is said of one photo.

    Attributes:
      faces: the largest first; none where it shows none or could not be read.
      width: of the upright photo, in pixels; 0 if it could not be read.
      height: likewise.
      error: why it could not be read, or nothing.
      note: what else a reader should know, such as that it is an animation; or nothing.
    """

    faces: list[Face]
    width: int
    height: int
    error: str
    note: str


class ExpressionModel:
    """Tells the expression of every face of a photo; may be called from any number of threads.

    Args:
      predictor: of the network, or a program that was exported.
      finder: of faces.

    Attributes:
      predictor: for whoever has crops as an array already.
      class_names: of the K classes.
    """

    def __init__(self, predictor: Predictor | Loaded, finder: FaceFinder | None = None) -> None:
        self.predictor = predictor
        self.class_names = predictor.class_names
        self._finder = finder or FaceFinder()

    def __call__(self, photo: PhotoLike, *, aligned: bool = False) -> list[Face]:
        """Returns the faces of a photo, the largest first.

        Args:
          photo: a path, the bytes of an image file, a PIL image, or an array uint8 `[h, w, 3]` of
            red, green and blue, or `[h, w]`.
          aligned: whether it is a crop of one face already, as those of FER2013 or RAF-DB are; no
            face is looked for then.

        Raises:
          UserError: the photo cannot be read.
        """
        (found,) = self._describe([self.look(photo, aligned)])
        return found.faces

    def stream(
        self, photos: Iterable[PhotoLike], *, aligned: bool = False, batch: int = 64
    ) -> Iterator[Photo]:
        """Yields what is said of each of many photos, in their order.

        Photos are read, and their faces found, in threads while others are predicted, and faces of
        several photos are predicted together. However many there are, only a few are in memory.
        One that cannot be read has an `error` and stops nothing.

        Args:
          photos: as `__call__` takes them; taken a few dozen ahead of what is yielded.
          aligned: as of `__call__`.
          batch: faces, and photos, to predict together at the most.

        Raises:
          UserError: it is one photo in place of several.
        """
        a_photo = isinstance(photos, (str, bytes, os.PathLike, Image.Image))
        if a_photo or (isinstance(photos, np.ndarray) and _is_photo(photos.shape)):
            raise UserError(
                "stream takes a list of photos; call the model itself with a single one"
            )
        waiting: list[Looked] = []
        for looked in self._look_ahead(photos, aligned):
            waiting.append(looked)
            if max(len(waiting), sum(len(one.crops) for one in waiting)) >= batch:
                yield from self._describe(waiting)
                waiting = []
        yield from self._describe(waiting)

    def look(self, photo: PhotoLike, aligned: bool = False) -> "Looked":
        """Returns the faces of a photo cut out, and predicts nothing.

        Args:
          photo: as `__call__` takes it.
          aligned: as of `__call__`.

        Raises:
          UserError: the photo cannot be read.
        """
        rgb, scale, note = read_photo(photo)
        size, _, channels = self.predictor.image_shape
        pixels = rgb if channels == 3 else np.asarray(Image.fromarray(rgb).convert("L"))
        found = [] if aligned else self._finder(rgb)
        if aligned:
            crops = [resized(Image.fromarray(pixels), size)]
        else:
            crops = [cut_out(pixels, face.frame, size) for face in found]
        height, width = (round(length * scale) for length in rgb.shape[:2])
        stacked = np.stack(crops) if crops else self._no_crops()
        stacked = stacked.reshape(-1, *self.predictor.image_shape)
        found = [scale_face(face, scale) for face in found]
        return Looked(stacked, found, width, height, "", note)

    def _look_ahead(self, photos: Iterable[PhotoLike], aligned: bool) -> Iterator["Looked"]:
        workers = count_workers()
        threads = ThreadPoolExecutor(workers, "photos")
        begun: deque[Future[Looked]] = deque()
        try:
            for photo in photos:
                begun.append(threads.submit(self._try_to_look, photo, aligned))
                if len(begun) > 2 * workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _try_to_look(self, photo: PhotoLike, aligned: bool) -> "Looked":
        try:
            return self.look(photo, aligned)
        except UserError as error:
            return Looked(self._no_crops(), [], 0, 0, str(error), "")
        except MemoryError:
            reason = f"{_name(photo)} needs more memory than there is"
            return Looked(self._no_crops(), [], 0, 0, reason, "")

    def _no_crops(self) -> np.ndarray:
        return np.zeros((0, *self.predictor.image_shape), np.uint8)

    def _describe(self, looked: Sequence["Looked"]) -> Iterator[Photo]:
        """Predicts what was cut out of photos, all of it together."""
        if not looked:
            return
        predicted = self.predictor(np.concatenate([one.crops for one in looked]))
        rows = zip(*predicted, strict=True)
        for one in looked:
            whole = (0.0, 0.0, float(one.width), float(one.height))
            places = one.found or [None] * len(one.crops)
            faces = [self._make_face(place, whole, *next(rows)) for place in places]
            yield Photo(faces, one.width, one.height, one.error, one.note)

    def _make_face(
        self,
        found: FoundFace | None,
        whole: tuple[float, float, float, float],
        probabilities: np.ndarray,
        embedding: np.ndarray,
    ) -> Face:
        values = probabilities.astype(float).tolist()
        return Face(
            expression=self.class_names[int(np.argmax(probabilities))],
            probabilities=dict(zip(self.class_names, values, strict=True)),
            box=found.box if found else whole,
            landmarks=found.landmarks if found else None,
            score=found.score if found else None,
            embedding=embedding,
        )


def load_model(
    model: str, *, finder: FaceFinder | None = None, buckets: Sequence[int] | None = None
) -> ExpressionModel:
    """Returns what tells the expressions of the faces in photos.

    Args:
      model: a name or a path, as of `loading.find_model`: of weights (.safetensors, .npz) or of a
        program (.onnx, .stablehlo).
      finder: of faces; one as it comes if not given.
      buckets: of a `Predictor`; `predictor.BUCKETS` if not given. A program needs none.

    Raises:
      UserError: there is no such model, or the file cannot be used.
    """
    path = loading.find_model(model)
    if path.suffix in loading.PROGRAMS:
        return ExpressionModel(exported.load_exported(path), finder)
    return ExpressionModel(loading.load_predictor(path, buckets=buckets or BUCKETS), finder)


class Looked(NamedTuple):
    """A photo whose faces are found and not yet predicted.

    Attributes:
      crops: uint8 `[n, h, w, c]`, as the network takes them.
      found: the n faces; empty where the photo is a crop.
      width: as of `Photo`, and so the others.
      height: see above.
      error: see above.
      note: see above.
    """

    crops: np.ndarray
    found: list[FoundFace]
    width: int
    height: int
    error: str
    note: str


def count_workers() -> int:
    """Returns how many threads look for faces at once: no more than the cores, or than four.

    Each has tens to hundreds of megabytes of a photo and the finder's activations.
    """
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 4)
    return min(os.cpu_count() or 1, 4)


def _is_photo(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)


def _name(photo: PhotoLike) -> str:
    return str(photo) if isinstance(photo, (str, os.PathLike)) else "the image"
