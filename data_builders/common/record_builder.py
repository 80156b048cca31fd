"""Writes a dataset's records: in order, checked by digests, and all of them or none.

Records go straight into their shards. TFDS's own builder would hold up to a gigabyte of them back
to shuffle them, and these keep the order of their source anyhow.
"""

import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from data_builders.common.exclusive import building_alone
from data_builders.common.serialization import Serializer
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from dmfer_jax.data.builds import DIGEST_SUFFIX, digest
from dmfer_jax.errors import UserError

SHARD_EXAMPLES = 1_024
"""Records in a file: some 15 MB of faces."""

_PROGRESS_EVERY = 64  # examples

# Images are compressed already; compressing them again took five times as long as writing them.
_WRITER_OPTIONS = "group_size:1,uncompressed"


class Examples(NamedTuple):
    """The examples of a split.

    Attributes:
      number: how many there are.
      examples: dicts of features, to be read once.
    """

    number: int
    examples: Iterator[dict[str, Any]]


class RecordBuilder(FileReaderBuilder, skip_registration=True):
    """The base of this project's builders; a subclass says what the examples are.

    Attributes:
      needs_source: whether it reads files that the user downloaded.
      takes_any_variant: whether the user names the config, rather than choosing one.
      source: what the user gave as `manual_dir`; None if nothing.
      on_progress: called with the number of examples written since the last call.
      has_built: whether it wrote the records; False where they were there, or another process was
        first.
    """

    needs_source: bool = True
    takes_any_variant: bool = False
    source: Path | None = None
    on_progress: Callable[[int], None] = staticmethod(lambda number: None)
    has_built: bool = False
    _found: tuple[SourceFiles, Survey] | None = None

    @classmethod
    def survey(cls, files: SourceFiles, variant: str = "") -> Survey:
        """Returns what a source holds, without reading an image.

        Args:
          files: the source.
          variant: the builder's config that is wanted; "" takes what is there.

        Raises:
          UserError: the source is not recognised, or something in it is wrong.
        """
        raise NotImplementedError

    @classmethod
    def from_survey(cls, files: SourceFiles, found: Survey, data_dir: Path) -> Self:
        """Returns the builder of what a survey found; `files` must stay open while it builds."""
        builder = cls(config=found.variant or None, data_dir=data_dir, file_format="array_record")
        builder._found = files, found
        return builder

    def found(self) -> tuple[SourceFiles, Survey]:
        """Returns the source and its survey, made now for a builder used through TFDS alone.

        Raises:
          UserError: there is no source, or it cannot be used, or it is not complete. (`prepare`
            surveys before it builds, and may allow what is not complete.)
        """
        if self._found is None:
            if self.source is None:
                raise UserError(
                    f"{self.name} needs the files as downloaded, and none were given. "
                    + " ".join((self.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
                )
            files = SourceFiles(self.source)
            config = self.builder_config
            found = self.survey(files, config.name if config else "")
            for note in found.notes:
                logging.warning("%s: %s", self.name, note)
            if differs := found.differs():
                raise UserError(f"{self.source} is not complete: {'; '.join(differs)}")
            self._found = files, found
        return self._found

    def images_digest(self) -> str:
        """Returns what tells whether images were replaced by others of the same names.

        It is "" where the survey's fingerprint tells that.
        """
        return ""

    def split_examples(self) -> dict[str, Examples]:
        """Returns the examples of each split, in the order in which they are written.

        Each has an int64 feature `row`, its position among the examples of all splits.

        Raises:
          UserError: the source cannot be used.
        """
        raise NotImplementedError

    def record_info(self, features: dict[str, Any], **details: Any) -> tfds.core.DatasetInfo:
        """Returns what `_info` returns.

        Args:
          features: {name: feature}.
          **details: of `tfds.core.DatasetInfo`.
        """
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # records stand in the order of their source
            **details,
        )

    def download_and_prepare(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, *, download_dir: Any = None, download_config: Any = None, **kwargs: Any
    ) -> None:
        """Builds the records if they are not there; see `tfds.core.DatasetBuilder`.

        Two processes may build at once: one does, the other waits and takes what it made.

        Args:
          download_dir: not needed, nothing is downloaded.
          download_config: its `manual_dir` is the source as downloaded.
          **kwargs: of TFDS; none is needed.

        Raises:
          UserError: the source cannot be used, or the records cannot be written, such as on a full
        disk. Nothing half-made stays.
        """
        manual_dir = download_config.manual_dir if download_config else None
        self.source = Path(os.path.expanduser(manual_dir)) if manual_dir else None
        folder = Path(self.data_path)
        try:
            with building_alone(folder), tempfile.TemporaryDirectory() as empty:
                if not folder.exists():
                    # TFDS makes a folder for downloads whether or not there are any.
                    super().download_and_prepare(
                        download_dir=download_dir or empty,
                        download_config=download_config,
                        **kwargs,
                    )
        except (OSError, RuntimeError) as error:
            _explain_failure(error, folder)
        self.info.read_from_directory(folder)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Writes the records; TFDS has made a folder for them and renames it in the end."""
        del dl_manager, download_config  # nothing is downloaded
        splits = self.split_examples()
        metadata: Any = self.info.metadata
        features: Any = self.info.features
        metadata["names"] = {
            name: feature.names
            for name, feature in features.items()
            if isinstance(feature, tfds.features.ClassLabel)
        }
        if self._found is not None:
            found = self._found[1]
            metadata.update(
                layout=found.layout,
                differs=found.differs(),
                fingerprint=found.fingerprint(),
                images=self.images_digest(),
            )
        try:
            written = [self._write_split(split, examples) for split, examples in splits.items()]
        finally:
            # After an error they would be closed whenever they are collected as garbage. Where that
            # falls into the start of another thread, ending theirs waits for it, and it for them.
            for examples in splits.values():
                if isinstance(examples.examples, Generator):
                    examples.examples.close()
        self.info.set_splits(tfds.core.SplitDict(written))
        self.has_built = True

    def _write_split(self, split: str, examples: Examples) -> tfds.core.SplitInfo:
        serialize = Serializer(self.info.features)  # pyright: ignore[reportArgumentType]
        template = self._get_filename_template(split)
        starts = range(0, examples.number, SHARD_EXAMPLES)
        lengths = [min(SHARD_EXAMPLES, examples.number - start) for start in starts]
        total = 0
        for index, length in enumerate(lengths):
            path = template.sharded_filepath(shard_index=index, num_shards=len(lengths))
            chosen = itertools.islice(examples.examples, length)
            total += _write_shard(Path(path), map(serialize, chosen), length, self.on_progress)
        return tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=total, filename_template=template
        )


def _write_shard(
    path: Path, records: Iterator[bytes], number: int, on_progress: Callable[[int], None]
) -> int:
    """Writes a shard and its records' digests; returns the records' size in bytes."""
    size = written = 0
    writer = ArrayRecordWriter(os.fspath(path), _WRITER_OPTIONS)
    with path.with_name(path.name + DIGEST_SUFFIX).open("wb") as digests:
        try:
            for written, record in enumerate(records, start=1):
                writer.write(record)
                digests.write(digest(record))
                size += len(record)
                if written % _PROGRESS_EVERY == 0 or written == number:
                    on_progress((written - 1) % _PROGRESS_EVERY + 1)
        finally:
            writer.close()
    if written != number:
        raise RuntimeError(f"{path.name} got {written} examples; there should be {number}")
    return size


def _explain_failure(error: OSError | RuntimeError, folder: Path) -> None:
    """Raises the error in plain words where there are any; returns if the records are there."""
    if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST) and folder.exists():
        return  # without a lock (see exclusive.py), another process was first; its records serve
    number = _system_error(error)
    if number is None:
        raise error
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise UserError(
            f"{folder.parent} has no space left for the records. Make room, or choose another "
            "place with --data_dir. What was written of them is removed."
        ) from error
    where = getattr(error, "filename", None) or folder.parent
    raise UserError(
        f"the records cannot be written to {folder.parent} ({os.strerror(number)}: {where}). "
        "Choose another place with --data_dir."
    ) from error


def _system_error(error: OSError | RuntimeError) -> int | None:
    """Returns the number of the system's error; array_record has only its words, among its own."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return next((number for number in errno.errorcode if os.strerror(number) in str(error)), None)
