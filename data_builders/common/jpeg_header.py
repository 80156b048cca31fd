"""Reads the size of a JPEG from its first bytes.

Pillow takes 100 microseconds to look at a header, as much as reading the file, hashing it and
writing it together, and most images of large datasets need nothing else. What is in any way unusual
is left to Pillow.
"""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all with Huffman codes
_SCAN = 0xDA  # the pixels begin
_SKIPPED = (0xC4, *range(0xDB, 0xFF))  # tables, comments and what applications have put in


def whole_jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Returns width and height in pixels; None if it is no JPEG, an unusual one, or cut short."""
    if not (encoded.startswith(_START) and encoded.endswith(_END)):
        return None
    at, size = len(_START), None
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        kind = encoded[at + 1]
        if kind == _SCAN:
            return size
        if kind in _FRAMES and encoded[at + 4] == 8:  # bits
            height = int.from_bytes(encoded[at + 5 : at + 7], "big")
            width = int.from_bytes(encoded[at + 7 : at + 9], "big")
            size = (width, height) if width and height else None
        elif kind not in _SKIPPED:
            break
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return None
