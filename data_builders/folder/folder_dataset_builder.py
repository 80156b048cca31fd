"""Builds records from a user's own images in class folders.

Classes are those expressions that have a folder, in canonical order, or the user's own. Splits are
given as folders, or made by a fraction in which nobody stands twice if it is known who is who.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tensorflow_datasets as tfds
from absl import logging

from data_builders.common.image_builder import ImageFilesBuilder
from data_builders.common.record_builder import Examples
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from data_builders.folder.folder_survey import survey_folder
from dmfer_jax.errors import UserError


@dataclass
class FolderConfig(tfds.core.BuilderConfig):
    """A user's dataset.

    Attributes:
      class_names: in label order.
    """

    class_names: tuple[str, ...] = ()


class Builder(ImageFilesBuilder):
    """A user's own images for TFDS, without TensorFlow: see README.md beside this file.

    Made by `Builder.from_survey`, since the classes have to be known.
    """

    takes_any_variant = True
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012  (TFDS reads a plain dict here)
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Give, as manual_dir, a folder or an archive with class folders: `train/happy/1.jpg` and
    `test/happy/1.jpg`, or `happy/1.jpg` alone.
    """

    @classmethod
    def survey(
        cls,
        files: SourceFiles,
        variant: str = "",
        *,
        test_fraction: float = 0.2,
        valid_fraction: float = 0.1,
        groups: str = "",
    ) -> Survey:
        """Returns what a source holds; see `RecordBuilder.survey`.

        Args:
          files: the source.
          variant: what the user calls the dataset; "" takes the source's name.
          test_fraction: of all images, where the source has no test folder; 0 for no such split.
          valid_fraction: likewise, where it has no valid folder.
          groups: path in the source of a csv file `image,group`, of whose groups none is split;
            "" takes a groups.csv where there is one.

        Raises:
          UserError: there are no class folders, or too few images to be divided.
        """
        return survey_folder(files, variant, test_fraction, valid_fraction, groups)

    @classmethod
    def from_survey(cls, files: SourceFiles, found: Survey, data_dir: Path) -> Self:
        """Returns the builder of what a survey found; see `RecordBuilder.from_survey`."""
        config = FolderConfig(name=found.variant, class_names=found.class_names)
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # TFDS warns of a config that it has not in a list
        try:
            builder = cls(config=config, data_dir=data_dir, file_format="array_record")
        finally:
            logging.set_verbosity(verbosity)
        builder._found = files, found
        return builder

    def split_examples(self) -> dict[str, Examples]:
        """Returns the examples of each split; see `RecordBuilder`.

        Raises:
          UserError: the source cannot be used, or has other classes than the builder.
        """
        _, found = self.found()
        if found.class_names != self._class_names():
            raise UserError(
                f"the source has the classes {', '.join(found.class_names)}, and its builder was "
                f"made for {', '.join(self._class_names())}."
            )
        return super().split_examples()

    def _info(self) -> tfds.core.DatasetInfo:
        return self.image_info(self._class_names(), {})

    def _class_names(self) -> tuple[str, ...]:
        config = self.builder_config
        if not isinstance(config, FolderConfig):
            raise UserError(
                "the builder of a folder has to know its classes: prepare the folder first, or "
                "make the builder by Builder.from_survey."
            )
        return config.class_names
