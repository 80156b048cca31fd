"""Reads AffectNet's release of 2021: cropped faces, and four small files of annotation for each.

train_set/images/12.jpg    train_set/annotations/12_exp.npy, 12_val.npy, 12_aro.npy, 12_lnd.npy
val_set/images/7.jpg       val_set/annotations/7_exp.npy, ...
"""

from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from data_builders.affectnet.affect import check_affect
from data_builders.affectnet.compact_names import Prefixed
from data_builders.affectnet.npy_numbers import read_number
from data_builders.common.source_files import IMAGE_SUFFIXES, SourceFiles
from data_builders.common.survey import Rows, some
from dmfer_jax.errors import UserError
from dmfer_jax.labels import AFFECTNET

TRAIN_SET, VALIDATION_SET = "train_set", "val_set"
"""The folders of the two sets."""

_EXPRESSION, _VALENCE, _AROUSAL = "_exp.npy", "_val.npy", "_aro.npy"


def find_sets(files: SourceFiles) -> dict[str, str]:
    """Returns {`TRAIN_SET`: its folder, `VALIDATION_SET`: its folder}, of those that are there.

    Raises:
      UserError: a set is there twice.
    """
    found: dict[str, str] = {}
    for folder in files.folders():
        path = PurePosixPath(folder)
        if path.name.lower() != "annotations":
            continue
        above = "" if len(path.parts) == 1 else str(path.parent)
        # A user may point at one of the sets, or at an archive of it.
        name = (PurePosixPath(above).name or files.source.name.split(".")[0]).lower()
        if name not in (TRAIN_SET, VALIDATION_SET):
            continue
        if name in found:
            raise UserError(
                f"{files.source} holds {name} twice, in '{found[name]}' and in '{above}'. Take one "
                "of them away, or give the folder that holds only one."
            )
        found[name] = above
    # Wherever they lie: of equal images the one to train on is the first.
    return {name: found[name] for name in (TRAIN_SET, VALIDATION_SET) if name in found}


def without_annotations(files: SourceFiles, sets: dict[str, str]) -> list[str]:
    """Returns what to say of a set that has images and no annotations at all.

    Args:
      files: the source.
      sets: of `find_sets`.
    """
    problems = []
    for folder in files.folders():
        above, _, name = folder.lower().rpartition("/")
        if name == "images" and above.rpartition("/")[2] in {TRAIN_SET, VALIDATION_SET} - {*sets}:
            number = sum(file.lower().endswith(IMAGE_SUFFIXES) for file in files.names_in(folder))
            problems.append(f"{folder}: {number:,} images have no folder annotations/ beside them")
    return problems


def read_set(files: SourceFiles, name: str, folder: str) -> tuple[Rows, list[str], list[str]]:
    """Reads the annotations of a set.

    Args:
      files: the source.
      name: `TRAIN_SET` or `VALIDATION_SET`.
      folder: where it lies.

    Returns:
      Its images in the order of their numbers, notes, and problems; see `Survey`.

    Raises:
      UserError: an annotation cannot be read or has a value that is not allowed.
    """
    images, annotations = (_inside(files, folder, inside) for inside in ("images", "annotations"))
    there = [file for file in files.names_in(images) if file.lower().endswith(IMAGE_SUFFIXES)]
    names = [
        file
        for file in sorted(there, key=len)  # 9 before 10
        if f"{annotations}/{_stem(file)}{_EXPRESSION}" in files
    ]
    problems = _problems(files, images, there, annotations, len(names))

    labels = np.empty(len(names), np.int64)
    affect = {suffix: np.full(len(names), np.nan, np.float32) for suffix in (_VALENCE, _AROUSAL)}
    missing: Counter[str] = Counter()
    for index, file in enumerate(names):
        stem = _stem(file)
        labels[index] = _label(files, f"{annotations}/{stem}{_EXPRESSION}")
        for suffix, values in affect.items():
            if (path := f"{annotations}/{stem}{suffix}") in files:
                values[index] = _affect(files, path)
            else:
                missing[suffix] += 1
    notes = [
        f"{name}: {number:,} images have no file N{suffix}; what it would hold is NaN."
        for suffix, number in missing.items()
    ]
    rows = Rows(
        names=Prefixed(f"{name}/", names),
        files=Prefixed(f"{images}/", names),
        labels=labels,
        fields={"valence": affect[_VALENCE], "arousal": affect[_AROUSAL]},
    )
    return rows, notes, problems


def forget_annotations(files: SourceFiles) -> None:
    """Drops the annotations from the source's list: four names of five, all read by now."""
    for folder in find_sets(files).values():
        files.forget(_inside(files, folder, "annotations"))


def _inside(files: SourceFiles, folder: str, name: str) -> str:
    """Returns the path of a folder of a set, however its name is spelt."""
    prefix = f"{folder}/" if folder else ""
    for path in files.folders():
        if path.lower() == f"{prefix}{name}".lower():
            return path
    return f"{prefix}{name}"


def _problems(
    files: SourceFiles, images: str, there: list[str], annotations: str, matched: int
) -> list[str]:
    """Returns what does not fit together in a set of which so many images are annotated."""
    annotated = sum(name.endswith(_EXPRESSION) for name in files.names_in(annotations))
    if matched == annotated == len(there):
        return []
    stems = [_stem(file) for file in there]
    known = set(stems)
    if len(known) < len(stems):
        seen: set[str] = set()
        twice = next(stem for stem in stems if stem in seen or seen.add(stem))
        raise UserError(
            f"{files.where(images)} holds two images for the annotation '{twice}'; remove one."
        )
    described = {
        file.removesuffix(_EXPRESSION)
        for file in files.names_in(annotations)
        if file.endswith(_EXPRESSION)
    }
    without_image = sorted(described - known)
    without_annotation = sorted(known - described)
    problems = []
    if without_image:
        problems.append(
            f"{annotations}: {len(without_image):,} annotations N{_EXPRESSION} have "
            f"no image in {images}: N = {some(without_image)}"
        )
    if without_annotation:
        problems.append(
            f"{images}: {len(without_annotation):,} images have no annotation "
            f"N{_EXPRESSION} in {annotations}: N = {some(without_annotation)}"
        )
    return problems


def _stem(file: str) -> str:
    return file.rpartition(".")[0]


def _label(files: SourceFiles, path: str) -> int:
    number = _number(files, path)
    if number not in range(len(AFFECTNET)):
        raise UserError(
            f"{files.where(path)}: the expression is {number:g}; expected 0 to "
            f"{len(AFFECTNET) - 1}."
        )
    return AFFECTNET[int(number)]


def _affect(files: SourceFiles, path: str) -> float:
    number = _number(files, path)
    return check_affect(number, f"{files.where(path)}: the value is {number:g}")


def _number(files: SourceFiles, path: str) -> float:
    content = files.read(path)
    try:
        return read_number(content)
    except ValueError as error:
        raise UserError(f"{files.where(path)} cannot be used: {error}. Fetch it again.") from error
