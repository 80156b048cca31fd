"""Reads the numbers of AffectNet's new release, which come as one .npy file each.

There are a million of them, and `numpy.load` takes 130 microseconds for one. Their headers are few,
so each is parsed once, by NumPy's own reader, and the number is taken from behind it.
"""

import functools
import io
import math

import numpy as np

_MAGIC = b"\x93NUMPY"
_VERSION_AT, _LENGTH_AT = len(_MAGIC), len(_MAGIC) + 2


def read_number(content: bytes) -> float:
    """Returns the number that an .npy file holds, be it stored as text or as a number.

    Args:
      content: of the file: an array of one value, of any width, byte order and format version.

    Raises:
      ValueError: it is no .npy file, or cut short, or holds anything else. The message is the
        reason alone.
    """
    start = _header_end(content)
    dtype = _dtype(content[:start])
    if len(content) - start != dtype.itemsize:
        raise ValueError(
            f"it has {len(content) - start} bytes of data where its header says {dtype.itemsize}"
        )
    try:
        value = np.frombuffer(content, dtype, 1, start)[0].item() if dtype.itemsize else ""
    except SystemError as error:  # NumPy's, for codes that no character has
        raise ValueError("it holds text that cannot be read") from error
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"it holds {value!r:.40}, which is no number")
    return number


def _header_end(content: bytes) -> int:
    if not content.startswith(_MAGIC):
        raise ValueError(f"it is no .npy file; it begins with {content[:8]!r}")
    width = 2 if content[_VERSION_AT : _VERSION_AT + 1] == b"\1" else 4
    data = _LENGTH_AT + width + int.from_bytes(content[_LENGTH_AT : _LENGTH_AT + width], "little")
    if len(content) < data:
        raise ValueError(f"it has {len(content)} bytes; its header alone needs {data}")
    return data


@functools.lru_cache(maxsize=1_024)
def _dtype(header: bytes) -> np.dtype:
    """Returns how the one value behind a header is stored."""
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        # Version 3 is 2 with names of fields in any script; a number has no fields.
        wide = version in ((2, 0), (3, 0))
        read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
        shape, _, dtype = read(stream)
    except Exception as error:  # a damaged header makes Python's parser raise nearly anything
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"its header is damaged ({reason})") from error
    if dtype.hasobject:
        raise ValueError(
            "it holds a Python object, which nothing but pickle can read, and a pickle may run any "
            "program when it is read; store the number itself: "
            "numpy.save(file, numpy.asarray(number, float))"
        )
    if math.prod(shape) != 1 or dtype.kind not in "USiuf":
        raise ValueError(f"it holds an array of shape {shape} and type {dtype}, not one number")
    return dtype
