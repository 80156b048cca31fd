"""Finds the images that a listing speaks of, by name, wherever they lie."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data_builders.common.source_files import IMAGE_SUFFIXES, SourceFiles
from data_builders.common.survey import some
from data_builders.rafdb.listing import Listing, image_key, image_kind, of_compound_set
from dmfer_jax.errors import UserError

_KINDS = {"aligned": "aligned", "original": "original", "original_cropped": "original"}
"""Variant -> the kind of images that it is made of."""


class ChosenImages(NamedTuple):
    """The images to build from.

    Attributes:
      variant: the builder's config that they make.
      paths: {"train_00001": where it lies}, of the images that are listed and there.
      notes: what a user should know, a sentence each.
      problems: images that are listed or there, but not both.
    """

    variant: str
    paths: dict[str, str]
    notes: list[str]
    problems: list[str]


def find_images(files: SourceFiles) -> list[str]:
    """Returns the paths of the images in a source, sorted; those of the compound set are not."""
    return sorted(p for p in files if p.lower().endswith(IMAGE_SUFFIXES) and not of_compound_set(p))


def choose_images(files: SourceFiles, listing: Listing, variant: str) -> ChosenImages:
    """Finds the listed images of a variant.

    Args:
      files: the source.
      listing: what its labels say.
      variant: "aligned", "original" or "original_cropped"; "" is aligned where there are some.

    Raises:
      UserError: none of the listed images is there, or none of this variant.
    """
    if variant not in ("", *_KINDS):
        raise UserError(f"RAF-DB has no variant '{variant}'; it has {', '.join(_KINDS)}.")
    keys = [entry.key for entry in listing.entries]
    listed = set(keys)
    paths = [path for path in listing.images if image_key(path) in listed]
    if not paths:
        raise UserError(
            f"{files.source}: {listing.layout} was found, but none of its {len(keys):,} images "
            f"({keys[0]}_aligned.jpg, {keys[0]}.jpg, ...): {files.describe()}. Put the images "
            "(Image/aligned or Image/original, zipped or not) beside the labels."
        )
    kinds = Counter(image_kind(path) for path in paths)
    asked = _KINDS[variant] if variant else ""
    unmarked = listing.unmarked if not asked or asked in kinds else asked
    kinds[unmarked] += kinds.pop("", 0)
    variant = variant or ("aligned" if kinds["aligned"] else "original")
    wanted = _KINDS[variant]
    if not kinds[wanted]:
        other = "original" if wanted == "aligned" else "aligned"
        raise UserError(
            f"{files.source} has no {wanted} images, only {other} ones. Build --dataset=rafdb/"
            f"{other}, or fetch Image/{wanted}.zip from RAF-DB's owners."
        )
    found, repeated = _by_key(path for path in paths if (image_kind(path) or unmarked) == wanted)
    found = {key: found[key] for key in keys if key in found}
    notes = _notes(found, kinds, wanted, repeated)
    return ChosenImages(variant, found, notes, _problems(listing, listed, found, keys))


def _by_key(paths: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Returns {key: path}, and the paths that repeat a key."""

    def elsewhere(path: str) -> bool:
        return f"/{path.lower()}".split("/")[-2] not in ("aligned", "original")

    found: dict[str, str] = {}
    repeated = []
    for path in sorted(paths, key=lambda path: (elsewhere(path), path)):
        if found.setdefault(image_key(path), path) != path:
            repeated.append(path)
    return found, repeated


def _notes(
    found: dict[str, str], kinds: Counter[str], wanted: str, repeated: Sequence[str]
) -> list[str]:
    notes = []
    unmarked = sum(not image_kind(path) for path in found.values())
    if unmarked and wanted == "aligned":
        notes.append(
            f"Neither names nor folders say whether {unmarked:,} images are aligned; they are "
            "taken to be. If they are not, build --dataset=rafdb/original."
        )
    other = "original" if wanted == "aligned" else "aligned"
    if kinds[other]:
        notes.append(f"There are {other} images as well: --dataset=rafdb/{other} builds them.")
    if repeated:
        notes.append(f"Images that lie in a second place, not taken: {some(repeated, 3)}.")
    return notes


def _problems(
    listing: Listing, listed: set[str], paths: dict[str, str], keys: Sequence[str]
) -> list[str]:
    problems = []
    if missing := [key for key in keys if key not in paths]:
        problems.append(f"Images that are listed and not there: {some(missing)}.")
    folders = {path.rpartition("/")[0] for path in paths.values()}
    unlisted = [
        path
        for path in listing.images
        if path.rpartition("/")[0] in folders and image_key(path) not in listed
    ]
    if unlisted:
        problems.append(f"Images that are there and not listed, left out: {some(unlisted)}.")
    return problems
