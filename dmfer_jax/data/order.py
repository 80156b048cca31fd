"""Which example stands at each place of the order that training reads, for many places at once.

An order has no end and is a function of its seed alone. So a run that starts again at any step, and
any of several hosts, finds its examples without reading what came before.
"""

import functools
from collections.abc import Callable

import numpy as np

Order = Callable[[np.ndarray], np.ndarray]
"""Takes places int64 `[n]`, counted from 0 without end, and returns examples int64 `[n]`."""


def natural_order(examples: int, seed: int) -> Order:
    """Returns the order in which each epoch holds every example once, shuffled anew.

    Args:
      examples: how many there are.
      seed: 0 to 2**32 - 1.
    """

    # The epoch that ends, the one that begins, and one that another thread has gone ahead to.
    @functools.lru_cache(maxsize=3)
    def draw_epoch(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, 2, epoch]).permutation(examples)

    def examples_at(places: np.ndarray) -> np.ndarray:
        epochs, within = np.divmod(places, examples)
        found = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            found[chosen] = draw_epoch(epoch)[within[chosen]]
        return found

    return examples_at


def mixed_order(labels: np.ndarray, sampling: str, seed: int) -> Order:
    """Returns an order in which classes have another share than they have of the examples.

    The order consists of windows with so many of each class, each window shuffled. Grain's own
    mixture repeats a pattern of classes, of which a host that reads every eighth example would see
    one class alone; and its shuffle takes milliseconds for each example of a class that has few.

    Args:
      labels: int `[n]`, the class of each example.
      sampling: "balanced" or "square_root"; see `pipeline.train_batches`.
      seed: 0 to 2**32 - 1.
    """
    present, numbers = np.unique(labels, return_counts=True)
    members = [np.flatnonzero(labels == label) for label in present]
    weights = np.sqrt(numbers) if sampling == "square_root" else np.ones(len(present))
    shares = np.rint(weights / weights.sum() * _WINDOW * len(present)).astype(int)
    shares = np.maximum(shares, 1).tolist()  # however rare a class is, it occurs
    in_order = np.repeat(np.arange(len(shares)), shares)

    @functools.lru_cache(maxsize=32)
    def draw_window(window: int) -> np.ndarray:
        """The examples of a window."""
        classes = np.random.default_rng([seed, 0, window]).permutation(in_order)
        found = np.empty_like(classes)
        for chosen, share in enumerate(shares):
            of_class = window * share + np.arange(share)
            passes, positions = np.divmod(of_class, len(members[chosen]))
            drawn = {number: draw_pass(chosen, number) for number in np.unique(passes).tolist()}
            found[classes == chosen] = [
                drawn[number][position]
                for number, position in zip(passes.tolist(), positions.tolist(), strict=True)
            ]
        return found

    # Enough for the passes that several threads are in: about four integers an example.
    @functools.lru_cache(maxsize=4 * len(members))
    def draw_pass(chosen: int, number: int) -> np.ndarray:
        """The examples of a class in the order in which they come for the nth time."""
        return np.random.default_rng([seed, 1, chosen, number]).permutation(members[chosen])

    def examples_at(places: np.ndarray) -> np.ndarray:
        windows, within = np.divmod(places, len(in_order))
        found = np.empty_like(places)
        for window in np.unique(windows).tolist():
            chosen = windows == window
            found[chosen] = draw_window(window)[within[chosen]]
        return found

    return examples_at


_WINDOW = 100
"""Examples per class, on average, after which each class has had its share exactly."""
