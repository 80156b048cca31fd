"""Inputs for fuzzing: valid files that were mutated as damage and strangers would, and raw bytes.

What Hypothesis draws is a short list of numbers, and a pure function makes a file of them. So a
failure is repeated from its seed, and drawing costs little beside what is tested.
"""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

WORDS: tuple[bytes, ...] = (
    b"", b" ", b",", b";", b"\t", b'"', b'""', b"'", b"\0", b"\r", b"\n", b"\r\n", b"/", b"..",
    b"\\", b"-1", b"+3", b"0", b"00", b"1", b"7", b"8", b"10", b"255", b"256", b"1_0", b"3.0",
    b"3.5", b"0x1", b"1e999", b"-1e999", b"nan", b"inf", b"-inf", b"None", b"true", b"9" * 20,
    b"9" * 5_000, "\u0663".encode(), "\uff13".encode(), "\u00b2".encode(), "\u2028".encode(),
    "\ufeff".encode(), "\u202e".encode(), b"\x85", b"\xff", b"\xed\xa0\x80", b"\x1b[31m", b"\x7f",
    b"\x1a", b"/etc/passwd", b"../../x", b"C:\\x", b"%s%n{0}", b"a" * 300, b"a" * 140_000, b"{",
    b"[" * 3_000,
)  # fmt: skip
"""What is put into cells, texts and keys."""

_Edit = tuple[int, int, int]  # which edit, and two numbers that say where and what


def edited(files: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Returns a strategy for files that were valid, and one in six of raw bytes.

    Args:
      files: valid ones, of lines and cells or binary.
    """
    edit = st.tuples(st.integers(0, len(_EDITS) - 1), st.integers(0, 2**31), st.integers(0, 2**31))
    of_valid = st.builds(_apply, st.sampled_from(files), st.lists(edit, max_size=4))
    raw = st.one_of(st.binary(max_size=300), st.text(max_size=100).map(_encode))
    return st.one_of(*[of_valid] * 5, raw)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _apply(content: bytes, edits: list[_Edit]) -> bytes:
    for number, where, what in edits:
        content = _EDITS[number](content, where, what)
    return content


def _of_lines(edit: Callable[[list[bytes], int, int], None]) -> Callable[[bytes, int, int], bytes]:
    """Makes an edit of a list of lines one of a file."""

    def apply(content: bytes, where: int, what: int) -> bytes:
        lines = content.split(b"\n")
        edit(lines, where % len(lines), what)
        return b"\n".join(lines)

    return apply


def _of_cells(edit: Callable[[list[bytes], int, int], None]) -> Callable[[bytes, int, int], bytes]:
    """Makes an edit of a list of cells one of a file, whatever separates its cells."""

    def of_line(lines: list[bytes], at: int, what: int) -> None:
        line = lines[at]
        separator = max((b",", b";", b" ", b"/", b"_"), key=line.count)
        cells = line.split(separator)
        edit(cells, what % len(cells), what // 7)
        lines[at] = separator.join(cells)

    return _of_lines(of_line)


def _word(what: int) -> bytes:
    return WORDS[what % len(WORDS)]


def _swap_lines(lines: list[bytes], at: int, what: int) -> None:
    other = what % len(lines)
    lines[at], lines[other] = lines[other], lines[at]


def _swap_cells(cells: list[bytes], at: int, what: int) -> None:
    _swap_lines(cells, at, what)


def _repeat_line(lines: list[bytes], at: int, what: int) -> None:
    lines[at:at] = [lines[at]] * (1 + what % 5)


def _repeat_cell(cells: list[bytes], at: int, what: int) -> None:
    cells[at:at] = [cells[at]] * (1 + what % 3)


def _drop(parts: list[bytes], at: int, what: int) -> None:
    del parts[at]


def _replace(parts: list[bytes], at: int, what: int) -> None:
    parts[at] = _word(what)


def _quote(cells: list[bytes], at: int, what: int) -> None:
    cells[at] = b'"' + cells[at] + b'"' * (what % 2)


def _insert(content: bytes, where: int, what: int) -> bytes:
    at = where % (len(content) + 1)
    return content[:at] + _word(what) + content[at:]


def _flip(content: bytes, where: int, what: int) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    changed[where % len(content)] ^= 1 << what % 8
    return bytes(changed)


def _cut(content: bytes, where: int, what: int) -> bytes:
    return content[: where % (len(content) + 1)]


def _cut_out(content: bytes, where: int, what: int) -> bytes:
    at = where % (len(content) + 1)
    return content[:at] + content[at + 1 + what % 40 :]


def _end_lines_otherwise(content: bytes, where: int, what: int) -> bytes:
    return content.replace(b"\n", (b"\r\n", b"\r", b"\n\n", b" \n")[what % 4])


def _encode_otherwise(content: bytes, where: int, what: int) -> bytes:
    text = content.decode("latin-1")
    return text.encode(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")[what % 4], "replace")


def _separate_otherwise(content: bytes, where: int, what: int) -> bytes:
    return content.replace(b",", (b";", b"\t", b", ", b" ")[what % 4])


def _append(content: bytes, where: int, what: int) -> bytes:
    return content + _word(what) * (1 + where % 3)


_EDITS: tuple[Callable[[bytes, int, int], bytes], ...] = (
    *map(_of_lines, (_swap_lines, _repeat_line, _drop, _replace)),
    *map(_of_cells, (_swap_cells, _repeat_cell, _drop, _replace, _replace, _quote)),
    _insert, _insert, _flip, _cut, _cut_out,
    _end_lines_otherwise, _encode_otherwise, _separate_otherwise, _append,
)  # fmt: skip

_DEEP: Any = [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**63, 10**30, 0.0, 0.5, 1.0, -1.0, 1e300, 5e-324,
    "", " ", "a", "float32", "F32", "BF16", "\0", "\ud800", "\u202e", "a" * 300, [], {}, [[]], [0],
    [1], [1, 2], [2**40], [-1], ["a"], ["a", "a"], ["a", "b"], {"a": 1}, _DEEP,
)  # fmt: skip


def edited_json(value: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy for copies of a JSON value in which one to three things were changed."""
    change = st.tuples(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 4))
    text = json.dumps(value)
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: _change(text, changes))


def _change(text: str, changes: list[tuple[int, int, int]]) -> Any:
    value = json.loads(text)
    for where, what, kind in changes:
        places = list(_places(value))
        if not places:
            break
        holder, key = places[where % len(places)]
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[("a", "", "dtype", "depthwise", "0" * 300)[what % 5]] = holder.pop(key)
        elif kind == 2:
            holder[key] = copy.deepcopy(value)
        else:
            holder[key] = copy.deepcopy(_VALUES[what % len(_VALUES)])
    return value


def _places(value: Any) -> Any:
    """Yields what holds each part of a value, and the part's key in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])
