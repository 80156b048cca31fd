"""Reads RAF-DB's labels from class folders: `train/1/train_00001_aligned.jpg`.

Two orders of the classes are in use for such folders, and nothing in their names tells one from
the other. How many images each holds does: the published counts differ in every class.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from data_builders.common.source_files import SPLIT_FOLDERS, SourceFiles
from data_builders.common.survey import some
from data_builders.rafdb import published
from data_builders.rafdb.listing import (
    Entry,
    Listing,
    folder_expression,
    folder_number,
    image_key,
    owners_split,
)
from dmfer_jax.errors import UserError
from dmfer_jax.labels import RAFDB_FOLDERS_MANET, RAFDB_LIST, Expression, parse_expression

FOLDER_ORDERS: dict[str, tuple[Expression, ...]] = {
    "raf": RAFDB_LIST,
    "manet": RAFDB_FOLDERS_MANET,
}
"""What `--folder_order` may be: RAF-DB's own order, or that of MA-Net and others."""

_SPLITS = ("train", "test", "valid")


class _Placed(NamedTuple):
    """An image in a class folder."""

    split: str
    folder: str
    path: str


def read_class_folders(
    files: SourceFiles, images: Sequence[str], folder_order: str = ""
) -> Listing | None:
    """Reads what the places of images in class folders say.

    Args:
      files: the source.
      images: paths of the images in it.
      folder_order: a key of `FOLDER_ORDERS`; "" tells the order by the number of images.

    Returns:
      The images sorted by split and name; None if there are no class folders.

    Raises:
      UserError: the order cannot be told; there are class folders at several places, or folders
        that stand for no class.
    """
    roots: dict[str, list[_Placed]] = {}
    for path in images:
        *above, split, folder, _ = ("", "", *path.split("/"))
        if split.lower() in SPLIT_FOLDERS and _is_class_folder(folder):
            placed = _Placed(SPLIT_FOLDERS[split.lower()], folder.lower(), path)
            roots.setdefault("/".join(above).strip("/"), []).append(placed)
    if not roots:
        return None
    if len(roots) > 1:
        raise UserError(
            f"{files.source} has class folders at several places: {some(sorted(map(repr, roots)))}"
            ". Give one of these folders as --source."
        )
    ((root, found),) = roots.items()
    # By name, as in the owners' list: so the first few records are of all classes.
    found.sort(key=lambda placed: (_SPLITS.index(placed.split), image_key(placed.path)))
    _check_all_placed(files, root, found, images)
    notes = []
    if (part := _test_under_another_name(found)) is not None:
        found = [p._replace(split="test" if p.split == "valid" else p.split) for p in found]
        notes.append(part)
    labels, order = _labels_of_folders(files, found, folder_order)
    return Listing(
        layout=f"class folders {', '.join(sorted(labels))}{f' in {root}' if root else ''}, {order}",
        entries=[
            Entry(image_key(p.path), p.split, labels[p.folder], files.where(p.path)) for p in found
        ],
        images=[placed.path for placed in found],
        unmarked="aligned",
        notes=notes,
    )


def _is_class_folder(name: str) -> bool:
    return folder_number(name) is not None or folder_expression(name) is not None


def _check_all_placed(
    files: SourceFiles, root: str, found: Sequence[_Placed], images: Sequence[str]
) -> None:
    """Raises a `UserError` if an image lies in a split's folder, but in no class folder."""
    placed = {placed.path for placed in found}
    for path in images:
        inside = path.removeprefix(f"{root}/" if root else "")
        split, _, rest = inside.partition("/")
        if (
            (not root or inside != path)
            and split.lower() in SPLIT_FOLDERS
            and rest
            and path not in placed
        ):
            raise UserError(
                f"{files.where(path)} lies in no class folder; expected such as {split}/1/ to "
                f"{split}/7/, {split}/0/ to {split}/6/, or {split}/happiness/, and images directly "
                "in them. Move it, or remove it."
            )


def _test_under_another_name(found: Sequence[_Placed]) -> str | None:
    """Returns a note if a part called valid is the test part, else None."""
    valid = [placed for placed in found if placed.split == "valid"]
    said = {owners_split(image_key(placed.path)) for placed in valid}
    if not valid or any(placed.split == "test" for placed in found) or "train" in said:
        return None
    folder = valid[0].path.split("/")[-3]
    return (
        f"There is no folder 'test'. RAF-DB has no validation part, so the {len(valid):,} images "
        f"in '{folder}' are taken as the test part."
    )


def _labels_of_folders(
    files: SourceFiles, found: Sequence[_Placed], folder_order: str
) -> tuple[dict[str, Expression], str]:
    """Returns what each class folder stands for, and how that was told, in words."""
    folders = sorted({placed.folder for placed in found})
    told = {name: folder_number(name) for name in folders}
    numbers = {name: number for name, number in told.items() if number is not None}
    if not numbers:
        names = {name: parse_expression(name) for name in folders}
        if Expression.CONTEMPT in names.values():
            raise UserError(
                f"{files.source} has a class folder of contempt, which RAF-DB does not have. "
                "Use --dataset=folder for other sets."
            )
        return names, "told by their names"
    first = 0 if 0 in numbers.values() else 1
    wrong = [n for n in folders if n not in numbers or not first <= numbers[n] < first + 7]
    if wrong:
        raise UserError(
            f"{files.source} has the class folders {', '.join(folders)}; expected 1 to 7, or 0 to "
            f"6, or names of expressions. What is {wrong[0]}?"
        )
    if folder_order == "manet" and not {0, 7} & {*numbers.values()}:
        raise UserError(
            f"{files.source} has the class folders {', '.join(folders)}, and whether they count "
            "from 0 or from 1 cannot be told. Rename them to what they mean (neutral, happy, ...)."
        )
    readings = {
        order: {name: labels[number - first] for name, number in numbers.items()}
        for order, labels in FOLDER_ORDERS.items()
    }
    if folder_order:
        return readings[folder_order], f"in the order --folder_order={folder_order}"
    fitting = [order for order, labels in readings.items() if _fits(found, labels)]
    if len(fitting) == 1:
        return readings[fitting[0]], f"in the order '{fitting[0]}', told by the published counts"
    if 7 in numbers.values():
        return readings["raf"], "in RAF-DB's own order, which counts from 1 to 7"
    raise UserError(_explain_unknown_order(files, found, readings))


def _differences(found: Sequence[_Placed], labels: dict[str, Expression]) -> list[int]:
    """Returns by how many images each part that is there differs from the published counts."""
    differences = []
    for splits, counts in ((("train", "valid"), published.TRAIN), (("test",), published.TEST)):
        have = Counter(labels[placed.folder] for placed in found if placed.split in splits)
        if have:
            pairs = zip(Expression, counts, strict=False)  # RAF-DB has no contempt
            differences.append(sum(abs(have[label] - count) for label, count in pairs))
    return differences


def _fits(found: Sequence[_Placed], labels: dict[str, Expression]) -> bool:
    return 0 in _differences(found, labels)


def _explain_unknown_order(
    files: SourceFiles, found: Sequence[_Placed], readings: dict[str, dict[str, Expression]]
) -> str:
    said = []
    for order, labels in readings.items():
        names = ", ".join(f"{folder} {label.name.lower()}" for folder, label in labels.items())
        said.append(
            f"{order} ({names}) would be {sum(_differences(found, labels)):,} images off the "
            "published counts"
        )
    return (
        f"{files.source} has class folders, but which expression is which cannot be told: two "
        f"orders are in use, and the number of images fits neither. {'; '.join(said)}. Look at a "
        "few images, and say --folder_order=raf or --folder_order=manet."
    )
