"""Finds the class folders in a user's tree of images, and what the classes are.

Two trees are known: `train/<class>/1.jpg` with `test/<class>/1.jpg`, and `<class>/1.jpg` alone.
Anything else is refused, since a wrong guess would train without an error.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from data_builders.common.source_files import IMAGE_SUFFIXES, SPLIT_FOLDERS, SourceFiles
from data_builders.common.survey import check_text, some
from dmfer_jax.errors import UserError
from dmfer_jax.labels import parse_expression

_EXPECTED = (
    "Expected class folders with images directly in them: train/happy/1.jpg and test/happy/1.jpg, "
    "or happy/1.jpg alone, with or without folders above"
)
# Files and folders that stand in datasets which have builders of their own.
_OTHER_DATASETS = {
    "list_patition_label.txt": "rafdb",
    "manually_annotated_images": "affectnet",
    "fer2013new.csv": "ferplus",
}


class ClassFolder(NamedTuple):
    """A folder with the images of one class in one split.

    Attributes:
      split: "train", "valid" or "test"; "" where the source has class folders alone.
      name: of the folder, as written, without white space around it.
      path: in the source.
    """

    split: str
    name: str
    path: str


def find_class_folders(files: SourceFiles) -> list[ClassFolder]:
    """Returns the class folders, by split and name.

    Raises:
      UserError: there are none, or they lie in several places, or it is another dataset.
    """
    _refuse_other_datasets(files)
    with_images = [folder for folder in files.folders() if images_in(files, folder)]
    if not with_images:
        raise UserError(f"{files.source} holds no images; {files.describe()}. {_EXPECTED}.")
    found = [place for folder in with_images if (place := _in_a_split(folder))]
    if not found:
        above = {str(parent) for path in with_images for parent in PurePosixPath(path).parents}
        found = [
            ClassFolder("", _name_of(folder), folder)
            for folder in with_images
            if folder not in {"", *above}
            and PurePosixPath(folder).name.lower() not in SPLIT_FOLDERS
        ]
    if not found:
        raise UserError(
            f"{files.source} holds images in no class folder; they lie in "
            f"{some([folder or 'the source itself' for folder in with_images])}. {_EXPECTED}."
        )
    _refuse_several_places(files, found)
    return sorted(found)


def images_in(files: SourceFiles, folder: str) -> list[str]:
    """Returns the names of the images directly in a folder, sorted."""
    return [name for name in files.names_in(folder) if name.lower().endswith(IMAGE_SUFFIXES)]


def name_classes(
    files: SourceFiles, folders: Sequence[ClassFolder]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the class names in label order, and the class name of each folder name.

    Where all folders are named by expressions, in any spelling, these are the classes, in
    canonical order. Else they are the user's own: as written, sorted.

    Raises:
      UserError: there is one class only, or one in two folders, or none to train on; or folders
        are named by numbers, whose order nobody could know.
    """
    written = sorted({folder.name for folder in folders})
    if numbers := [name for name in written if name.isdigit()]:
        raise UserError(
            f"{files.source}: class folders are named by numbers ({some(numbers)}), and each "
            "dataset counts in an order of its own. For RAF-DB use --dataset=rafdb; else rename "
            "them to what they mean (happy, sad, ...). Of AffectNet copies in several orders go "
            "round: its own is 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 anger, "
            "7 contempt; others count by the alphabet."
        )
    for name in written:
        check_text(name)
    if wrong := [name for name in written if len(name.splitlines()) != 1]:
        raise UserError(f"{files.source}: {wrong[0]!r} cannot name a class. Rename the folder.")
    if not _unknown_expressions(written):
        expressions = {name: _parse(name) for name in written}
        classes = {name: expression.name.lower() for name, expression in expressions.items()}
        ordered = [expression.name.lower() for expression in sorted(set(expressions.values()))]
    else:
        classes, ordered = {name: name for name in written}, written
    if len(ordered) < 2:
        raise UserError(
            f"{files.source} has one class only, '{ordered[0]}'; there is nothing to tell apart. "
            f"{_EXPECTED}."
        )
    _check_splits(files, folders, classes)
    return tuple(ordered), classes


def describe_classes(class_names: Sequence[str]) -> list[str]:
    """Returns what to say of classes that are not all expressions; nothing where they are."""
    unknown = _unknown_expressions(class_names)
    if not unknown or len(unknown) == len(class_names):
        return []
    return [
        f"The classes are taken as your own, by alphabet, since {some(unknown)} "
        f"{'is' if len(unknown) == 1 else 'are'} no expression known here. Check the spelling."
    ]


def images_outside(files: SourceFiles, folders: Sequence[ClassFolder]) -> list[str]:
    """Returns what lies beside the class folders and should not, a sentence each."""
    problems = []
    inside = {folder.path for folder in folders}
    outside = [
        f"{folder}/{name}".strip("/")
        for folder in files.folders()
        if folder not in inside
        for name in images_in(files, folder)
    ]
    if outside:
        problems.append(
            f"images that lie in no class folder ({some(outside)}); move them into one, or away"
        )
    parents = {folder.path.rpartition("/")[0] for folder in folders}
    problems += [
        f"class folder {path} holds no image of a kind that is read ({', '.join(IMAGE_SUFFIXES)})"
        for path in sorted({*files.folders(), *files.empty_folders})
        if path and path.rpartition("/")[0] in parents and not images_in(files, path)
    ]
    return problems


def other_files(files: SourceFiles, folders: Sequence[ClassFolder], known: str) -> list[str]:
    """Returns a note of the files in class folders that are no images; `known` is not one."""
    suffixes = Counter(
        PurePosixPath(name).suffix.lower() or name
        for folder in folders
        for name in files.names_in(folder.path)
        if not name.lower().endswith(IMAGE_SUFFIXES) and f"{folder.path}/{name}" != known
    )
    if not suffixes:
        return []
    kinds = ", ".join(f"{suffix} {number:,}" for suffix, number in suffixes.most_common(5))
    return [f"Files that are not read as images are left out: {kinds}."]


def _in_a_split(folder: str) -> ClassFolder | None:
    parts = PurePosixPath(folder).parts
    if len(parts) < 2 or parts[-2].strip().lower() not in SPLIT_FOLDERS:
        return None
    return ClassFolder(SPLIT_FOLDERS[parts[-2].strip().lower()], _name_of(folder), folder)


def _name_of(folder: str) -> str:
    return composed(PurePosixPath(folder).name.strip())


def _refuse_other_datasets(files: SourceFiles) -> None:
    for path in files:
        for part in path.lower().split("/"):
            if dataset := _OTHER_DATASETS.get(part):
                raise UserError(
                    f"{files.where(path)} belongs to a dataset with rules of its own: use "
                    f"--dataset={dataset}, which knows its labels and splits. (If these are your "
                    "own images, remove it.)"
                )
        if path.lower().endswith("_exp.npy"):
            raise UserError(
                f"{files.where(path)} is an annotation as AffectNet has them: use "
                "--dataset=affectnet, which reads the labels. (If these are your own images, "
                "remove it.)"
            )


def _refuse_several_places(files: SourceFiles, found: Iterable[ClassFolder]) -> None:
    places: dict[str, dict[str, str]] = {}
    for folder in found:
        places.setdefault(folder.split, {}).setdefault(folder.path.rpartition("/")[0], folder.path)
    for split, examples in places.items():
        if len(examples) > 1:
            what = f"the class folders of {split}" if split else "folders with images"
            raise UserError(
                f"{files.source}: {what} lie in {len(examples):,} places, such as "
                f"{some(list(examples.values()), 3)}. {_EXPECTED}, all in one place. Give the "
                "folder that is meant as --source."
            )


def _check_splits(
    files: SourceFiles, folders: Sequence[ClassFolder], classes: dict[str, str]
) -> None:
    owners: dict[tuple[str, str], str] = {}
    for folder in folders:
        path = owners.setdefault((folder.split, classes[folder.name]), folder.path)
        if path != folder.path:
            raise UserError(
                f"{files.source}: {path} and {folder.path} name the same class. Put their images "
                "into one folder."
            )
    splits = {folder.split for folder in folders}
    if splits == {""}:
        return
    if "train" not in splits:
        raise UserError(
            f"{files.source} has {' and '.join(sorted(splits))} and no train. Add train/, or give "
            "the class folders alone, to be divided by a fraction."
        )
    for (split, name), path in owners.items():
        if ("train", name) not in owners:
            trained = [name for place, name in owners if place == "train"]
            raise UserError(
                f"{files.source}: {path} is a class that train has not; it has {some(trained, 8)}. "
                f"No model could learn it; rename the folder, or remove it from {split}."
            )


def _unknown_expressions(names: Iterable[str]) -> list[str]:
    unknown = []
    for name in names:
        try:
            _parse(name)
        except ValueError:
            unknown.append(name)
    return unknown


def _parse(name: str):
    return parse_expression(re.sub(r"[\s_]+", " ", name))


def composed(name: str) -> str:
    """Returns a name with accents as most systems write them, whichever wrote it."""
    return unicodedata.normalize("NFC", name)
