"""Writes small trees of class folders, packs, surveys and builds them, for tests."""

import contextlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from data_builders.folder.folder_dataset_builder import Builder


def image_bytes(seed: int = 0, kind: str = "png", size: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(folder: Path, *names: str) -> Path:
    """Writes a different image under each name; a name that ends with "/" is an empty folder."""
    for seed, name in enumerate(names):
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(seed))
    return folder


def write_classes(folder: Path, *classes: str, images: int = 4) -> Path:
    """Writes class folders of so many images each."""
    return write(folder, *(f"{name}/{i}.png" for name in classes for i in range(images)))


def survey(source: Path, variant: str = "", **options: Any) -> Survey:
    with SourceFiles(source) as files:
        return Builder.survey(files, variant, **options)


def split_of(found: Survey) -> dict[str, str]:
    """Returns {image name: split}."""
    return {name: split for split, rows in found.splits.items() for name in rows.names}


@contextlib.contextmanager
def built(source: Path, data_dir: Path) -> Iterator[Path]:
    """Builds a source as `prepare` does and yields the folder of the records."""
    with SourceFiles(source) as files:
        builder = Builder.from_survey(files, Builder.survey(files), data_dir)
        builder.download_and_prepare()
        yield Path(builder.data_path)


def write_people(folder: Path, people: int = 40) -> Path:
    """Writes two images of each person in each of two classes, and who is who."""
    names = [f"{c}/{p}_{i}.png" for p in range(people) for c in ("sad", "fear") for i in range(2)]
    return write_table(write(folder, *names), names)


def write_table(folder: Path, names: list[str]) -> Path:
    rows = [f"{name},person {person(name)}" for name in names]
    (folder / "groups.csv").write_text("\n".join(["image,group", *rows]) + "\n")
    return folder


def person(name: str) -> str:
    return Path(name).name.split("_")[0]


def pack(source: Path, path: Path, above: str = "") -> Path:
    """Packs a folder into a zip or tar.gz, with a top folder or without."""
    files = [p for p in sorted(source.rglob("*")) if p.is_file()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, above + str(file.relative_to(source)))
    else:
        with tarfile.open(path, "w:gz") as archive:
            for file in files:
                archive.add(file, above + str(file.relative_to(source)))
    return path
