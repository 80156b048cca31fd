"""Builds records from image files: each is checked, and copied as it is where it can be.

A JPEG that is decoded and encoded again is a worse one; so only what is too large, or cropped to a
face box, is.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_builders.common.jpeg_header import whole_jpeg_size
from data_builders.common.record_builder import Examples, RecordBuilder
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Rows
from dmfer_jax.data.images import image_header, make_plain, shrunk_header
from dmfer_jax.errors import UserError

MAX_SIDE = 256
"""Pixels; an image with a longer side is shrunk to it. No network here takes more than 224."""

_JPEG_QUALITY = 95  # of images that are cropped or shrunk
_THREADS = 2
_CHUNK = 32  # images for one task of one thread
_WAITING_CHUNKS = 8  # read ahead, so that neither reading nor writing waits; about 5 MB


class ImageFilesBuilder(RecordBuilder, skip_registration=True):
    """The base of the builders of image files; a subclass recognises their layouts."""

    def image_info(
        self, class_names: tuple[str, ...], features: dict[str, Any], **details: Any
    ) -> tfds.core.DatasetInfo:
        """Returns what `_info` returns: the features that all have, and the dataset's own."""
        common = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(class_names)),
            "name": tfds.features.Text(),
            "row": tfds.features.Scalar(dtype=np.int64),
            "first_row": tfds.features.Scalar(dtype=np.int64),
        }
        return self.record_info({**common, **features}, **details)

    def images_digest(self) -> str:
        """Returns a digest of the sizes of the files that the images are in."""
        files, found = self.found()
        digest = hashlib.sha256()
        for rows in found.splits.values():
            for path in rows.files:
                digest.update(b"%d " % files.size(path))
        return digest.hexdigest()

    def split_examples(self) -> dict[str, Examples]:
        """Returns the examples of each split; see `RecordBuilder`.

        Raises:
          UserError: the source cannot be used, or does not fit together.
        """
        files, found = self.found()
        first_rows: dict[bytes, int] = {}  # the row that had a content first
        splits, start = {}, 0
        for split, rows in found.splits.items():
            examples = _examples(files, rows, start, first_rows)
            splits[split] = Examples(len(rows), examples)
            start += len(rows)
        return splits


def stored_image(encoded: bytes, box: tuple[float, float, float, float] | None = None) -> bytes:
    """Returns an image as it is kept in a record.

    Args:
      encoded: a file's bytes.
      box: left, top, right, bottom in pixels of the upright image, to be cropped to; parts of it
        that lie outside the image are left away.

    Returns:
      The file's bytes, if it needs no cropping or shrinking; else those of a JPEG of quality 95.

    Raises:
      ValueError: it is no image, a truncated one or far too large; or the box misses the image.
    """
    size = whole_jpeg_size(encoded)
    if box is None and size and max(size) <= MAX_SIDE:
        return encoded  # what else may be wrong with it is left to --verify
    # A crop is measured in pixels of the whole image; else a large JPEG need not be decoded whole.
    with image_header(encoded) if box else shrunk_header(encoded)[0] as image:
        small = max(image.size) <= MAX_SIDE
        image = make_plain(image, 3)
    if box is None and small:
        return encoded
    if box is not None:
        left, top, right, bottom = (round(edge) for edge in box)
        inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            raise ValueError(
                f"the face box {left, top, right, bottom} is empty, or lies outside its "
                f"{image.width} x {image.height} pixels"
            )
        image = image.crop(inside)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def _examples(
    files: SourceFiles, rows: Rows, start: int, first_rows: dict[bytes, int]
) -> Iterator[dict[str, Any]]:
    """Yields a split's examples; `start` is the row number of the first."""

    def read(chunk: range) -> list[tuple[bytes, bytes]]:
        return [_read(files, rows, index) for index in chunk]

    chunks = (range(at, min(at + _CHUNK, len(rows))) for at in range(0, len(rows), _CHUNK))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        waiting = deque(
            (chunk, pool.submit(read, chunk)) for chunk in itertools.islice(chunks, _WAITING_CHUNKS)
        )
        try:
            while waiting:
                chunk, images = waiting.popleft()
                found = images.result()
                with contextlib.suppress(StopIteration):
                    following = next(chunks)
                    waiting.append((following, pool.submit(read, following)))
                for index, (image, digest) in zip(chunk, found, strict=True):
                    row = start + index
                    yield {
                        "image": image,
                        "label": int(rows.labels[index]),
                        "name": rows.names[index],
                        "row": row,
                        "first_row": first_rows.setdefault(digest, row),
                        **{name: values[index] for name, values in rows.fields.items()},
                    }
        finally:
            for _, future in waiting:
                future.cancel()


def _read(files: SourceFiles, rows: Rows, index: int) -> tuple[bytes, bytes]:
    """Returns an image as it is kept, and a digest that equal images share."""
    path = rows.files[index]
    box = None if rows.boxes is None else tuple(rows.boxes[index])
    try:
        image = stored_image(files.read(path), box)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{files.where(path)} (image '{rows.names[index]}') cannot be used: "
            f"{str(error).rstrip('.')}. Fetch it again; or remove the file, and build with "
            "--allow_mismatch to do without it."
        ) from error
    return image, hashlib.sha256(image).digest()[:16]
