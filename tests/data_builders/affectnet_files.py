"""Writes tiny AffectNets in their owners' exact form, for tests.

Every image has a colour of its own, so that a test can tell from the pixels which one it sees. In
the old release the face is a patch of that colour in a black photo, where the lists say it is.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

Files = dict[str, bytes]

NAMES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""What AffectNet's 0 to 7 mean, written out here once more to be compared with."""

HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal"
)
BOX = (9, 4, 24, 32)
"""Left, top, width and height of every face of the old release, in a photo of 48 x 40."""

TRAIN_LABELS = (*range(11), 7, 6)
"""Expressions of the rows of training.csv; 8 to 10 stand for none."""
VALIDATION_LABELS = (*reversed(range(8)), 9)

NEW_TRAIN_LABELS = (*range(8), 3, 3, 5, 0)
"""Expressions of train_set's images 0 to 11."""
NEW_VALIDATION_LABELS = tuple(reversed(range(8)))


def colour(name: str) -> tuple[int, int, int]:
    """Returns the colour of the image that records call so."""
    red, green, blue = np.random.default_rng(list(name.encode())).integers(60, 250, 3).tolist()
    return red, green, blue


def affect(name: str) -> tuple[float, float]:
    """Returns the valence and arousal of an image, with two decimals."""
    valence, arousal = np.random.default_rng([1, *name.encode()]).integers(-100, 101, 2) / 100
    return float(valence), float(arousal)


def old_names(labels: tuple[int, ...], first: int) -> dict[str, int]:
    """Returns {name: expression} of a list; names are folder/hash as the owners have them."""
    return {
        f"{first + index}/{(first + index) * 0x9E3779B97F4A7C15 % 2**64:016x}.jpg": label
        for index, label in enumerate(labels)
    }


TRAIN = old_names(TRAIN_LABELS, 103)
VALIDATION = old_names(VALIDATION_LABELS, 530)


def csv_row(name: str, label: int, box: tuple[float, ...] = BOX) -> str:
    """Returns a row of the lists. Where there is no expression, the owners write -2 for affect."""
    valence, arousal = affect(name) if label < 8 else (-2, -2)
    landmarks = ";".join(f"{number}.5" for number in range(136))
    return ",".join(str(cell) for cell in (name, *box, landmarks, label, valence, arousal))


def csv_list(names: dict[str, int]) -> bytes:
    """Returns training.csv or validation.csv."""
    return "\n".join([HEADER, *(csv_row(*item) for item in names.items()), ""]).encode()


def photo(name: str) -> bytes:
    """Returns an image of the old release."""
    left, top, width, height = BOX
    image = Image.new("RGB", (48, 40))
    image.paste(colour(name), (left, top, left + width, top + height))
    return jpeg(image)


def old_release(images: str = "Manually_Annotated_Images") -> Files:
    """Returns the files of the old release, its images below the folder given."""
    lists = {"training.csv": csv_list(TRAIN), "validation.csv": csv_list(VALIDATION)}
    return {**lists, **{f"{images}/{name}": photo(name) for name in TRAIN | VALIDATION}}


def npy(array: object, version: tuple[int, int] | None = None) -> bytes:
    """Returns an .npy file; `version` is that of the format."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version)
    return file.getvalue()


ENCODINGS: dict[str, Callable[[float], bytes]] = {
    "texts": lambda number: npy(f"{number:g}"),
    "wide texts": lambda number: npy(np.array(f"{number:.8f}", "<U40")),
    "bytes": lambda number: npy(f"{number:g}".encode()),
    "arrays of one": lambda number: npy([f"{number:g}"]),
    "arrays of one by one": lambda number: npy([[number]]),
    "numbers": lambda number: npy(int(number) if number == int(number) else number),
    "halves": lambda number: npy(np.float16(number)),
    "big-endian": lambda number: npy(np.array(number, ">f8")),
    "big-endian texts": lambda number: npy(np.array(f"{number:g}", ">U5")),
    "version 2": lambda number: npy(f"{number:g}", (2, 0)),
    "version 3": lambda number: npy(f"{number:g}", (3, 0)),
}
"""Ways in which an annotation may hold its number."""


def annotations(
    set_name: str, number: int, label: float, encoding: str = "texts", suffix: str = "jpg"
) -> Files:
    """Returns the four annotations of an image of the new release."""
    encode = ENCODINGS[encoding]
    valence, arousal = affect(f"{set_name}/{number}.{suffix}")
    stem = f"{set_name}/annotations/{number}"
    return {
        f"{stem}_exp.npy": encode(label),
        f"{stem}_val.npy": encode(valence),
        f"{stem}_aro.npy": encode(arousal),
        f"{stem}_lnd.npy": npy(np.arange(136) / 2),
    }


def new_release(
    encoding: str = "texts", suffix: str = "jpg", sets: tuple[str, ...] = ("train_set", "val_set")
) -> Files:
    """Returns the files of the new release."""
    files: Files = {}
    labels = {"train_set": NEW_TRAIN_LABELS, "val_set": NEW_VALIDATION_LABELS}
    for set_name in sets:
        for number, label in enumerate(labels[set_name]):
            files |= annotations(set_name, number, label, encoding, suffix)
            name = f"{set_name}/{number}.{suffix}"
            image = jpeg(Image.new("RGB", (24, 24), colour(name)))
            files[f"{set_name}/images/{number}.{suffix}"] = image
    return files


def jpeg(image: Image.Image) -> bytes:
    """Returns an image as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def mean_colour(encoded: bytes) -> np.ndarray:
    """Returns the mean colour of the middle of an image."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image.convert("RGB"), np.float64)
    height, width, _ = pixels.shape
    return pixels[height // 3 : -height // 3, width // 3 : -width // 3].mean(axis=(0, 1))
