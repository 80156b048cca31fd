"""The two formats of PyTorch's `torch.save`: the zip archive since 1.6, and the one before.

Both hold a pickle, which refers to storages, and the bytes of those. Nothing is ever unpacked to a
folder: entries of the archive are found by name.
"""

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from dmfer_jax.errors import UserError
from dmfer_jax.weights.pickle_machine import Rules, run_pickle, shown
from dmfer_jax.weights.torch_pickle import Storage, Tensor, rules

MAX_PICKLE_BYTES = 16 * 2**20
"""Of one file; that of ResNet-50 with its optimizer has 0.1 MiB."""

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of the format before PyTorch 1.6: a magic number, pickled."""

_MAX_DIRECTORY_BYTES = 4 * 2**20  # of an archive: 40,000 storages
_NO_RULES = Rules({})

Contents = tuple[Any, Callable[[Iterable[Tensor]], Mapping[str, bytes]], str]
"""What the pickle describes, a function that reads storages, and the order of their bytes."""


def read_zip(file: BinaryIO, size: int) -> Contents:
    """Reads the pickle of a zip archive that PyTorch wrote.

    Args:
      file: open, and left so: the function returned reads the storages of tensors from it.
      size: of the file, in bytes.

    Raises:
      UserError: it is damaged, or another kind of archive; the message does not name the file.
    """
    try:
        bounded = _Bounded(file, _MAX_DIRECTORY_BYTES)
        archive = zipfile.ZipFile(bounded)  # pyright: ignore[reportArgumentType]
        bounded.limit = size
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"it is a zip archive that is cut short or damaged ({error}); get the file again"
        ) from error
    names = archive.namelist()
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    _check_kind(names, pickles)
    folder = pickles[0].removesuffix("data.pkl")
    order = "little"
    if f"{folder}byteorder" in names:
        order = _entry(archive, f"{folder}byteorder", 16).decode("ascii", "replace")
        if order not in ("little", "big"):
            raise UserError(f"it says that its order of bytes is {shown(order)}")
    tree, _ = run_pickle(_entry(archive, pickles[0], MAX_PICKLE_BYTES), 0, rules())

    def read(tensors: Iterable[Tensor]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        left = size  # entries of an honest archive lie apart, and none lies in another
        for storage in (tensor.storage for tensor in tensors):
            if storage.key not in found:
                found[storage.key] = _entry(archive, f"{folder}data/{storage.key}", left)
                left -= len(found[storage.key])
            _check_size(storage, len(found[storage.key]))
        return found

    return tree, read, order


def read_legacy(file: BinaryIO, size: int) -> Contents:
    """Reads the pickles of a file as PyTorch wrote it before 1.6; as `read_zip`."""
    data = file.read(MAX_PICKLE_BYTES)
    version, position = run_pickle(data, len(LEGACY_START), _NO_RULES)
    if version != 1001:
        raise UserError("it is of PyTorch's old format in a version not known here")
    system, position = run_pickle(data, position, _NO_RULES)
    order = "little" if type(system) is dict and system.get("little_endian", True) else "big"
    # The file's own list of storages says in which order they lie; which there are and how large,
    # the pickle says.
    mentioned: dict[str, Storage] = {}
    plain = rules()

    def find_storage(reference: Any) -> Storage:
        assert plain.persistent is not None
        storage = plain.persistent(reference)
        mentioned.setdefault(storage.key, storage)
        return storage

    tree, position = run_pickle(data, position, plain._replace(persistent=find_storage))
    keys, position = run_pickle(data, position, _NO_RULES)
    del data
    places = _find_places(file, size, position, keys, mentioned, order)

    def read(tensors: Iterable[Tensor]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for storage in (tensor.storage for tensor in tensors):
            if storage.key not in places:
                raise UserError(f"storage {shown(storage.key)}, which it refers to, is not in it")
            start, count = places[storage.key]
            if storage.key not in found:
                file.seek(start)
                found[storage.key] = file.read(count)
            _check_size(storage, len(found[storage.key]))
        return found

    return tree, read, order


def _find_places(
    file: BinaryIO,
    size: int,
    position: int,
    keys: Any,
    mentioned: Mapping[str, Storage],
    order: str,
) -> dict[str, tuple[int, int]]:
    """Where each storage of the old format lies, and its bytes: 8 bytes of count come before."""
    if type(keys) is not list:
        raise UserError("its list of storages is damaged")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if not isinstance(key, str) or key not in mentioned or key in places:
            raise UserError(f"its list of storages has {shown(key)}, which nothing refers to")
        storage = mentioned[key]
        file.seek(position)
        raw = file.read(8)
        count = int.from_bytes(raw, order)  # pyright: ignore[reportArgumentType]
        length = count * storage.dtype.itemsize
        if len(raw) < 8 or length > size - position - 8:
            raise UserError(
                f"it is cut short or damaged: storage {shown(key)} ends behind the end of the "
                f"file, which has {size:,} bytes; get the file again"
            )
        places[key] = (position + 8, length)
        position += 8 + length
    return places


def _check_kind(names: list[str], pickles: list[str]) -> None:
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise UserError(
            "it is a TorchScript program, not a state dict; in PyTorch, save its weights: "
            "torch.save(torch.jit.load(file).state_dict(), 'weights.pth')"
        )
    if any(name.endswith(".npy") for name in names):
        raise UserError(
            "it is an archive of NumPy arrays (.npz), not a file of PyTorch; of one that `python "
            "-m dmfer_jax.export` wrote, give the .safetensors file that it was made of"
        )
    if len(pickles) != 1:
        raise UserError(
            f"it is a zip archive with {len(pickles)} entries '<name>/data.pkl', and a file of "
            "PyTorch has one; if a weights file was packed into it, unpack it first"
        )


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Returns the bytes of an entry, whose checksum is compared."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise UserError(f"it has no entry {shown(name)}, which it refers to") from None
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise UserError(f"its entry {shown(name)} is compressed, and PyTorch compresses none")
    if info.file_size > most:
        raise UserError(
            f"its entry {shown(name)} has {info.file_size:,} bytes; at most {most:,} are read"
        )
    try:
        with archive.open(info) as entry:
            data = entry.read(info.file_size + 1)
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"its entry {shown(name)} is damaged ({error}); get the file again"
        ) from error
    if len(data) != info.file_size:
        raise UserError(f"its entry {shown(name)} is cut short; get the file again")
    return data


def _check_size(storage: Storage, found: int) -> None:
    expected = storage.elements * storage.dtype.itemsize
    if found != expected:
        raise UserError(
            f"storage {shown(storage.key)} has {found:,} bytes, and its pickle says {expected:,}; "
            "get the file again"
        )


class _Bounded(io.RawIOBase):
    """A file of which at most `limit` bytes are read at a time.

    Of a zip archive, Python's reader reads the directory at once, however long it says that it is,
    and makes an object of each entry.
    """

    def __init__(self, file: BinaryIO, limit: int):
        self.file, self.limit = file, limit

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size > self.limit:
            raise UserError(f"its directory of entries has {size:,} bytes; it is damaged")
        return self.file.read(self.limit if size < 0 else size)
