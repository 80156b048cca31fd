"""Builds the records of FERPlus: FER2013's faces with both versions of the FER+ votes.

A record keeps all votes and chooses no label rule, so one build serves every protocol of
`dmfer_jax.data.protocols`. Everything the user gave is read and checked before the first record
is written, and a build that fails leaves nothing behind.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from data_builders.ferplus import fer2013_files, votes_files
from dmfer_jax.errors import UserError
from dmfer_jax.labels import EXPRESSION_NAMES, FER2013, FERPLUS_VOTES

SPLITS: dict[str, str] = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
"""Split -> Usage in fer2013.csv."""


class Row(NamedTuple):
    """A face with all that is known of it; a record in the making.

    Attributes:
      face: its row of fer2013.csv.
      row: where it stands in fer2013new.csv (and in a complete fer2013.csv), from 0.
      first_row: the smallest `row` with the same pixels; `row` itself where it is the first.
      name: such as "fer0000000.png"; "" where the row has no name, or repeats another row's, so
        that a name stands for one row only.
      votes_new: [10] int32.
      votes_label_csv: [10] int32; -1 where label.csv has no such row.
    """

    face: fer2013_files.Face
    row: int
    first_row: int
    name: str
    votes_new: np.ndarray
    votes_label_csv: np.ndarray


class Builder(tfds.core.GeneratorBasedBuilder):
    """FERPlus for TFDS, without TensorFlow: see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012  (TFDS reads a plain dict here)
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Put into one folder, and give that folder as manual_dir:

    1. FER2013: `fer2013.csv`, or `fer2013.tar.gz`, or `icml_face_data.csv`, or a zip that holds
       one of the two csv files. From the Kaggle competition "Challenges in Representation
       Learning: Facial Expression Recognition Challenge".
    2. `fer2013new.csv` from https://github.com/microsoft/FERPlus.
    3. If you can, `FER2013Train/label.csv`, `FER2013Valid/label.csv` and `FER2013Test/label.csv`
       from the folder `data` of the same project: the protocol `majority` counts these votes.
    """

    _source: Path | None = None

    def download_and_prepare(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, *, download_dir=None, download_config=None, **kwargs
    ) -> None:
        """Builds the records; see `tfds.core.DatasetBuilder.download_and_prepare`.

        Args:
          download_dir: not needed, nothing is downloaded.
          download_config: its `manual_dir` is the folder with the owners' files, or the file with
            the faces itself.
          **kwargs: `file_format="array_record"`, which needs no TensorFlow.

        Raises:
          UserError: the files are missing or not as their owners hand them out.
        """
        manual_dir = download_config.manual_dir if download_config else None
        self._source = Path(manual_dir).expanduser() if manual_dir else None
        with _no_empty_folders_on_failure(Path(self.data_path)), tempfile.TemporaryDirectory() as d:
            # TFDS makes a folder for downloads whether or not there are any.
            super().download_and_prepare(
                download_dir=download_dir or d, download_config=download_config, **kwargs
            )

    def _info(self) -> tfds.core.DatasetInfo:
        side, votes = fer2013_files.SIDE, len(FERPLUS_VOTES)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(side, side, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(EXPRESSION_NAMES)),
                    "votes_new": tfds.features.Tensor(shape=(votes,), dtype=np.int32),
                    "votes_label_csv": tfds.features.Tensor(shape=(votes,), dtype=np.int32),
                    "name": tfds.features.Text(),
                    "row": tfds.features.Scalar(dtype=np.int64),
                    "first_row": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            homepage="https://github.com/microsoft/FERPlus",
            # Records stand in the order of the rows, so a build is the same everywhere.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if self._source is None:
            raise UserError(
                "ferplus needs the folder with FER2013 and the FER+ votes, and none was given. "
                + " ".join(self.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
            )
        rows = read_source(self._source)
        generators = {}
        for split, usage in SPLITS.items():
            chosen = [row for row in rows if row.face.usage == usage]
            if chosen:
                generators[split] = self._generate_examples(chosen)
            else:
                logging.warning("ferplus: no rows of %s, so split '%s' is not built.", usage, split)
        return generators

    def _generate_examples(self, rows: Sequence[Row]) -> Iterator[tuple[int, dict[str, Any]]]:
        for row in rows:
            yield (
                row.row,
                {
                    "image": encode_png(row.face.pixels),
                    "label": int(FER2013[row.face.emotion]),
                    "votes_new": row.votes_new,
                    "votes_label_csv": row.votes_label_csv,
                    "name": row.name,
                    "row": row.row,
                    "first_row": row.first_row,
                },
            )


def read_source(source: Path) -> list[Row]:
    """Reads, checks and joins all files that the user gave.

    Args:
      source: the folder with the owners' files, or the file with the faces in that folder.

    Raises:
      UserError: what is missing or wrong, where, and what to do.
    """
    faces_path = fer2013_files.find_faces(source)
    folder = source if source.is_dir() else source.parent
    votes_path = votes_files.find_votes(folder)
    label_paths = votes_files.find_label_files(folder)
    logging.info("ferplus: reading %s and %s", faces_path, votes_path)
    # Votes first: they are read in an instant, the faces are not.
    votes = votes_files.read_votes(votes_path)
    faces = fer2013_files.read_faces(faces_path)
    rows = votes_files.align(faces, faces_path, votes, votes_path)
    # After align, so that votes cut short are called that, not an unknown name in label.csv.
    votes_label_csv = votes_files.read_label_files(label_paths, votes)

    for usage, name in votes_files.LABEL_FOLDERS.items():
        if usage not in label_paths:
            logging.warning(
                "ferplus: no %s/label.csv, so protocol 'majority' has no rows of %s.", name, usage
            )
    owners = votes_files.name_owners(votes)
    first_rows: dict[bytes, int] = {}
    return [
        Row(
            face=face,
            row=row,
            first_row=first_rows.setdefault(face.pixels, row),
            name=votes[row].name if owners.get(votes[row].name) == row else "",
            votes_new=np.array(votes[row].votes, dtype=np.int32),
            votes_label_csv=votes_label_csv[row],
        )
        for face, row in zip(faces, rows, strict=True)
    ]


def encode_png(pixels: bytes) -> io.BytesIO:
    """Returns 2,304 grey values as a PNG file of 48 x 48 pixels, losslessly."""
    side = fer2013_files.SIDE
    file = io.BytesIO()
    Image.frombytes("L", (side, side), pixels).save(file, format="PNG")
    file.seek(0)
    return file


@contextlib.contextmanager
def _no_empty_folders_on_failure(folder: Path) -> Iterator[None]:
    """Removes the folders above a failed build that were not there before it.

    TFDS removes what it had written, but leaves `data_dir/ferplus/` behind.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not there, or somebody else's files are in it
            for parent in made:
                parent.rmdir()
        raise
