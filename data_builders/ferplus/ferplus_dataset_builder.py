"""Builds the records of FERPlus: FER2013's faces with both versions of the FER+ votes.

A record keeps all votes and chooses no label rule, so one build serves every protocol of
`dmfer_jax.data.protocols`. Everything the user gave is read and checked before the first record
is written, and a build that fails leaves nothing behind.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data_builders.common.record_builder import Examples, RecordBuilder
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Rows, Survey
from data_builders.ferplus import fer2013_files, votes_files
from dmfer_jax.labels import EXPRESSION_NAMES, FER2013, FERPLUS_VOTES

SPLITS: dict[str, str] = {"train": "Training", "valid": "PublicTest", "test": "PrivateTest"}
"""Split -> Usage in fer2013.csv."""


class Builder(RecordBuilder):
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

    @classmethod
    def survey(cls, files: SourceFiles, variant: str = "") -> Survey:
        """Reads, checks and joins all files; see `RecordBuilder.survey`.

        Beside the fields of a record, the rows have the field `pixels`: all 2,304 of each face.

        Args:
          files: the source. Of an archive without the votes, the folder it lies in is part.
          variant: there is one form only.

        Raises:
          UserError: what is missing or wrong, where, and what to do.
        """
        faces_path = fer2013_files.find_faces(files)
        with votes_files.files_with_votes(files) as votes_source:
            # Votes first: they are read in an instant, the faces are not.
            (votes_path,) = votes_source.find(votes_files.VOTES_NAME)[:1]
            label_paths = votes_files.find_label_files(votes_source)
            votes = votes_files.read_votes(votes_source, votes_path)
            faces = fer2013_files.read_faces(files, faces_path)
            rows = votes_files.align(
                faces, files.where(faces_path), votes, votes_source.where(votes_path)
            )
            # After align, so that votes cut short are called that, not an unknown name.
            votes_label_csv = votes_files.read_label_files(votes_source, label_paths, votes)
        splits = _splits(faces, faces_path, rows, votes, votes_label_csv)
        with_labels = " and label.csv" if label_paths else ""
        return Survey(
            layout=f"{faces_path} with the votes of {votes_path}{with_labels}",
            variant=variant,
            class_names=EXPRESSION_NAMES,
            splits=splits,
            notes=[
                f"No rows of {usage}, so split '{split}' is not built."
                for split, usage in SPLITS.items()
                if split not in splits
            ]
            + [
                f"No {folder}/label.csv, so protocol 'majority' has no rows of {usage}."
                for usage, folder in votes_files.LABEL_FOLDERS.items()
                if usage not in label_paths
            ],
        )

    def split_examples(self) -> dict[str, Examples]:
        """Returns the examples of each split; see `RecordBuilder`.

        Raises:
          UserError: the source cannot be used.
        """
        _, found = self.found()
        return {split: Examples(len(rows), _examples(rows)) for split, rows in found.splits.items()}

    def _info(self) -> tfds.core.DatasetInfo:
        side, votes = fer2013_files.SIDE, len(FERPLUS_VOTES)
        return self.record_info(
            {
                "image": tfds.features.Image(shape=(side, side, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(EXPRESSION_NAMES)),
                "votes_new": tfds.features.Tensor(shape=(votes,), dtype=np.int32),
                "votes_label_csv": tfds.features.Tensor(shape=(votes,), dtype=np.int32),
                "name": tfds.features.Text(),
                "row": tfds.features.Scalar(dtype=np.int64),
                "first_row": tfds.features.Scalar(dtype=np.int64),
            },
            homepage="https://github.com/microsoft/FERPlus",
        )


def encode_png(pixels: bytes) -> io.BytesIO:
    """Returns 2,304 grey values as a PNG file of 48 x 48 pixels, losslessly."""
    side = fer2013_files.SIDE
    file = io.BytesIO()
    Image.frombytes("L", (side, side), pixels).save(file, format="PNG")
    file.seek(0)
    return file


def _splits(
    faces: Sequence[fer2013_files.Face],
    faces_path: str,
    rows: Sequence[int],
    votes: Sequence[votes_files.VoteRow],
    votes_label_csv: np.ndarray,
) -> dict[str, Rows]:
    """Returns the rows of each split that there is.

    Args:
      faces: all of them.
      faces_path: of their file in the source.
      rows: where each face stands in fer2013new.csv (and in a complete fer2013.csv), from 0.
      votes: all rows of fer2013new.csv.
      votes_label_csv: [n, 10], of the same rows.
    """
    owners = votes_files.name_owners(votes)
    first_rows: dict[bytes, int] = {}
    first = [first_rows.setdefault(face.pixels, row) for face, row in zip(faces, rows, strict=True)]
    splits = {}
    for split, usage in SPLITS.items():
        chosen = [index for index, face in enumerate(faces) if face.usage == usage]
        if not chosen:
            continue
        at = [rows[index] for index in chosen]
        splits[split] = Rows(
            # A name stands for one row only; "" where a row has none, or repeats another row's.
            names=[votes[row].name if owners.get(votes[row].name) == row else "" for row in at],
            files=[faces_path] * len(chosen),
            labels=np.array([FER2013[faces[index].emotion] for index in chosen], np.int64),
            fields={
                "votes_new": np.array([votes[row].votes for row in at], np.int32),
                "votes_label_csv": votes_label_csv[at],
                "row": np.array(at, np.int64),
                "first_row": np.array([first[index] for index in chosen], np.int64),
                "pixels": [faces[index].pixels for index in chosen],
            },
        )
    return splits


def _examples(rows: Rows) -> Iterator[dict[str, Any]]:
    for index, name in enumerate(rows.names):
        values = {field: column[index] for field, column in rows.fields.items()}
        image = encode_png(values.pop("pixels"))
        yield {"image": image, "label": int(rows.labels[index]), "name": name, **values}
