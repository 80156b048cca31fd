"""Divides images into splits by a hash of their names alone.

So the same images are divided in the same way on every machine, in every layout and packing, and
whatever order they are met in.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np


def place(unit: str) -> float:
    """Returns a number from 0 to 1 that a text alone decides, evenly spread over many texts."""
    digest = hashlib.sha256(unit.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def mixed_order(names: Sequence[str]) -> np.ndarray:
    """Returns the positions int `[n]` of names in the order of their places: mixed, yet fixed."""
    places = np.fromiter((place(name) for name in names), np.float64, len(names))
    return np.argsort(places, kind="stable")


def choose_of_each_class(
    names: Sequence[str], labels: np.ndarray, number_of: Callable[[int], int]
) -> np.ndarray:
    """Chooses some images of each class.

    Args:
      names: n of them.
      labels: int `[n]`.
      number_of: tells how many to choose of a class of so many images.

    Returns:
      bool `[n]`. A name that is added changes the choice by one name of its class at most.
    """
    chosen = np.zeros(len(names), bool)
    order = mixed_order(names)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen[members[: number_of(len(members))]] = True
    return chosen
