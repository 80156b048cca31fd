"""Reads the files that come with each image: five landmarks and who is seen, and the face's box."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import some
from data_builders.common.tables import read_words, whole_number
from data_builders.rafdb.listing import of_compound_set
from dmfer_jax.errors import UserError

GROUPS: dict[str, tuple[str, ...]] = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age_group": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
"""The owners' values of each attribute, by their number; in the order of the file's last lines."""

LANDMARKS = 5
"""Both eyes, the tip of the nose, both corners of the mouth."""

_MOST_PIXELS = 1e6  # from an image's corner; what float32 cannot hold would become infinite

ATTRIBUTES_SUFFIX = "_manu_attri.txt"
BOX_SUFFIX = "_boundingbox.txt"


def find_annotations(files: SourceFiles, suffix: str) -> dict[str, str]:
    """Returns the annotation files whose names end so: {"train_00001": path}."""
    found: dict[str, str] = {}
    for path in files:
        name = path.rpartition("/")[2].lower()
        if name.endswith(suffix) and not of_compound_set(path):
            found.setdefault(name.removesuffix(suffix), path)
    return found


def read_attributes(
    files: SourceFiles, keys: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Reads the landmarks and attributes of images, where the source has them.

    Args:
      files: the source.
      keys: n names such as "train_00001".

    Returns:
      The fields, `gender`, `race` and `age_group` int64 `[n]`, -1 where unknown, and `landmarks`
      float32 `[n, 5, 2]`, x and y in pixels of the owners' original image, NaN where unknown; then
      notes; then problems, such as files that are not in the owners' form.
    """
    groups = {name: np.full(len(keys), -1, np.int64) for name in GROUPS}
    landmarks = np.full((len(keys), LANDMARKS, 2), np.nan, np.float32)
    fields = {**groups, "landmarks": landmarks}
    paths = find_annotations(files, ATTRIBUTES_SUFFIX)
    if not paths:
        return (
            fields,
            [f"No *{ATTRIBUTES_SUFFIX}: gender, race, age and landmarks are unknown."],
            [],
        )
    missing, wrong = [], []
    for index, key in enumerate(keys):
        if key not in paths:
            missing.append(key)
            continue
        try:
            landmarks[index], values = _parse_attributes(files, paths[key])
        except UserError as error:
            wrong.append(_said_inside(files, paths[key], error))
            continue
        for name, value in values.items():
            groups[name][index] = value
    problems = [f"{len(wrong):,} annotations cannot be read: {wrong[0]}"] if wrong else []
    notes = [f"No *{ATTRIBUTES_SUFFIX} for {some(missing)}."] if missing else []
    return fields, notes, problems


def read_boxes(files: SourceFiles, keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Reads the boxes of the faces in the original images.

    Args:
      files: the source.
      keys: names such as "train_00001".

    Returns:
      {key: (left, top, right, bottom)} in pixels, of the boxes that can be read; then problems.

    Raises:
      UserError: there is no box at all.
    """
    paths = find_annotations(files, BOX_SUFFIX)
    if not paths:
        raise UserError(
            f"{files.source} has no boxes of faces (Annotation/boundingbox/train_00001{BOX_SUFFIX}"
            "), so the original images cannot be cropped. Fetch boundingbox.zip from RAF-DB's "
            "owners, or take --dataset=rafdb/original."
        )
    boxes: dict[str, Any] = {}
    missing, wrong = [], []
    for key in keys:
        if key not in paths:
            missing.append(key)
            continue
        try:
            boxes[key] = _parse_box(files, paths[key])
        except UserError as error:
            wrong.append(_said_inside(files, paths[key], error))
    problems = []
    if missing:
        problems.append(f"Images without a box, left out: {some(missing)}.")
    if wrong:
        problems.append(f"{len(wrong):,} boxes cannot be read, their images left out: {wrong[0]}")
    return boxes, problems


def _said_inside(files: SourceFiles, path: str, error: UserError) -> str:
    """What is wrong with a file, called by its path in the source, which may be moved."""
    return str(error).replace(files.where(path), path)


def _parse_attributes(files: SourceFiles, path: str) -> tuple[np.ndarray, dict[str, int]]:
    where = files.where(path)
    words = [word for _, line in read_words(files, path) for word in line]
    if len(words) != 2 * LANDMARKS + len(GROUPS):
        raise UserError(
            f"{where} holds {len(words)} numbers; expected {LANDMARKS} lines of x and y, then "
            f"{', '.join(GROUPS)}. Fetch it again."
        )
    points = [_finite(word, where) for word in words[: 2 * LANDMARKS]]
    groups = {
        name: whole_number(word, where, f"the {name}", range(len(values)))
        for (name, values), word in zip(GROUPS.items(), words[2 * LANDMARKS :], strict=True)
    }
    return np.array(points, np.float32).reshape(LANDMARKS, 2), groups


def _parse_box(files: SourceFiles, path: str) -> tuple[float, ...]:
    where = files.where(path)
    words = [word for _, line in read_words(files, path) for word in line]
    box = tuple(_finite(word, where) for word in words)
    if len(box) != 4 or box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(
            f"{where} holds '{' '.join(words)[:60]}'; expected left, top, right and bottom in "
            "pixels. Fetch it again."
        )
    return box


def _finite(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not abs(value) <= _MOST_PIXELS:  # NaN is not, either
        raise UserError(
            f"{where}: found '{word[:40]}'; expected a number of pixels. Fetch it again."
        )
    return value
