"""A builder of a folder of images, whose name begins with their label; for tests of all builders.

python -m tests.data_builders.toy_dataset SOURCE DATA_DIR
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data_builders.common.image_builder import ImageFilesBuilder
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Rows, Survey
from tests.data_builders.packing import write_folder

CLASSES = ("round", "square")


class Builder(ImageFilesBuilder, skip_registration=True):
    """Splits are folders: train/0_first.jpg has label 0."""

    name = "toy"
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give a folder of toys."

    @classmethod
    def survey(cls, files: SourceFiles, variant: str = "") -> Survey:
        """Returns each folder as a split."""
        del variant
        splits = {}
        for folder in files.folders():
            names = files.names_in(folder)
            labels = np.array([int(name[0]) for name in names])
            paths = [f"{folder}/{name}" for name in names]
            splits[folder] = Rows(paths, paths, labels)
        return Survey("a folder of toys", "", CLASSES, splits)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.image_info(CLASSES, {})

    def record_info(self, features: dict[str, Any], **details: Any) -> tfds.core.DatasetInfo:
        """As the real one, without a README beside the builder."""
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
            **details,
        )


def write_toys(place: Path, train: int = 5, test: int = 3, side: int = 20) -> Path:
    """Writes that many JPEGs, each of its own colour, and returns the folder."""
    files = {}
    for split, number in (("train", train), ("test", test)):
        for index in range(number):
            color = (index % 256, index // 256 % 256, len(split))
            files[f"{split}/{index % 2}_{index:05d}.jpg"] = jpeg(color, side)
    return write_folder(files, place)


def jpeg(color: tuple[int, int, int], side: int = 20) -> bytes:
    """Returns a JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), color).save(file, "JPEG", quality=95)
    return file.getvalue()


def build(source: Path, data_dir: Path) -> Path:
    """Builds the toys' records and returns their folder."""
    builder = Builder(data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=str(source))
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
