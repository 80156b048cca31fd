"""Surveys a user's images: which are there, of which class, and which go into which split."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_builders.common.division import mixed_order
from data_builders.common.source_files import IMAGE_SUFFIXES, SourceFiles
from data_builders.common.survey import Rows, Survey, some
from data_builders.folder import class_folders, division
from dmfer_jax.errors import UserError

SPLITS: tuple[str, ...] = ("train", "valid", "test")

_ARCHIVE_ENDINGS = r"\.(zip|tar|tar\.gz|tgz)$"


class Image(NamedTuple):
    """An image file.

    Attributes:
      split: one of `SPLITS`; "" where the source does not say.
      class_name: of its folder.
      name: its path from the folder that the splits or classes lie in: "train/happy/1.jpg".
      file: its path in the source.
    """

    split: str
    class_name: str
    name: str
    file: str


def survey_folder(
    files: SourceFiles, variant: str, test_fraction: float, valid_fraction: float, groups: str
) -> Survey:
    """Returns what a folder of class folders holds; see `Builder.survey`."""
    if not (0 <= test_fraction < 1 and 0 <= valid_fraction < 1 - test_fraction):
        raise UserError(
            f"a test fraction of {test_fraction} and a valid fraction of {valid_fraction} leave "
            "nothing to train on, or are below 0. Give two numbers such as 0.2 and 0.1."
        )
    dataset = _dataset_name(files, variant)
    folders = class_folders.find_class_folders(files)
    class_names, classes = class_folders.name_classes(files, folders)
    images = _list_images(files, folders, classes)
    given = {image.split for image in images} - {""}
    groups_file = division.find_groups_file(files, groups)
    notes = [
        *class_folders.describe_classes(class_names),
        *class_folders.other_files(files, folders, groups_file or ""),
    ]
    problems = [*class_folders.images_outside(files, folders), *_same_names(images)]
    if broken := [path for path in files.broken if path.lower().endswith(IMAGE_SUFFIXES)]:
        problems.append(f"links that lead to no image, left out: {some(broken)}")
    groups_of = None
    if groups_file:
        groups_of = division.read_groups(files, groups_file, [image.file for image in images])
        problems += _groups_in_two(images, groups_of)

    fractions = {"test": test_fraction, "valid": valid_fraction}
    shares = {
        split: share for split, share in fractions.items() if share > 0 and split not in given
    }
    split_of = _divide(files, images, shares, groups_of, class_names)
    notes += _describe_division(images, split_of, shares, groups_of)
    splits = {
        split: _rows([i for i, s in zip(images, split_of, strict=True) if s == split], class_names)
        for split in SPLITS
        if split in split_of
    }
    found = Survey(
        layout=f"class folders in {_listed(given)}" if given else "class folders",
        variant=dataset,
        class_names=class_names,
        splits=splits,
        notes=notes,
        problems=problems,
    )
    _check_classes(files, found)
    return found


def _dataset_name(files: SourceFiles, variant: str) -> str:
    if variant:
        if not re.fullmatch("[A-Za-z0-9_-]{1,100}", variant):
            raise UserError(
                f"{variant!r:.120} cannot name a dataset; up to 100 letters, digits, _ and - can, "
                "as in --dataset=folder/my_faces."
            )
        return variant
    source = files.source
    if source.is_dir():
        name = source.resolve().name
    elif files.archives[:1] == [source.name]:
        name = re.sub(_ARCHIVE_ENDINGS, "", source.name, flags=re.IGNORECASE)
    else:  # a file that stands for its folder
        name = source.resolve().parent.name
    return re.sub("[^A-Za-z0-9_-]+", "_", name).strip("_")[:100] or "faces"


def _list_images(
    files: SourceFiles, folders: Sequence[class_folders.ClassFolder], classes: dict[str, str]
) -> list[Image]:
    """Returns all images in an order in which classes are mixed.

    So that the first so many of them, which `data.limit` takes, are of every class.
    """
    images = []
    for folder in folders:
        path = folder.path.split("/")
        start = "/".join(path[-2:] if folder.split else path[-1:])
        for name in class_folders.images_in(files, folder.path):
            file = f"{folder.path}/{name}"
            images.append(Image(folder.split, classes[folder.name], f"{start}/{name}", file))
    return [images[position] for position in mixed_order([image.name for image in images])]


def _same_names(images: Sequence[Image]) -> list[str]:
    """Returns the problems of images of one name and class that stand in two splits."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for image in images:
        splits_of[f"{image.class_name}/{image.file.rpartition('/')[2]}"].add(image.split)
    twice: dict[str, list[str]] = defaultdict(list)
    for name, splits in sorted(splits_of.items()):
        if len(splits) > 1:
            twice[_listed(splits)].append(name)
    return [
        f"{some(names)} {'stand' if len(names) > 1 else 'stands'} in {splits}; if these are "
        "different faces, add --allow_mismatch"
        for splits, names in twice.items()
    ]


def _groups_in_two(images: Sequence[Image], groups_of: Sequence[str]) -> list[str]:
    """Returns the problem of groups that the source itself has in two splits."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for image, group in zip(images, groups_of, strict=True):
        splits_of[group].add(image.split)
    twice = sorted(group for group, splits in splits_of.items() if len(splits) > 1)
    if not twice:
        return []
    return [
        f"images of one group stand in several splits (groups {some(twice)}), so a model is "
        "scored on people that it was trained on"
    ]


def _divide(
    files: SourceFiles,
    images: Sequence[Image],
    shares: dict[str, float],
    groups_of: Sequence[str] | None,
    class_names: Sequence[str],
) -> list[str]:
    """Returns the split of each image; `shares` are taken of what the source gives to train."""
    to_divide = [index for index, image in enumerate(images) if image.split in ("", "train")]
    split_of = [image.split or "train" for image in images]
    if groups_of is not None:
        sets = {"groups": [(index, groups_of[index]) for index in to_divide]}
    else:
        sets = {
            f"images of '{name}'": [
                # Without the split's folder, so that an image falls where it would without it.
                (index, "/".join(images[index].name.split("/")[-2:]))
                for index in to_divide
                if images[index].class_name == name
            ]
            for name in class_names
        }
    for what, members in sets.items():
        try:
            divided = division.divide([unit for _, unit in members], shares)
        except ValueError:
            number = len({unit for _, unit in members})
            raise UserError(
                f"{files.source}: too few {what} ({number:,}) to be divided into "
                f"{_listed({'train', *shares})}. Add some, or make the folders "
                f"{' and '.join(f'{split}/' for split in shares)} yourself, or do without: "
                f"{' '.join(f'--{split}_fraction=0' for split in shares)}."
            ) from None
        for index, unit in members:
            split_of[index] = divided[unit]
    return split_of


def _describe_division(
    images: Sequence[Image],
    split_of: Sequence[str],
    shares: dict[str, float],
    groups_of: Sequence[str] | None,
) -> list[str]:
    if not shares:
        return []
    taken = " and ".join(f"{split} (about {100 * share:g} %)" for split, share in shares.items())
    if groups_of is None:
        return [
            f"{taken} {'are' if len(shares) > 1 else 'is'} taken by file name, since the source "
            f"has no {' and no '.join(shares)} folder. Faces of one person may stand in several "
            "splits, which makes scores too high; a groups.csv (image,group) prevents it."
        ]
    groups: dict[str, set[str]] = defaultdict(set)
    for split, group in zip(split_of, groups_of, strict=True):
        groups[split].add(group)
    numbers = Counter(split_of)
    return [
        f"{taken} {'are' if len(shares) > 1 else 'is'} taken by group, none in two: "
        + ", ".join(
            f"{split} {len(groups[split]):,} groups, {numbers[split]:,} images"
            for split in SPLITS
            if split in groups
        )
        + f" (of {len(images):,})."
    ]


def _rows(images: Sequence[Image], class_names: Sequence[str]) -> Rows:
    return Rows(
        names=[image.name for image in images],
        files=[image.file for image in images],
        labels=np.array([class_names.index(image.class_name) for image in images], np.int64),
    )


def _check_classes(files: SourceFiles, found: Survey) -> None:
    """Notes classes that a split lacks.

    Raises:
      UserError: train lacks one, since all its images fell into another split.
    """
    for split in found.splits:
        counts = zip(found.class_names, found.counts(split), strict=True)
        missing = [name for name, count in counts if not count]
        if missing and split == "train":
            raise UserError(
                f"{files.source}: no image of {some(missing)} is left to train on, since all their "
                "groups fell into another split. Add images of other people, or make the folders "
                "train/ and test/ yourself."
            )
        if missing:
            found.notes.append(f"{split} has no image of {some(missing, 8)}.")


def _listed(splits: set[str]) -> str:
    """Returns "train, valid and test" of a set of splits, in that order."""
    names = [split for split in SPLITS if split in splits]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
