"""Builds the records of AffectNet from either of its two releases.

The owners' validation set becomes the split `test`, since papers report on it; `valid`, on which
the epoch is chosen, is a part of the training set. See README.md beside this file.
"""

import numpy as np
import tensorflow_datasets as tfds

from data_builders.affectnet import new_release, old_release
from data_builders.affectnet.compact_names import Chosen
from data_builders.common.division import choose_of_each_class
from data_builders.common.image_builder import ImageFilesBuilder
from data_builders.common.record_builder import Examples
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Rows, Survey, check_all_differ
from dmfer_jax.errors import UserError
from dmfer_jax.labels import AFFECTNET, EXPRESSION_NAMES, Expression

TRAIN_COUNTS = (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750)
"""Published training images per class, in AffectNet's order; 287,651 in all."""

VALIDATION_COUNT = 500
"""Published validation images of each class; the new release has one less, in one class."""

VALID_COUNT = 500
"""Images of a class that are kept back to choose the epoch on; a tenth, where that is less."""


class Builder(ImageFilesBuilder):
    """AffectNet for TFDS, without TensorFlow: see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS declares it so
    BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS declares it so
        tfds.core.BuilderConfig(
            name="new", description="The release of 2021: faces of 224 x 224, npy annotations."
        ),
        tfds.core.BuilderConfig(
            name="old", description="The release of 2017: photos with hash names, csv lists."
        ),
        tfds.core.BuilderConfig(
            name="old_cropped", description="The same, cropped to the face boxes of the lists."
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give as manual_dir what the owners of AffectNet send on request, unpacked or not: `train_set/`
    and `val_set/` of the new release; or `training.csv`, `validation.csv` and
    `Manually_Annotated_Images/` of the old one.
    """

    @classmethod
    def survey(cls, files: SourceFiles, variant: str = "") -> Survey:
        """Returns what a source holds; see `RecordBuilder`."""
        sets, lists = new_release.find_sets(files), old_release.find_lists(files)
        if not variant:
            if sets and lists:
                raise UserError(
                    f"{files.source} holds both releases of AffectNet: {_listing(sets)}; and "
                    f"{_listing(lists)}. Say which one you want: --dataset=affectnet/new, "
                    "affectnet/old or affectnet/old_cropped."
                )
            variant = "new" if sets else "old" if lists else ""
        if not (sets if variant == "new" else lists):
            raise UserError(_not_found(files, variant))
        found = _survey_new(files, sets) if variant == "new" else _survey_old(files, lists, variant)
        for split in [split for split, rows in found.splits.items() if not len(rows)]:
            del found.splits[split]
            found.notes.append(f"There is no image for the split {split}.")
        if not found.splits:
            raise UserError(
                f"{files.source} has annotations of AffectNet and none of their images: "
                f"{'; '.join(found.problems)}; {files.describe()}."
            )
        return found

    def split_examples(self) -> dict[str, Examples]:
        """Returns the examples of each split; see `RecordBuilder`."""
        new_release.forget_annotations(self.found()[0])
        return super().split_examples()

    def _info(self) -> tfds.core.DatasetInfo:
        return self.image_info(
            EXPRESSION_NAMES,
            {"valence": np.float32, "arousal": np.float32},
            homepage="http://mohammadmahoor.com/affectnet/",
        )


def _survey_new(files: SourceFiles, sets: dict[str, str]) -> Survey:
    found = _empty_survey("the new release of AffectNet (2021): " + _listing(sets), "new")
    found.problems += new_release.without_annotations(files, sets)
    for name, folder in sets.items():
        rows, notes, problems = new_release.read_set(files, name, folder)
        found.notes += notes
        found.problems += problems
        _add(found, rows, is_train=name == new_release.TRAIN_SET)
    test = found.splits.get("test")
    if test is not None:
        counts = found.counts("test")
        if sorted(counts) == [VALIDATION_COUNT - 1] + [VALIDATION_COUNT] * 7:
            found.published["test"] = counts  # 3,999; which class is one short, nobody prints
    return found


def _survey_old(files: SourceFiles, lists: dict[str, str], variant: str) -> Survey:
    found = _empty_survey("the old release of AffectNet (2017): " + _listing(lists), variant)
    tables, notes, found.problems = old_release.read_lists(files, lists, variant == "old_cropped")
    check_all_differ(tables, " and ".join(files.where(path) for path in lists.values()))
    found.notes += notes
    for name, rows in tables.items():
        _add(found, rows, is_train=name == old_release.TRAINING)
    return found


def _empty_survey(layout: str, variant: str) -> Survey:
    published = dict(zip(AFFECTNET, TRAIN_COUNTS, strict=True))
    return Survey(
        layout,
        variant,
        EXPRESSION_NAMES,
        splits={},
        published={
            "train+valid": tuple(published[expression] for expression in Expression),
            "test": (VALIDATION_COUNT,) * len(EXPRESSION_NAMES),
        },
    )


def _add(found: Survey, rows: Rows, is_train: bool) -> None:
    if not is_train:
        found.splits["test"] = rows
        found.notes.append(
            "AffectNet's own test set is not public. Its validation set, on which papers report, "
            "is the split test here; no epoch is chosen on it."
        )
        return
    valid = choose_of_each_class(rows.names, rows.labels, valid_count)
    found.splits |= {"train": _chosen(rows, ~valid), "valid": _chosen(rows, valid)}
    if not valid.any():
        return
    found.notes.append(
        f"The split valid is {valid.sum():,} images of the training set, taken out of train: "
        f"{VALID_COUNT} of a class, a tenth of those with fewer than {10 * VALID_COUNT:,}. "
        "Published counts are those of both together."
    )


def valid_count(images: int) -> int:
    """Returns how many of a class of so many training images are kept back."""
    return min(VALID_COUNT, images // 10)


def _chosen(rows: Rows, mask: np.ndarray) -> Rows:
    return Rows(
        names=Chosen(rows.names, mask),
        files=Chosen(rows.files, mask),
        labels=rows.labels[mask],
        boxes=None if rows.boxes is None else rows.boxes[mask],
        fields={name: np.asarray(values)[mask] for name, values in rows.fields.items()},
    )


def _listing(found: dict[str, str]) -> str:
    return ", ".join(path or name for name, path in found.items())


def _not_found(files: SourceFiles, variant: str) -> str:
    new = "train_set/ or val_set/, each with images/ and annotations/ (the new release)"
    old = "training.csv or validation.csv (the old release)"
    wanted = new if variant == "new" else old if variant else f"{new}; or {old}"
    return (
        f"{files.source} is not recognised as AffectNet{f' ({variant})' if variant else ''}: "
        f"expected {wanted}; {files.describe()}. What each release looks like stands in "
        "docs/datasets/affectnet.md. (Copies in folders 0 to 7 do not say in which order they "
        "count: rename these to happy, sad, ..., and use --dataset=folder/affectnet.)"
    )
