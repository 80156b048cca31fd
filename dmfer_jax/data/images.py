"""The one image decoder, so that pixels never depend on which packages are installed."""

import io

import numpy as np
from PIL import Image

from dmfer_jax.errors import UserError


def decode_image(encoded: bytes, size: int, channels: int, name: str = "") -> np.ndarray:
    """Decodes an image of any format and colour mode that Pillow reads.

    Args:
      encoded: the file's bytes.
      size: height and width of the result, in pixels; another size is resampled (bilinear, with
        antialiasing when it shrinks).
      channels: 3 for RGB, 1 for grey.
      name: what to call the image in an error.

    Returns:
      uint8 `[size, size, channels]`.

    Raises:
      UserError: the bytes are no image, or a truncated one.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image = image.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"image '{name}' cannot be decoded ({error}); rebuild the dataset from the source files"
        ) from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(size, size, channels)
