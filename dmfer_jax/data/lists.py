"""The occlusion and pose lists published with RAN, read in every form that they are written in.

The lists say which test images of FERPlus, RAF-DB and AffectNet show a covered or a turned face.
They carry no licence, so they are read from wherever the user keeps them, as they were published.
Every list writes names and labels in a form of its own; here all become the source's own name
without its extension, and a canonical expression.

Source: Wang et al., "Region Attention Networks for Pose and Occlusion Robust Facial Expression
Recognition", IEEE TIP 2020, and the lists published with it.
"""

import codecs
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dmfer_jax.errors import UserError
from dmfer_jax.labels import AFFECTNET, RAFDB_LIST, Expression

PUBLISHED_COUNTS: dict[str, dict[str, int]] = {
    "ferplus": {"occlusion": 605, "pose_30": 1_170, "pose_45": 633},
    "rafdb": {"occlusion": 734, "pose_30": 1_247, "pose_45": 558},
    "affectnet": {"occlusion": 683, "pose_30": 1_944, "pose_45": 983},
}
"""Distinct names in each list as published."""


class Entry(NamedTuple):
    """One image of a list.

    Attributes:
      key: the source's name of the image without folder and extension, such as "fer0034656",
        "test_0004" or AffectNet's hash.
      label: what the list says the face shows.
      occlusion: the list's number for what covers the face, FERPlus 0 to 3 and RAF-DB 1 to 4;
        None in lists that give none.
    """

    key: str
    label: Expression
    occlusion: int | None


@dataclass(frozen=True)
class NamedList:
    """One list, its repeated lines counted once.

    Attributes:
      dataset: "ferplus", "rafdb" or "affectnet".
      name: "occlusion", "pose_30" or "pose_45" (turned by at least so many degrees).
      entries: the distinct images, in the list's order.
      lines: how many lines the file has.
      repeated: the lines, counted from 1, that name an image of an earlier line again.
    """

    dataset: str
    name: str
    entries: tuple[Entry, ...]
    lines: int
    repeated: tuple[int, ...]

    @property
    def published(self) -> int:
        """How many distinct names this list has as published."""
        return PUBLISHED_COUNTS[self.dataset][self.name]


class _Form(NamedTuple):
    """How one file is written: its line's groups are `label`, `key` and perhaps `type`."""

    dataset: str
    name: str
    line: re.Pattern[str]
    example: str
    label_file: str | None = None


_FERPLUS_POSE = re.compile(r"(?P<label>\d+)/(?P<key>fer\d{7})\.jpg")
_RAFDB_POSE = re.compile(r"(?P<label>\d+)/(?P<key>test_\d+)_aligned\.jpg")
# Each of the three lists uses another of these forms, and each form can only mean one thing.
_AFFECTNET = re.compile(r"(?:val/)?(?P<label>\d+)/(?P<key>[0-9a-f]{56})(?:/|\.jpg|/8\.jpg)")

_FORMS: dict[str, _Form] = {
    "jianfei_occlusion_list.txt": _Form(
        "ferplus",
        "occlusion",
        re.compile(r"(?P<label>\d+)_(?P<key>fer\d{7})\.png 8 (?P<type>\d+)"),
        "1_fer0034656.png 8 0",
    ),
    "pose_30_ferplus_list.txt": _Form("ferplus", "pose_30", _FERPLUS_POSE, "0/fer0032226.jpg"),
    "pose_45_ferplus_list.txt": _Form("ferplus", "pose_45", _FERPLUS_POSE, "0/fer0032226.jpg"),
    "rafdb_occlusion_list.txt": _Form(
        "rafdb",
        "occlusion",
        re.compile(r"(?P<key>test_\d+)_aligned (?P<label>\d+) (?P<type>\d+)"),
        "test_0003_aligned 3 4",
    ),
    "val_raf_db_list.txt": _Form(
        "rafdb", "pose_30", _RAFDB_POSE, "0/test_0004_aligned.jpg", "val_raf_db_label.txt"
    ),
    "val_raf_db_list_45.txt": _Form(
        "rafdb", "pose_45", _RAFDB_POSE, "0/test_0004_aligned.jpg", "val_raf_db_label_45.txt"
    ),
    "occlusion_affectnet_list.txt": _Form(
        "affectnet", "occlusion", _AFFECTNET, "val/0/<56 digits and letters a-f>/"
    ),
    "pose_30_affectnet_list.txt": _Form(
        "affectnet", "pose_30", _AFFECTNET, "0/<56 digits and letters a-f>.jpg"
    ),
    "pose_45_affectnet_list.txt": _Form(
        "affectnet", "pose_45", _AFFECTNET, "7/<56 digits and letters a-f>/8.jpg"
    ),
}
"""The files as published; which list it is, only the name tells."""

_LABELS: dict[str, Sequence[Expression]] = {
    "ferplus": tuple(Expression),
    "rafdb": RAFDB_LIST,  # counted from 0 here, unlike in RAF-DB's own list file
    "affectnet": AFFECTNET,
}
_TYPES = {"ferplus": range(0, 4), "rafdb": range(1, 5)}
_LARGEST = 2**22  # bytes; the published lists have at most 123 thousand


def read_lists(folder: str | Path, dataset: str | None = None) -> list[NamedList]:
    """Reads the lists that a folder holds.

    Args:
      folder: with one dataset's lists, or with a folder for each dataset, or one list file.
      dataset: reads the lists of this one only, whether or not the others can be read; a variant
        behind a slash does not matter.

    Returns:
      The lists, those of a dataset together: occlusion, pose_30, pose_45.

    Raises:
      UserError: there is no list, a list of the same name stands twice, a file or line is not in
        the published form, a label or type is out of range, a name has two labels, or a RAF-DB
        label file contradicts the list beside it.
    """
    folder = Path(os.path.expanduser(folder))
    dataset = without_variant(dataset) if dataset else None
    if dataset and dataset not in PUBLISHED_COUNTS:
        raise UserError(
            f"the lists published with RAN are of {', '.join(PUBLISHED_COUNTS)}; there are none "
            f"of '{dataset}'"
        )
    found = _find(folder)
    datasets = [name for name in PUBLISHED_COUNTS if name in {form.dataset for _, form in found}]
    if dataset and dataset not in datasets:
        raise UserError(
            f"{folder}: found lists of {', '.join(datasets)}, expected those of '{dataset}'"
        )
    return [_read(path, form) for path, form in found if dataset in (None, form.dataset)]


def _find(folder: Path) -> list[tuple[Path, _Form]]:
    """The list files of a folder and the folders in it, in the order of `_FORMS`."""
    expected = f"expected one or more of {', '.join(_FORMS)}"
    if folder.is_file():
        if folder.name not in _FORMS:
            raise UserError(f"{folder}: no list of RAN has this name, {expected}")
        return [(folder, _FORMS[folder.name])]
    try:
        folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}), {expected}") from None
    found = []
    for name, form in _FORMS.items():
        paths = [path / name for path in folders if (path / name).is_file()]
        if len(paths) > 1:
            raise UserError(
                f"{folder}: found {name} twice, {paths[0]} and {paths[1]}; give the folder of one"
            )
        found += [(path, form) for path in paths]
    if not found:
        raise UserError(f"{folder}: found no list in it or in the folders in it, {expected}")
    return found


def _read(path: Path, form: _Form) -> NamedList:
    rows = _read_rows(path)
    entries = [_parse(path, number, row, form) for number, row in enumerate(rows, start=1)]
    first: dict[str, int] = {}  # key: the line that names it first
    repeated = []
    for number, entry in enumerate(entries, start=1):
        earlier = first.setdefault(entry.key, number)
        if earlier == number:
            continue
        said = entries[earlier - 1].label
        if said != entry.label:
            raise UserError(
                f"{path}, row {number}: found {entry.key} as {entry.label.name.lower()}, and as "
                f"{said.name.lower()} in row {earlier}; get the list again as published, or "
                "remove the wrong row"
            )
        repeated.append(number)
    if form.label_file:
        _check_label_file(path.with_name(form.label_file), path, entries)
    return NamedList(
        dataset=form.dataset,
        name=form.name,
        entries=tuple(entries[number - 1] for number in first.values()),
        lines=len(rows),
        repeated=tuple(repeated),
    )


def _parse(path: Path, number: int, row: str, form: _Form) -> Entry:
    match = form.line.fullmatch(row)
    if not match:
        raise UserError(
            f"{path}, row {number}: found {row[:80]!r}, expected a line such as '{form.example}'"
        )
    parts = match.groupdict()
    labels = _LABELS[form.dataset]
    index = _parse_index(path, number, "label", parts["label"], range(len(labels)))
    kind = parts.get("type")
    types = _TYPES.get(form.dataset, range(0))
    return Entry(
        key=parts["key"],
        label=labels[index],
        occlusion=None if kind is None else _parse_index(path, number, "type", kind, types),
    )


def _parse_index(path: Path, number: int, what: str, digits: str, allowed: range) -> int:
    # Compared as text: Python refuses to read a number of thousands of digits.
    if digits not in map(str, allowed):
        raise UserError(
            f"{path}, row {number}: found {what} {digits[:20]}, expected {allowed[0]} to "
            f"{allowed[-1]}"
        )
    return int(digits)


def _check_label_file(path: Path, list_path: Path, entries: Sequence[Entry]) -> None:
    """Refuses a label file that does not say what the list beside it says."""
    if not path.is_file():
        return
    header, *rows = _read_rows(path)
    classes = len(RAFDB_LIST)
    if header.split() != [str(len(entries)), str(classes)]:
        raise UserError(
            f"{path}, row 1: found {header[:80]!r}, expected '{len(entries)} {classes}', the lines "
            f"of {list_path.name} and the classes; get both files again as published"
        )
    if len(rows) != len(entries):
        raise UserError(
            f"{path}, row {len(rows) + 1}: found {len(rows)} labels below the first row, expected "
            f"{len(entries)}, one for each line of {list_path.name}"
        )
    for number, (row, entry) in enumerate(zip(rows, entries, strict=True), start=2):
        index = RAFDB_LIST.index(entry.label)
        if row.strip() != str(index):
            raise UserError(
                f"{path}, row {number}: found label {row[:20]!r}, expected {index}, which row "
                f"{number - 1} of {list_path.name} has for {entry.key}; get both files again as "
                "published"
            )


def _read_rows(path: Path) -> list[str]:
    """The lines of a small text file; empty ones at its end are left away."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if size > _LARGEST:
        raise UserError(f"{path}: found {size:,} bytes, expected a list of less than {_LARGEST:,}")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {row}: found the byte 0x{content[error.start]:02x}, expected plain text; "
            "get the file again as published"
        ) from None
    if not text.strip():
        raise UserError(f"{path}: is empty, expected one line for each image")
    return [row.rstrip(" ") for row in re.split(r"\r\n|\r|\n", text.rstrip())]


def without_variant(dataset: str) -> str:
    """Returns a dataset's name without what stands behind the slash."""
    return dataset.partition("/")[0]
