"""Writes tiny FER2013 and FER+ files in their owners' exact form, for tests.

Six rows of Training, three of PublicTest, three of PrivateTest; random pixels. Every trap of the
real files is in them: a row without a name, a name that stands in two rows, label.csv differing
from fer2013new.csv, a row with nine votes, and identical faces within and across splits.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from data_builders.ferplus import fer2013_files
from data_builders.ferplus.ferplus_dataset_builder import Builder
from tests.data_builders.packing import tar_bytes, zip_bytes

USAGES = ["Training"] * 6 + ["PublicTest"] * 3 + ["PrivateTest"] * 3
EMOTIONS = [0, 1, 2, 3, 4, 5, 6, 0, 3, 3, 6, 5]
NAMES = [
    "fer0000000.png",
    "fer0000004.png",  # stands twice: row 5 is its own, between 3 and 28638
    "fer0000002.png",
    "",  # ten people saw no face
    "fer0000003.png",
    "fer0000004.png",
    "fer0028638.png",
    "fer0028639.png",
    "fer0028640.png",
    "fer0032220.png",
    "",
    "fer0032221.png",
]
VOTES = [
    [4, 0, 0, 1, 3, 2, 0, 0, 0, 0],  # neutral has 4 of the 9 left: no majority
    [0, 6, 4, 0, 0, 0, 0, 0, 0, 0],
    [0, 9, 0, 0, 0, 0, 0, 0, 0, 0],  # nine votes
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    [5, 0, 0, 5, 0, 0, 0, 0, 0, 0],  # a tie
    [0, 0, 8, 1, 1, 0, 0, 0, 0, 0],
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],  # nothing is left
    [0, 0, 0, 0, 0, 0, 0, 7, 2, 1],
    [0, 0, 0, 2, 0, 0, 0, 0, 8, 0],  # unknown
    [6, 1, 1, 0, 2, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],
    [0, 0, 10, 0, 0, 0, 0, 0, 0, 0],
]
LABEL_VOTES = {
    # As fer2013new.csv but for one row, whose pixels are those of row 0.
    **{name: votes for name, votes in zip(NAMES, VOTES, strict=True) if name},
    "fer0000003.png": [7, 0, 0, 3, 0, 0, 0, 0, 0, 0],
}
FIRST_ROWS = [0, 1, 2, 3, 0, 5, 6, 2, 8, 9, 10, 2]
OWNED = [True, False, True, False, True, True, True, True, True, True, False, True]
"""Rows that a name belongs to; row 1 repeats the name of row 5."""

LABEL_FOLDERS = {
    "Training": "FER2013Train",
    "PublicTest": "FER2013Valid",
    "PrivateTest": "FER2013Test",
}


FORMS = [
    "fer2013.csv",
    "icml_face_data.csv",
    "fer2013.tar.gz",
    "archive.zip:fer2013.csv",
    "challenge.zip:some/folder/icml_face_data.csv",
]
"""What `write_faces` can write."""


def draw_pixels(seed: int = 0) -> np.ndarray:
    """Returns [12, 2304] random uint8 faces, equal where `FIRST_ROWS` says so."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(USAGES), 48 * 48), dtype=np.uint8)
    pixels[0, :2] = 0, 255
    return pixels[FIRST_ROWS]


def write_source(folder: Path, form: str = "fer2013.csv", **changes) -> Path:
    """Writes a whole manual folder and returns it.

    Args:
      folder: made if it is not there.
      form: see `write_faces`.
      **changes: `rows` of the faces to leave out others; `labels=False` for no label.csv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_faces(folder, form, rows=changes.get("rows"))
    write_votes(folder)
    if changes.get("labels", True):
        write_labels(folder)
    return folder


def build(source: Path | str | None, data_dir: Path) -> Builder:
    """Builds the records of a manual folder into `data_dir`."""
    builder = Builder(data_dir=str(data_dir), file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=source)
    builder.download_and_prepare(download_config=config)
    return builder


def survey(source: Path) -> Survey:
    """Returns what the builder finds in a source."""
    with SourceFiles(source) as files:
        return Builder.survey(files)


def column(found: Survey, field: str) -> list[Any]:
    """Returns a field of all rows, of all splits in order; arrays as lists."""
    every = [value for rows in found.splits.values() for value in rows.fields[field]]
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in every]


def read_faces(source: Path) -> list[fer2013_files.Face]:
    """Returns the faces that are found in a source."""
    with SourceFiles(source) as files:
        return fer2013_files.read_faces(files, fer2013_files.find_faces(files))


def faces_csv(rows: list[int] | None = None, kaggle: bool = False) -> str:
    """Returns the text of fer2013.csv, or of icml_face_data.csv."""
    pixels = draw_pixels()
    lines = ["emotion, Usage, pixels" if kaggle else "emotion,pixels,Usage"]
    for row in range(len(USAGES)) if rows is None else rows:
        text = " ".join(str(value) for value in pixels[row])
        cells = [USAGES[row], text] if kaggle else [text, USAGES[row]]
        lines.append(",".join([str(EMOTIONS[row]), *cells]))
    return "\n".join(lines) + "\n"


def write_faces(folder: Path, form: str = "fer2013.csv", rows: list[int] | None = None) -> Path:
    """Writes the faces.

    Args:
      folder: where.
      form: "fer2013.csv", "icml_face_data.csv", "fer2013.tar.gz", or "NAME.zip:MEMBER".
      rows: which rows; default all.
    """
    name, _, member = form.partition(":")
    kaggle = "icml_face_data.csv" in (name, member)
    text = faces_csv(rows, kaggle)
    path = folder / name
    if name.endswith(".tar.gz"):
        pack_tar_gz(path, {"fer2013/README": b"Read me.", "fer2013/fer2013.csv": text.encode()})
    elif name.endswith(".zip"):
        pack_zip(path, {"README.txt": b"Read me.", member: text.encode()})
    else:
        path.write_text(text)
    return path


def write_votes(folder: Path) -> Path:
    """Writes fer2013new.csv."""
    path = folder / "fer2013new.csv"
    header = (
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    )
    lines = [
        ",".join([usage, name, *map(str, votes)])
        for usage, name, votes in zip(USAGES, NAMES, VOTES, strict=True)
    ]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def write_labels(folder: Path) -> None:
    """Writes the three label.csv files."""
    for usage, name in LABEL_FOLDERS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        with (folder / name / "label.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for row, image in enumerate(NAMES):
                if USAGES[row] == usage and OWNED[row]:
                    writer.writerow([image, "(0, 0, 48, 48)", *LABEL_VOTES[image]])


def pack_tar_gz(path: Path, members: dict[str, bytes]) -> None:
    """Writes a tar.gz of these files, in this order."""
    path.write_bytes(tar_bytes(members, "gz"))


def pack_zip(path: Path, members: dict[str, bytes]) -> None:
    """Writes a zip of these files."""
    path.write_bytes(zip_bytes(members))
