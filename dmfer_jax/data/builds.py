"""Built datasets on disk: where they lie, what they are called, and whether they are whole.

Records lie in `<data_dir>/<name>/[<variant>/]<version>/`. A dataset is named as `name` or as
`name/variant`; the variant may be left away where there is one build only.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dmfer_jax.data.images import open_image
from dmfer_jax.errors import UserError

DEFAULT_VARIANTS: dict[str, str] = {"synthetic_faces": "faces"}
"""What a name alone stands for, where that does not depend on what the user has."""

DIGEST_SUFFIX = ".sha256"
"""Beside each shard lies a file of this suffix with 32 bytes for each of its records."""

_INFO = "dataset_info.json"  # TFDS writes it last, before it gives the folder its name
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MOST_FAULTS = 10  # that verify names


def find_build(dataset: str, data_dir: str | Path) -> Path | None:
    """Returns the folder of a dataset's records, of the newest version; None if there are none.

    Args:
      dataset: "name" or "name/variant".
      data_dir: where records are kept.

    Raises:
      UserError: no variant is named, and there are several; or the folder cannot be read.
    """
    name, _, variant = dataset.partition("/")
    variant = variant or DEFAULT_VARIANTS.get(name, "")
    folder = Path(os.path.expanduser(data_dir)) / name
    newest: dict[str, Path] = {}
    with readable_build(folder):
        infos = sorted(folder.glob(f"*/{_INFO}")) + sorted(folder.glob(f"*/*/{_INFO}"))
    for info in infos:
        build = info.parent
        if not _VERSION.fullmatch(build.name):
            continue
        found = "" if build.parent == folder else build.parent.name
        if variant in ("", found) and (
            found not in newest or _numbers(newest[found]) < _numbers(build)
        ):
            newest[found] = build
    if len(newest) > 1:
        names = ", ".join(f"{name}/{found}" for found in sorted(newest))
        raise UserError(f"there are several builds of {name} in {data_dir}: name one of {names}")
    return next(iter(newest.values()), None)


def open_build(folder: Path) -> Any:
    """Returns the TFDS builder of a build.

    Raises:
      UserError: files of it are missing or damaged.
    """
    import tensorflow_datasets as tfds

    with readable_build(folder):
        builder: Any = tfds.builder_from_directory(folder)
        # TFDS takes "0", "1", ... for the names of classes whose file is damaged or missing.
        for name, values in (builder.info.metadata or {}).get("names", {}).items():
            if (there := builder.info.features[name].names) != values:
                raise ValueError(f"{name}.labels.txt holds {there}; {values} were written")
    return builder


@contextlib.contextmanager
def readable_build(folder: Path) -> Iterator[None]:
    """Turns what reading a damaged build raises into a `UserError` that names its folder."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise unreadable(folder, f"{error.strerror or error}{where}") from error
    except Exception as error:  # TFDS and its parsers raise nearly anything on damaged files
        raise unreadable(folder, str(error) or type(error).__name__) from error


def unreadable(folder: Path, reason: str) -> UserError:
    """Returns the error of a build that cannot be read."""
    reason = " ".join(reason.split())[:300].rstrip(".")
    return UserError(
        f"{folder} cannot be read as a dataset ({reason}). Remove that folder and build again, or "
        "give another --data_dir."
    )


def dataset_name(folder: Path) -> str:
    """Returns the full name of a build, such as "affectnet/new"."""
    with readable_build(folder):
        info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
        return "/".join(filter(None, [info["name"], info.get("configName")]))


def facts(folder: Path) -> dict[str, Any]:
    """Returns what was noted when records were built.

    Returns:
      `names`, those of the values of each field that is one of several. Unless it was drawn:
      `layout`, what the source was taken for; `differs`, where it was not as published;
      `fingerprint`, of its survey; and `images`, of the files that they were in.
    """
    with readable_build(folder):
        return dict(json.loads((folder / "metadata.json").read_text(encoding="utf-8")))


def records_digest(folder: Path) -> str:
    """Returns a digest of what a build holds: its name, its splits, and every record of them.

    Records are known by the digests that lie beside them, so that nothing large is read; `verify`
    tells whether they are still what they were. A build from before there were any is known by its
    splits alone.

    Args:
      folder: of a build.
    """
    hashed = hashlib.sha256(dataset_name(folder).encode())
    with readable_build(folder):
        info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
        hashed.update(json.dumps(info.get("splits"), sort_keys=True).encode())
        for digests in sorted(folder.glob(f"*{DIGEST_SUFFIX}")):
            hashed.update(f"\n{digests.name} ".encode() + digests.read_bytes())
    return hashed.hexdigest()


def digest(serialized: bytes) -> bytes:
    """Returns the 32 bytes that `verify` compares for a serialized record."""
    return hashlib.sha256(serialized).digest()


def check_same(folder: Path, found: Any, images: str) -> None:
    """Raises a `UserError` if a build was made from anything else than a survey found.

    Args:
      folder: of the build.
      found: a `Survey` of the source.
      images: its builder's `images_digest`.
    """
    built = {split: info.num_examples for split, info in open_build(folder).info.splits.items()}
    surveyed = {split: len(rows) for split, rows in found.splits.items() if len(rows)}
    noted, survey = facts(folder), {"fingerprint": found.fingerprint(), "differs": found.differs()}
    same = all(noted.get(key) == value for key, value in survey.items())
    if same and noted.get("images", images) == images:
        return
    numbers = [", ".join(f"{s} {n:,}" for s, n in splits.items()) for splits in (built, surveyed)]
    why = "images in files of other sizes" if same else "other names, labels or annotations"
    raise UserError(
        f"{folder} was built from something else: it has {numbers[0]}; the source, {numbers[1]}"
        f"{f', with {why}' if built == surveyed else ''}. Remove that folder to build anew, or "
        "give another --data_dir."
    )


def verify(folder: Path, on_progress: Callable[[int], None] = lambda number: None) -> int:
    """Reads every record again: is it as it was written, does its image decode, its label exist?

    Args:
      folder: of a build.
      on_progress: called with the number of records checked since the last call.

    Returns:
      The number of records.

    Raises:
      UserError: what is wrong with which records.
    """
    builder = open_build(folder)
    facts(folder)
    total, damaged, faults = 0, 0, []
    for split, info in builder.info.splits.items():
        total += info.num_examples
        for path, number in zip(map(Path, info.filepaths), info.shard_lengths, strict=True):
            with readable_build(folder):
                for records, fault in _faults(path, number, builder.info.features, on_progress):
                    damaged += records
                    faults.append(f"split '{split}', {fault}")
    if faults:
        shown = "\n  ".join(faults[:_MOST_FAULTS])
        raise UserError(
            f"{folder} is damaged: {damaged:,} of {total:,} records cannot be used.\n  {shown}\n"
            "Remove the folder and build again."
        )
    return total


def _faults(
    path: Path, number: int, features: Any, on_progress: Callable[[int], None]
) -> Iterator[tuple[int, str]]:
    """Yields how many records of a shard are damaged, and where and how, for each fault.

    Args:
      path: of the shard.
      number: of the records that were written to it.
      features: of the dataset.
      on_progress: as in `verify`.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    digests = _digests(path, number)
    reader = ArrayRecordReader(str(path))
    try:
        there = reader.num_records()  # 0 where the file is missing or cut short
        if there != number:
            reason = f" ({why})" if (why := _why_closed(reader)) else ""
            yield (
                abs(number - there),
                f"{path.name} has {there:,} records; {number:,} were written{reason}",
            )
        for index in range(min(there, number)):
            fault = _record_fault(reader, index, digests[index], features)
            on_progress(1)
            if fault:
                yield 1, f"record {index} of {path.name}: {fault}"
    finally:
        with contextlib.suppress(RuntimeError):  # it says once more what was wrong
            reader.close()


def _why_closed(reader: Any) -> str:
    """Returns why a shard could not be opened; "" if it could, or nothing says."""
    try:
        if not reader.ok():
            reader.read([0])
    except RuntimeError as error:
        return str(error)
    return ""


def _digests(path: Path, number: int) -> list[bytes]:
    place = path.with_name(path.name + DIGEST_SUFFIX)
    if not place.exists():
        raise UserError(
            f"{place} is missing, so {path.name} cannot be checked. It was built by an older "
            "version or damaged; remove its folder and build again."
        )
    content = place.read_bytes()
    return [content[32 * index : 32 * index + 32] for index in range(number)]


def _record_fault(reader: Any, index: int, expected: bytes, features: Any) -> str:
    """Returns what is wrong with a record; "" if nothing is."""
    import tensorflow_datasets as tfds

    try:
        serialized = reader.read([index])[0]
    except RuntimeError as error:
        return f"cannot be read ({error})"
    if digest(serialized) != expected:
        return "its bytes are not those that were written"
    raw = {"image": tfds.decode.SkipDecoding()}
    record = features.deserialize_example_np(serialized, decoders=raw)
    classes = len(features["label"].names)
    if not 0 <= record["label"] < classes:
        return f"its label is {record['label']}; expected 0 to {classes - 1}"
    try:
        open_image(record["image"], 3)
    except ValueError as error:
        return (
            f"its image cannot be decoded ({error}). It was so in the source: fetch "
            f"'{record['name'].decode()}' again"
        )
    return ""


def _numbers(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.split(".")]
