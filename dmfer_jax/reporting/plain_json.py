"""JSON that any reader accepts.

Logs and reports hold numbers that come from arrays and may be NaN after a run diverged. Python
would write `NaN`, which is not JSON; here it becomes null.
"""

import json
import math
from collections.abc import Mapping
from typing import Any


def to_plain(value: Any) -> Any:
    """Returns the value as dicts, lists, strings, numbers and None, ready for JSON.

    Args:
      value: nested mappings, sequences, and NumPy or JAX scalars and arrays. Numbers that are not
        finite become None; anything else that JSON does not know becomes its text.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    return str(value)


def dump_line(value: Any) -> str:
    """Returns the value as JSON on one line, without a newline at the end."""
    return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False)
