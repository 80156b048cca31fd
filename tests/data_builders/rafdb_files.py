"""Writes a tiny RAF-DB in each form in which people have it, for tests.

Fourteen images of train and seven of test, one or two of each class. Each is of one colour, and no
two are alike, so a colour tells which image a record holds.
"""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from dmfer_jax.labels import EXPRESSION_NAMES
from tests.data_builders.packing import tar_bytes, write_folder, zip_bytes

# In RAF-DB's order, 1 to 7; written out here, so that the builder's own tables are checked.
RAF_ORDER = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
MANET_ORDER = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger"]

TRAIN_LABELS = [5, 1, 2, 3, 4, 6, 7, 7, 6, 5, 4, 3, 2, 1]
TEST_LABELS = [7, 6, 5, 4, 3, 2, 1]
KEYS = [f"train_{n:05}" for n in range(1, 15)] + [f"test_{n:04}" for n in range(1, 8)]
LABELS = dict(zip(KEYS, TRAIN_LABELS + TEST_LABELS, strict=True))
"""Name -> RAF-DB's own label."""

Files = dict[str, bytes]
"""What a source holds: {path: content}."""


def expression(key: str) -> str:
    """Returns the name of an image's expression."""
    return RAF_ORDER[LABELS[key] - 1]


def colour(key: str, kind: str = "aligned") -> tuple[int, int, int]:
    """Returns the colour of an image; aligned and original ones differ in blue."""
    place = KEYS.index(key)
    return 10 * place + 20, 255 - 10 * place, 40 if kind == "aligned" else 200


def encode(colour: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> bytes:
    """Returns a JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def draw_original(key: str) -> bytes:
    """Returns a black JPEG of 40 x 32 pixels whose face box, (8, 4) to (24, 28), has a colour."""
    image = Image.new("RGB", (40, 32))
    image.paste(colour(key, "original"), (8, 4, 24, 28))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def list_text(newline: str = "\n") -> bytes:
    """Returns the owners' list."""
    return "".join(f"{key}.jpg {label}{newline}" for key, label in LABELS.items()).encode()


def list_form(
    *,
    list_name: str = "EmoLabel/list_patition_label.txt",
    extension: str = "jpg",
    kinds: tuple[str, ...] = ("aligned",),
) -> Files:
    """Returns the owners' folder `basic`."""
    files = {list_name: list_text()}
    for key in KEYS:
        if "aligned" in kinds:
            files[f"Image/aligned/{key}_aligned.{extension}"] = encode(colour(key))
        if "original" in kinds:
            files[f"Image/original/{key}.{extension}"] = draw_original(key)
    return files


def attributes(key: str) -> bytes:
    """Returns an image's manual annotations as the owners write them."""
    place = KEYS.index(key)
    points = "".join(f"{place + 0.25:.3f}\t{10 * n:.3f}\n" for n in range(1, 6))
    return f"{points}{place % 3}\n{(place + 1) % 3}\n{place % 5}\n".encode()


def annotations() -> Files:
    """Returns the folder `Annotation`, in which each box is that of `draw_original`."""
    files = {}
    for key in KEYS:
        files[f"Annotation/manual/{key}_manu_attri.txt"] = attributes(key)
        files[f"Annotation/boundingbox/{key}_boundingbox.txt"] = b"8.2 4.1 23.8 27.9\n"
    return files


def folder_form(
    names: list[str],
    order: list[str] = RAF_ORDER,
    *,
    suffix: str = "_aligned",
    train: str = "train",
    test: str = "test",
) -> Files:
    """Returns class folders.

    Args:
      names: of the folders.
      order: the expression of each.
      suffix: behind the images' names.
      train: what the folder of the train part is called.
      test: the same of the test part.
    """
    folder_of = dict(zip(order, names, strict=True))
    return {
        f"{train if key.startswith('train') else test}/{folder_of[expression(key)]}"
        f"/{key}{suffix}.jpg": encode(colour(key))
        for key in KEYS
    }


def csv_form() -> Files:
    """Returns the form with two csv files and `DATASET/train/1/`."""
    placed = folder_form([str(n) for n in range(1, 8)])
    files = {f"DATASET/{path}": content for path, content in placed.items()}
    for split in ("train", "test"):
        rows = [[f"{key}_aligned.jpg", LABELS[key]] for key in KEYS if key.startswith(split)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["image", "label"], *rows])
        files[f"{split}_labels.csv"] = text.getvalue().encode()
    return files


def under(top: str, files: Files) -> Files:
    """Returns the same files, one folder further down."""
    return {f"{top}/{path}": content for path, content in files.items()}


def with_zips_inside(files: Files) -> Files:
    """Returns the files with each folder of images or annotations as the owners' zip of it."""
    packed: dict[str, Files] = {}
    rest = {}
    for path, content in files.items():
        top, *_, name = path.split("/")
        if top in ("Image", "Annotation"):
            folder = path.rpartition("/")[0]
            packed.setdefault(folder, {})[f"{folder.split('/')[-1]}/{name}"] = content
        else:
            rest[path] = content
    return {**rest, **{f"{folder}.zip": zip_bytes(inside) for folder, inside in packed.items()}}


def write(folder: Path, files: Files) -> Path:
    """Writes the files into a folder and returns it."""
    return write_folder(files, folder)


def pack(folder: Path, files: Files, packing: str) -> Path:
    """Writes the files in one of `PACKINGS` and returns what to give as source."""
    folder.mkdir(parents=True, exist_ok=True)
    if packing == "folder":
        return write(folder / "source", files)
    if packing == "top folder":
        return write(folder / "source", under("RAF-DB/basic", files))
    if packing == "zips inside":
        return write(folder / "source", with_zips_inside(files))
    name, content = {
        "zip": ("basic.zip", lambda: zip_bytes(under("basic", files))),
        "tar": ("basic.tar", lambda: tar_bytes(files)),
        "tar.gz": ("basic.tar.gz", lambda: tar_bytes(under("basic", files), "gz")),
        "zips in a zip": ("raf.zip", lambda: zip_bytes(with_zips_inside(files))),
    }[packing]
    (folder / name).write_bytes(content())
    return folder / name


PACKINGS = ["folder", "top folder", "zips inside", "zip", "tar", "tar.gz", "zips in a zip"]


def name_of(label: int) -> str:
    """Returns the name of a canonical label."""
    return EXPRESSION_NAMES[label]


def mean_colour(encoded: bytes) -> tuple[int, int, int]:
    """Returns the mean colour of an image."""
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), float)
    red, green, blue = np.rint(pixels.mean((0, 1))).astype(int).tolist()
    return red, green, blue
