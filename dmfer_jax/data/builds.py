"""Built datasets on disk: where they lie, what they are called, and whether they are whole.

Records lie in `<data_dir>/<name>/[<variant>/]<version>/`. A dataset is named as `name` or as
`name/variant`; the variant may be left away where there is one build only.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dmfer_jax.data.images import open_image
from dmfer_jax.errors import UserError

DEFAULT_VARIANTS: dict[str, str] = {"synthetic_faces": "faces"}
"""What a name alone stands for, where that does not depend on what the user has."""

_INFO = "dataset_info.json"  # TFDS writes it last, before it gives the folder its name
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MOST_FAULTS = 10  # that verify names


def find_build(dataset: str, data_dir: str | Path) -> Path | None:
    """Returns the folder of a dataset's records, of the newest version; None if there are none.

    Args:
      dataset: "name" or "name/variant".
      data_dir: where records are kept.

    Raises:
      UserError: no variant is named, and there are several.
    """
    name, _, variant = dataset.partition("/")
    variant = variant or DEFAULT_VARIANTS.get(name, "")
    folder = Path(data_dir).expanduser() / name
    newest: dict[str, Path] = {}
    for info in sorted(folder.glob(f"*/{_INFO}")) + sorted(folder.glob(f"*/*/{_INFO}")):
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


def dataset_name(folder: Path) -> str:
    """Returns the full name of a build, such as "affectnet/new"."""
    info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
    return "/".join(filter(None, [info["name"], info.get("configName")]))


def facts(folder: Path) -> dict[str, Any]:
    """Returns what was noted when records were built.

    Returns:
      `layout`, what the source was taken for, and `differs`, where it was not as published; empty
      for datasets that are drawn.
    """
    return json.loads((folder / "metadata.json").read_text(encoding="utf-8"))


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
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    features: Any = builder.info.features
    checked, faults = 0, []
    for split, info in builder.info.splits.items():
        for path in map(Path, info.filepaths):
            for index, fault in enumerate(_faults(path, features)):
                checked += 1
                on_progress(1)
                if fault:
                    faults.append(f"split '{split}', record {index} of {path.name}: {fault}")
        if expected := info.num_examples - sum(_length(Path(path)) for path in info.filepaths):
            faults.append(f"split '{split}': {expected} records are missing")
    if faults:
        shown = "\n  ".join(faults[:_MOST_FAULTS])
        raise UserError(
            f"{folder} is damaged: {len(faults):,} of {checked:,} records are not as they were "
            f"written.\n  {shown}\nRemove the folder and build again."
        )
    return checked


def _faults(path: Path, features: Any) -> Iterator[str]:
    """Yields what is wrong with each record of a shard; "" where nothing is."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    from data_builders.common.record_builder import DIGEST_SUFFIX, digest

    digests_path = path.with_name(path.name + DIGEST_SUFFIX)
    if not digests_path.exists():
        raise UserError(
            f"{digests_path} is missing, so {path.name} cannot be checked. It was built by an "
            "older version or damaged; remove its folder and build again."
        )
    digests = digests_path.read_bytes()
    raw = {"image": tfds.decode.SkipDecoding()}
    reader = ArrayRecordReader(str(path))
    try:
        for index in range(reader.num_records()):
            serialized = reader.read([index])[0]
            if digest(serialized) != digests[32 * index : 32 * index + 32]:
                yield "its bytes are not those that were written"
                continue
            record = features.deserialize_example_np(serialized, decoders=raw)
            yield _record_fault(record, len(features["label"].names))
    except RuntimeError as error:
        yield f"cannot be read ({error})"
    finally:
        reader.close()


def _record_fault(record: dict[str, Any], num_classes: int) -> str:
    if not 0 <= record["label"] < num_classes:
        return f"its label is {record['label']}; expected 0 to {num_classes - 1}"
    try:
        open_image(record["image"], 3)
    except ValueError as error:
        return f"its image cannot be decoded ({error})"
    return ""


def _length(path: Path) -> int:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def _numbers(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.split(".")]
