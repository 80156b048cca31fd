"""What the server does with a photo: tells its faces, or why one of them got its label."""

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from dmfer_jax.data.images import image_header
from dmfer_jax.errors import UserError
from dmfer_jax.explaining import grad_cam
from dmfer_jax.expression_model import ExpressionModel
from dmfer_jax.faces import FRAME_LANDMARKS, LANDMARKS
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.photo_record import make_record
from dmfer_jax.serving.limits import Limits, Refused

FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "GIF": "GIF", "BMP": "BMP"}
"""Pillow's names of the formats that are taken, and their own. Browsers show these; Pillow's
decoders of dozens of others need not face strangers."""


class Network(NamedTuple):
    """What maps are computed with.

    Attributes:
      model: not folded.
      variables: {"params", "batch_stats"}.
    """

    model: Dmfer
    variables: Mapping[str, Any]


class PhotoService:
    """Tells faces and explains them; may be called from any number of threads.

    Args:
      model: that predicts.
      network: the same, to explain with.
      limits: of pixels.
    """

    def __init__(self, model: ExpressionModel, network: Network, limits: Limits) -> None:
        self._model, self._network, self._limits = model, network, limits

    def warm_up(self) -> None:
        """Compiles what explains, so that no request waits for it."""
        black = np.zeros((1, *self._model.predictor.image_shape), np.uint8)
        self._explain(black, 0)

    def tell(self, encoded: bytes) -> dict[str, Any]:
        """Returns the record of a photo, as `photo_record.make_record` has it.

        Args:
          encoded: the bytes of an image file.

        Raises:
          Refused: it cannot be read.
        """
        self._check(encoded)
        (photo,) = self._model.stream([encoded])
        if photo.error:
            raise Refused(422, photo.error)
        return make_record("upload", photo)

    def explain(self, encoded: bytes, number: int) -> dict[str, Any]:
        """Returns where on a face the network finds what speaks for its label (Grad-CAM).

        Args:
          encoded: the bytes of an image file.
          number: of the face, from 1 on, as in the record of the photo.

        Returns:
          `face` (the number); `expression`; `frame` of what was cut out (`x` and `y` of its middle
          and its `side` in pixels of the photo, `roll` in degrees clockwise); and for each of the
          `maps` how many `cells` it has along a side, which of `faces.LANDMARKS` its highest place
          is `near` (None if it is 0 everywhere), and a grey PNG of the frame in base64, `png`, in
          which 255 is the highest place.

        Raises:
          Refused: the photo cannot be read or has no such face.
        """
        self._check(encoded)
        try:
            looked = self._model.look(encoded)
        except UserError as error:
            raise Refused(422, str(error)) from None
        count = len(looked.found)
        if not 1 <= number <= count:
            raise Refused(422, f"there is no face {number}; the photo has {count or 'none'}")
        crop = looked.crops[number - 1 : number]
        best = int(self._model.predictor(crop).probabilities[0].argmax())
        x, y, side, roll = looked.found[number - 1].frame
        return {
            "face": number,
            "expression": self._model.class_names[best],
            "frame": {
                "x": round(x, 2),
                "y": round(y, 2),
                "side": round(side, 2),
                "roll": round(float(np.degrees(roll)), 2),
            },
            "maps": self._explain(crop, best),
        }

    def _explain(self, crop: np.ndarray, label: int) -> dict[str, Any]:
        """The maps of one crop, uint8 `[1, h, w, c]`, for one class."""
        model, variables = self._network
        explained = grad_cam.explain_faces(model, variables, crop, np.array([label]))
        stages = grad_cam.stages_of_maps(model)
        maps = {}
        for scale, heats in explained.maps.items():
            laid = grad_cam.lay_over_image(heats[0], model, stages[scale], crop.shape[1])
            maps[scale] = {"cells": len(heats[0]), "near": _name_peak(laid), "png": _png(laid)}
        return maps

    def _check(self, encoded: bytes) -> None:
        """Refuses other formats and too many pixels before anything is decoded."""
        taken = ", ".join(FORMATS.values())
        none = Refused(415, f"this is no photo that can be read; expected one of {taken}")
        try:
            with Image.open(io.BytesIO(encoded), formats=tuple(FORMATS)) as image:
                kind, (width, height) = image.format, image.size
        except UnidentifiedImageError:
            raise none from None
        except MemoryError:
            raise
        except Image.DecompressionBombError:
            raise Refused(413, f"the photo has too many pixels; {self._at_most()}") from None
        except Exception:  # Pillow's decoders raise nearly anything on damaged files
            raise Refused(422, "the photo is damaged and cannot be read") from None
        if width * height > self._limits.pixels:
            raise Refused(413, f"the photo has {width:,} x {height:,} pixels; {self._at_most()}")
        # What decodes it asks all that Pillow knows, and a file may be of two formats.
        try:
            with image_header(encoded) as image:
                if (image.format, image.size) != (kind, (width, height)):
                    raise none
        except ValueError as error:
            raise Refused(422, f"the photo cannot be read: {error}") from None

    def _at_most(self) -> str:
        return f"at most {self._limits.pixels / 1e6:.3g} million are taken"


def _name_peak(laid: np.ndarray) -> str | None:
    """The landmark that is nearest to the highest place of a map `[size, size]`."""
    if laid.max() <= 0:
        return None
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    peak = (np.array([column, row]) + 0.5) / len(laid)
    return LANDMARKS[int(np.linalg.norm(FRAME_LANDMARKS - peak, axis=1).argmin())]


def _png(laid: np.ndarray) -> str:
    """A map `[size, size]` in shares of its highest place."""
    share = laid / max(laid.max(), np.finfo(float).tiny)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * share).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
