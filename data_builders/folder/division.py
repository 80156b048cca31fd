"""Divides images into splits by a fraction, and reads who is on which.

What decides is a hash of the image's name, or of its group (the person), and nothing else: the same
images are divided in the same way everywhere, and an image that is added moves no other one.
"""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from data_builders.common.division import place
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import some
from data_builders.common.tables import read_csv
from data_builders.folder.class_folders import composed
from dmfer_jax.errors import UserError

GROUPS_NAME = "groups.csv"


def divide(units: Iterable[str], shares: Mapping[str, float]) -> dict[str, str]:
    """Returns the split of each unit: "train", or one of those in `shares`.

    A unit falls into a split by its hash, so a share is met about, not exactly. Where units are
    so few that a split would get none, it gets the one nearest to it; only there can a unit that
    is added move another one.

    Args:
      units: what is never split: names of images of a class, or groups.
      shares: {split: what it gets of all, 0 to 1}; the rest is "train".

    Raises:
      ValueError: there are fewer units than splits.
    """
    places = sorted((place(unit), unit) for unit in set(units))
    if len(places) <= len(shares):
        raise ValueError(f"{len(places)} cannot be divided into {len(shares) + 1} splits")
    divided = {unit: "train" for _, unit in places}
    start, edge = 0, 0.0
    for splits_after, (split, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        edge += share
        end = bisect.bisect_left(places, (edge, ""))
        end = min(max(end, start + 1), len(places) - splits_after)
        divided |= {unit: split for _, unit in places[start:end]}
        start = end
    return divided


def find_groups_file(files: SourceFiles, wanted: str) -> str | None:
    """Returns the path of the table of groups.

    Args:
      files: the source.
      wanted: its path as the user gave it; "" takes a groups.csv where there is one.

    Raises:
      UserError: the file that is wanted is not there, or there are several.
    """
    if wanted:
        end = wanted.replace("\\", "/").removeprefix("./")
        found = [path for path in files if path == end or path.endswith(f"/{end}")]
        if not found:
            raise UserError(
                f"{files.source} holds no '{wanted}', which was named as the table of groups; "
                f"{files.describe()}. Put it there and give its path from the source."
            )
    else:
        found = files.find(GROUPS_NAME)
    if len(found) > 1:
        raise UserError(
            f"{files.source} holds several tables of groups: {some(sorted(found))}. Name one with "
            "--groups, or remove the others."
        )
    return found[0] if found else None


def read_groups(files: SourceFiles, path: str, images: Sequence[str]) -> list[str]:
    """Returns the group of each image.

    Args:
      files: the source.
      path: of a csv file with the columns `image` and `group`. An image may be named by its path
        from the source, or by any end of that path that belongs to one image alone.
      images: paths in the source.

    Raises:
      UserError: the table names an image that is not there, or lacks one, or gives one two groups.
    """
    owners = _owners(images)
    groups: dict[int, str] = {}
    for where, row in read_csv(files, path, ("image", "group")):
        name = composed(str(PurePosixPath(row["image"].replace("\\", "/"))))
        index = owners.get(name)
        if index is None:
            why = "stands for several images" if name in owners else "is no image of a class folder"
            raise UserError(
                f"{where}: '{row['image']}' {why}. Expected a path such as "
                f"{_ending(images[0], 2)}; correct the row or remove it."
            )
        if not row["group"]:
            raise UserError(f"{where}: '{row['image']}' has no group. Write who is on it.")
        if groups.setdefault(index, row["group"]) != row["group"]:
            raise UserError(
                f"{where}: '{row['image']}' is of group '{row['group']}', and of "
                f"'{groups[index]}' in a row before. Remove one of the two."
            )
    if len(groups) < len(images):
        missing = [image for index, image in enumerate(images) if index not in groups]
        raise UserError(
            f"{files.where(path)} has no row for {some(missing)}. Add them, or remove the images: "
            "a person must not stand in two splits, and without a row nobody knows."
        )
    return [groups[index] for index in range(len(images))]


def _owners(images: Sequence[str]) -> dict[str, int | None]:
    """Returns the image of each end of a path; None where several images share it."""
    owners: dict[str, int | None] = {}
    images = [composed(path) for path in images]
    for index, path in enumerate(images):
        for parts in range(1, path.count("/") + 2):
            end = _ending(path, parts)
            owners[end] = None if end in owners else index
    # A whole path is meant where it is written, even if it is also the end of a longer one.
    owners |= {path: index for index, path in enumerate(images)}
    return owners


def _ending(path: str, parts: int) -> str:
    return "/".join(path.split("/")[-parts:])
