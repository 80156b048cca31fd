"""A network as a StableHLO program: for CPUs, CUDA and TPUs, and for any number of images.

The file is a zip archive, nothing of it compressed. `program.bin` is what `jax.export` serialises,
weights included; `manifest.json` says what goes in and what comes out, and has the program's digest
(see `weights.sealing`). JAX keeps reading such programs for six months at least after a release
that writes others.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from dmfer_jax.files import write_atomically
from dmfer_jax.formats.program import (
    Loaded,
    describe,
    make_function,
    missing_package,
    reading,
)
from dmfer_jax.models.formulation import plain
from dmfer_jax.predictor import BUCKETS, fill_buckets
from dmfer_jax.weights import strict_json
from dmfer_jax.weights.sealing import Manifest, check_digest, seal, unseal

FORMAT = "dmfer-stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")

_PROGRAM, _MANIFEST = "program.bin", "manifest.json"
_LARGEST = {_PROGRAM: 2**31, _MANIFEST: 2**21}  # bytes


def save_stablehlo(path: str | os.PathLike[str], manifest: Manifest, variables: Any) -> None:
    """Writes a network as a StableHLO program; the file is whole or not there.

    Args:
      path: where to; an older file is replaced.
      manifest: of the network.
      variables: its {"params", "batch_stats"}.

    Raises:
      UserError: this release has no such network, or flatbuffers is not installed.
    """
    _check_installed()
    size, channels = manifest.image_size, manifest.channels
    (n,) = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, size, size, channels), np.uint8)
    # What is fastest on this machine depends on the number of images, which is not known; and each
    # compiler has a convolution of its own.
    with plain():
        exported = export.export(jax.jit(make_function(manifest, variables)), platforms=PLATFORMS)(
            images
        )
    program = bytes(exported.serialize())
    described = seal(describe(manifest), FORMAT, {_PROGRAM: np.frombuffer(program, np.uint8)})
    text = json.dumps(described, ensure_ascii=False, allow_nan=False, indent=1)

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            # Of no date, so that the same network is the same file.
            archive.writestr(zipfile.ZipInfo(_MANIFEST), text)
            archive.writestr(zipfile.ZipInfo(_PROGRAM), program)

    write_atomically(path, write)


def load_stablehlo(path: str | os.PathLike[str]) -> Loaded:
    """Returns the program in a file, which runs on JAX's default device.

    It is compiled when it is first needed, for 1, 8 and 64 images (`predictor.BUCKETS`). It is a
    program: load no file that you would not run.

    Raises:
      UserError: it is no such file, or of another version, or damaged.
    """
    _check_installed()
    path = Path(path)
    with reading(path, "python -m dmfer_jax.export --to=stablehlo"):
        text, program = _read(path)
        described = strict_json.parse_object(text)
        manifest = unseal(described, FORMAT)
        check_digest(described, _PROGRAM, np.frombuffer(program, np.uint8))
        try:
            exported = export.deserialize(bytearray(program))
        except Exception as error:  # of kinds that nobody lists
            raise ValueError(
                f"JAX {jax.__version__} cannot read its program ({type(error).__name__}: {error})"
            ) from None
        size, channels = manifest.image_size, manifest.channels
        taken = [str(one) for one in exported.in_avals]
        if taken != [f"uint8[n,{size},{size},{channels}]"]:
            raise ValueError(f"the program takes {', '.join(taken):.80}")
    call = jax.jit(exported.call)
    return Loaded(
        manifest, lambda n: fill_buckets(n, BUCKETS), lambda images: jax.device_get(call(images))
    )


def _check_installed() -> None:
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingModuleSource]
    except ImportError as error:  # jax.export needs it, and jax does not bring it along
        raise missing_package(error, "export") from None


def _read(path: Path) -> tuple[bytes, bytes]:
    """Returns manifest and program of a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if set(entries) != {_PROGRAM, _MANIFEST} or len(archive.infolist()) != 2:
                raise ValueError(f"found an archive of {', '.join(map(repr, entries)):.120}")
            for name, entry in entries.items():
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > _LARGEST[name]:
                    raise ValueError(f"found {name} of {entry.file_size:,} bytes, or compressed")
            return archive.read(_MANIFEST), archive.read(_PROGRAM)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"found no archive that can be read ({error})") from None
