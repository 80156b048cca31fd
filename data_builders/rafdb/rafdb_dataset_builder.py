"""Builds the records of RAF-DB (basic expressions) from whichever form a user has it in.

Labels come from the owners' list, a pair of csv files or class folders; the images are then found
by name, wherever they lie and however they are packed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_builders.common.division import choose_of_each_class
from data_builders.common.image_builder import ImageFilesBuilder
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Rows, Survey
from data_builders.rafdb import annotations, published
from data_builders.rafdb.class_folders import FOLDER_ORDERS, read_class_folders
from data_builders.rafdb.image_index import choose_images, find_images
from data_builders.rafdb.label_files import CSV_NAMES, LIST_NAMES, read_csv_files, read_list
from data_builders.rafdb.listing import Entry, Listing, check_entries, of_compound_set
from dmfer_jax.errors import UserError

VARIANTS: dict[str, str] = {
    "aligned": "The owners' aligned faces, 100 x 100; what nearly all papers use.",
    "original": "The owners' original images, shrunk to at most 256 pixels a side.",
    "original_cropped": "The original images, cropped to the owners' box of the face.",
}

VALID_SHARE = 10
"""One in so many images of each class of train becomes split `valid`."""


class Builder(ImageFilesBuilder):
    """RAF-DB for TFDS, without TensorFlow: see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012  (TFDS reads a plain dict here)
    BUILDER_CONFIGS = [  # noqa: RUF012  (TFDS reads a plain list here)
        tfds.core.BuilderConfig(name=name, description=text) for name, text in VARIANTS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Ask RAF-DB's owners for the basic set (http://whdeng.cn/RAF/model1.html), and give as manual_dir
    the folder or archive with `EmoLabel/list_patition_label.txt` and `Image/aligned.zip`, zipped
    or unpacked; or class folders `train/1/` to `train/7/` and `test/`; or `train_labels.csv` and
    `test_labels.csv` with the images.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {
            name: tfds.features.ClassLabel(names=list(values))
            for name, values in annotations.GROUPS.items()
        }
        features["landmarks"] = tfds.features.Tensor(
            shape=(annotations.LANDMARKS, 2), dtype=np.float32
        )
        return self.image_info(
            published.CLASS_NAMES, features, homepage="http://whdeng.cn/RAF/model1.html"
        )

    @classmethod
    def survey(cls, files: SourceFiles, variant: str = "", *, folder_order: str = "") -> Survey:
        """Returns what a source holds, without reading an image.

        Args:
          files: the source.
          variant: a key of `VARIANTS`; "" takes aligned images where there are some.
          folder_order: a key of `FOLDER_ORDERS`: takes the labels from class folders, in this
            order. "" takes them from where they are, and tells the order by the published counts.

        Raises:
          UserError: the source is not recognised, or something in it is wrong.
        """
        listing = _recognise(files, folder_order)
        check_entries(listing.entries)
        chosen = choose_images(files, listing, variant)
        notes, problems = [*listing.notes, *chosen.notes], [*chosen.problems]
        entries = [entry for entry in listing.entries if entry.key in chosen.paths]

        boxes = None
        if chosen.variant == "original_cropped":
            found, wrong = annotations.read_boxes(files, [entry.key for entry in entries])
            entries = [entry for entry in entries if entry.key in found]
            boxes = np.array([found[entry.key] for entry in entries], float).reshape(-1, 4)
            problems += wrong
        keys = [entry.key for entry in entries]
        fields, said, wrong = annotations.read_attributes(files, keys)
        notes, problems = [*notes, *said], [*problems, *wrong]

        entries, said = _with_validation_part(entries)
        notes += said
        splits = _split(entries, chosen.paths, boxes, fields)
        problems += [
            f"There is no image of {split}." for split in ("train", "test") if split not in splits
        ]
        return Survey(
            layout=f"{listing.layout}; {chosen.variant.replace('_', ', ')} images",
            variant=chosen.variant,
            class_names=published.CLASS_NAMES,
            splits=splits,
            published={"train+valid": published.TRAIN, "test": published.TEST},
            notes=notes,
            problems=problems,
        )


def _recognise(files: SourceFiles, folder_order: str) -> Listing:
    if folder_order not in ("", *FOLDER_ORDERS):
        raise UserError(f"folder_order is '{folder_order}'; it can be {', '.join(FOLDER_ORDERS)}.")
    images = find_images(files)
    listing = None
    if not folder_order:
        listing = read_list(files, images) or read_csv_files(files, images)
    listing = listing or read_class_folders(files, images, folder_order)
    if listing:
        return listing
    looked_for = "train/1/ to train/7/ (or 0 to 6, or names of expressions) and test/"
    if not folder_order:
        looked_for = (
            f"the owners' list {' or '.join(LIST_NAMES)}; {' and '.join(CSV_NAMES.values())}; and "
            f"class folders {looked_for}"
        )
    compound = any(of_compound_set(path) for path in files)
    raise UserError(
        f"{files.source} is not recognised as RAF-DB: {files.describe()}. Looked for {looked_for}."
        + (" The compound set is not read; give the basic set." if compound else "")
    )


def _with_validation_part(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Moves part of train into valid, where the source has no valid; returns notes as well.

    By a hash of the names, so that all layouts and variants have the same part, on any machine.
    """
    if any(entry.split == "valid" for entry in entries):
        return list(entries), ["The source has a validation part of its own, which is kept."]

    def number_of(images: int) -> int:
        rounded = (images + VALID_SHARE // 2) // VALID_SHARE
        return rounded or int(images > 1)  # a small class gives one as well

    train = [entry for entry in entries if entry.split == "train"]
    keys = [entry.key for entry in train]
    chosen = choose_of_each_class(keys, np.array([entry.label for entry in train]), number_of)
    moved = {key for key, is_chosen in zip(keys, chosen, strict=True) if is_chosen}
    if not moved:
        return list(entries), []
    note = (
        f"RAF-DB has no validation part: {len(moved):,} images of train, one in {VALID_SHARE} of "
        "each class, became split 'valid', to choose the best epoch on. The published counts of "
        "train are of the two together."
    )
    return [e._replace(split="valid") if e.key in moved else e for e in entries], [note]


def _split(
    entries: Sequence[Entry],
    paths: dict[str, str],
    boxes: np.ndarray | None,
    fields: dict[str, np.ndarray],
) -> dict[str, Rows]:
    splits = {}
    for split in ("train", "valid", "test"):
        places = [index for index, entry in enumerate(entries) if entry.split == split]
        if places:
            keys = [entries[index].key for index in places]
            splits[split] = Rows(
                names=[f"{key}.jpg" for key in keys],
                files=[paths[key] for key in keys],
                labels=np.array([entries[index].label for index in places], np.int64),
                boxes=None if boxes is None else boxes[places],
                fields={name: values[places] for name, values in fields.items()},
            )
    return splits
