"""JSON of a file that a stranger made: one meaning or none.

Python's reader takes the last of two equal keys, takes NaN, and takes as many levels as it can
bear. In a file that tells what a network's outputs mean, each of these is damage or a trap.
"""

import json
from typing import Any

_MOST_LEVELS = 16  # the manifest of this project has 4


def parse_object(text: bytes) -> dict[str, Any]:
    """Returns the object that a text holds.

    Raises:
      ValueError: as `parse`, or it holds something else.
    """
    value = parse(text)
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__} and no object")
    return value


def parse(text: bytes) -> Any:
    """Returns the value that a text holds.

    Args:
      text: UTF-8, of a size that was checked: what is made of it may need 30 times its memory.

    Raises:
      ValueError: it is no such text, has a key twice, a number that is not finite, or a whole one
        of more than 64 bits, or too many levels. The message is the reason alone.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_levels(value, _MOST_LEVELS)
    return value


def canonical(value: Any) -> bytes:
    """Returns the one text of a value: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {key[:60]!r} twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it has {name}, which is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"it has the number {digits[:40]}, which is too large")
    return number


def _whole(digits: str) -> int:
    number = int(digits)
    if abs(number) >= 2**63:
        raise ValueError(f"it has the number {digits[:40]}, which is too large")
    return number


def _check_levels(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if not left:
        raise ValueError("it is nested too deeply")
    for item in value.values() if isinstance(value, dict) else value:
        _check_levels(item, left - 1)
