"""What becomes of a picture before the network sees it, in words and numbers for other programs.

It describes `data.images.decode_image` and `data.augment.normalize`, which do it here.
"""

from typing import Any


def describe(image_size: int, channels: int, *, of_program: bool = False) -> dict[str, Any]:
    """Returns how a picture becomes the network's input, as plain JSON values.

    Args:
      image_size: height and width that the network takes, in pixels.
      channels: 3 or 1.
      of_program: whether it is the input of an exported program, which normalises by itself.

    Returns:
      `colour` ("RGB" or "grey"); `resize` (`size` in pixels, `filter`, and whether the filter is
      widened when it shrinks and the sides' ratio is kept); all of it `in_words`; and, unless
      `of_program`, `divide_by`, `mean` and `std` of each channel, by which
      x = (pixel / divide_by - mean) / std.
    """
    colour = "RGB" if channels == 3 else "grey"
    normalising = {"divide_by": 255.0, "mean": [0.5] * channels, "std": [0.5] * channels}
    last = (
        "pixels stay uint8, 0 to 255: the program normalises them"
        if of_program
        else "pixels divided by 255, minus 0.5, divided by 0.5, which is -1 to 1"
    )
    return {
        "colour": colour,
        "resize": {
            "size": [image_size, image_size],
            "filter": "bilinear",
            "antialias": True,
            "keep_aspect_ratio": False,
        },
        **({} if of_program else normalising),
        "in_words": (
            "A crop of one face, upright as its EXIF orientation says, transparent parts on white, "
            f"as 8-bit {colour}{' in this order' * (channels == 3)}; squeezed to {image_size} x "
            f"{image_size} pixels (bilinear, with antialiasing when it shrinks); {last}."
        ),
    }
