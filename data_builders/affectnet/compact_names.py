"""Lists of names that take 8 bytes a name, where a list of its own takes 80.

With 300,000 images this and the like keep a build's memory nearly the same for any number of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Prefixed(Sequence[str]):
    """Names that begin alike."""

    def __init__(self, prefix: str, endings: Sequence[str]):
        """Takes the beginning and, in order, what follows; it is kept as it is, and shared."""
        self._prefix, self._endings = prefix, endings

    def __len__(self) -> int:
        return len(self._endings)

    def __getitem__(self, index: Any) -> Any:
        return f"{self._prefix}{self._endings[index]}"


class Chosen(Sequence[str]):
    """Some names out of others."""

    def __init__(self, names: Sequence[str], mask: np.ndarray):
        """Takes n names, and bool `[n]`."""
        self._names, self._positions = names, np.flatnonzero(mask).astype(np.uint32)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        return self._names[int(self._positions[index])]
