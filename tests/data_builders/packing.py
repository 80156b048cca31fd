"""Packs files in every way in which people have them, for tests."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

PACKINGS = ("folder", "top folder", "zip", "tar", "tar.gz", "zip in a folder", "zip in a zip")
"""What `pack` can make."""


def pack(files: Mapping[str, bytes], packing: str, place: Path) -> Path:
    """Writes files in one of `PACKINGS` and returns what a user would give as the source.

    Args:
      files: {path, with "/" between the parts: content}.
      packing: how.
      place: an empty folder, or one to be made.
    """
    place.mkdir(parents=True, exist_ok=True)
    if packing == "folder":
        return write_folder(files, place)
    if packing == "top folder":
        write_folder({f"some/where/{path}": content for path, content in files.items()}, place)
        return place
    if packing == "zip in a folder":
        (place / "parts.zip").write_bytes(zip_bytes(files))
        return place
    path = place / f"packed.{packing.split()[0]}"
    if packing == "zip in a zip":
        path.write_bytes(zip_bytes({"read me.txt": b"", "inner/parts.zip": zip_bytes(files)}))
    elif packing == "zip":
        path.write_bytes(zip_bytes(files))
    else:
        path.write_bytes(tar_bytes(files, "gz" if packing == "tar.gz" else ""))
    return path


def write_folder(files: Mapping[str, bytes], place: Path) -> Path:
    """Writes files below a folder and returns it."""
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    return place


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """Returns a zip of files, as it is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def tar_bytes(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """Returns a tar of files; compression is "" or "gz"."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz" if compression else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
