"""Writes a dataset's records: in order, checked by digests, and all of them or none.

Records go straight into their shards. TFDS's own builder would hold up to a gigabyte of them back
to shuffle them, and these keep the order of their source anyhow.
"""

import errno
import functools
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from data_builders.common.exclusive import building_alone
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from dmfer_jax.errors import UserError

SHARD_EXAMPLES = 1_024
"""TFDS keeps the examples of the shard that it writes in memory."""

DIGEST_SUFFIX = ".sha256"
"""Beside each shard lies a file of this suffix with 32 bytes for each of its records."""

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


def digest(serialized: bytes) -> bytes:
    """Returns the 32 bytes that `--verify` compares for a serialized record."""
    return hashlib.sha256(serialized).digest()


class RecordBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """The base of this project's builders; a subclass says what the examples are.

    Attributes:
      needs_source: whether it reads files that the user downloaded.
      survey_options: keyword arguments that its `survey` takes beside the variant.
      source: what the user gave as `manual_dir`; None if nothing.
      on_progress: called with the number of examples written since the last call.
    """

    needs_source: bool = True
    survey_options: tuple[str, ...] = ()
    source: Path | None = None
    on_progress: Callable[[int], None] = staticmethod(lambda number: None)
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
            if differs := [*found.problems, *found.mismatches()]:
                raise UserError(f"{self.source} is not complete: {'; '.join(differs)}")
            self._found = files, found
        return self._found

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
          UserError: the source cannot be used, or the disk is full. Nothing half-made stays.
        """
        manual_dir = download_config.manual_dir if download_config else None
        self.source = Path(manual_dir).expanduser() if manual_dir else None
        folder = Path(self.data_path)
        with building_alone(folder), tempfile.TemporaryDirectory() as empty:
            if not folder.exists():
                try:
                    # TFDS makes a folder for downloads whether or not there are any.
                    super().download_and_prepare(
                        download_dir=download_dir or empty,
                        download_config=download_config,
                        **kwargs,
                    )
                except (OSError, RuntimeError) as error:
                    _explain_failure(error, folder)
            self.info.read_from_directory(folder)

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        del dl_manager  # nothing is downloaded
        splits = self.split_examples()
        if self._found is not None:
            metadata: Any = self.info.metadata
            found = self._found[1]
            metadata.update(layout=found.layout, differs=[*found.problems, *found.mismatches()])
        return {
            split: [
                functools.partial(self._take, examples, min(SHARD_EXAMPLES, number - start))
                for start in range(0, number, SHARD_EXAMPLES)
            ]
            for split, (number, examples) in splits.items()
        }

    def _take(
        self, examples: Iterator[dict[str, Any]], number: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the next examples, for one shard."""
        for written, example in enumerate(itertools.islice(examples, number), start=1):
            yield example["row"], example
            if written % _PROGRESS_EVERY == 0 or written == number:
                self.on_progress((written - 1) % _PROGRESS_EVERY + 1)

    def _example_writer(self) -> Any:
        return _ShardWriter()


class _ShardWriter:
    """Takes the place of TFDS's `ExampleWriter`: writes a shard, and its records' digests."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        writer = ArrayRecordWriter(os.fspath(path), _WRITER_OPTIONS)
        with Path(os.fspath(path) + DIGEST_SUFFIX).open("wb") as digests:
            try:
                for _, serialized in examples:
                    writer.write(serialized)
                    digests.write(digest(serialized))
            finally:
                writer.close()


def _explain_failure(error: OSError | RuntimeError, folder: Path) -> None:
    """Raises the error in plain words where there are any; returns if the records are there."""
    if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST) and folder.exists():
        return  # without a lock (see exclusive.py), another process was first; its records serve
    full = (errno.ENOSPC, errno.EDQUOT)
    # array_record raises RuntimeError with the system's words inside.
    if getattr(error, "errno", None) in full or any(os.strerror(n) in str(error) for n in full):
        raise UserError(
            f"{folder.parent} has no space left for the records. Make room, or choose another "
            "place with --data_dir. What was written of them is removed."
        ) from error
    raise error
