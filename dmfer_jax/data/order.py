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

    It is that of `grain.MapDataset.range(examples).seed(seed).shuffle().repeat()`, to the last
    example. Grain computes it place by place, at 22 microseconds and more each; here a batch of 128
    takes less than 100. As in Grain, one number of examples is an exception: of 65,537 the last
    one never comes and another comes twice, since their bits are counted one too few.

    Args:
      examples: how many there are.
      seed: 0 to 2**32 - 1.
    """
    # How Grain derives the seed of a shuffle that stands right behind `seed`.
    first_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint32)[0])

    @functools.lru_cache(maxsize=8)
    def draw_epoch(epoch: int) -> np.ndarray:
        return _permute_all(examples, (first_seed + epoch) % 2**32)

    def examples_at(places: np.ndarray) -> np.ndarray:
        epochs, within = np.divmod(places, examples)
        found = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            if examples <= _SMALL:
                found[chosen] = draw_epoch(epoch)[within[chosen]]
            else:
                found[chosen] = _permute(within[chosen], examples, (first_seed + epoch) % 2**32)
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

    # Room for what several threads read at once: about four integers an example.
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


_SMALL = 2**16
"""Up to so many examples a permutation is computed whole, since to find one place it may take as
many steps as to find all."""


def _permute(places: np.ndarray, examples: int, seed: int) -> np.ndarray:
    """Returns where a permutation of more than `_SMALL` examples has these places.

    It is Grain's `index_shuffle`: a Feistel cipher permutes all numbers of so many bits, and is
    applied again to what comes out too large (cycle walking,
    https://www.cs.ucdavis.edu/~rogaway/papers/subset.pdf); its rounds are those of Simon
    (https://eprint.iacr.org/2013/404).
    """
    bits = int(np.ceil(np.log2(examples - 1)))  # as Grain counts them: one too few for 2**16 + 1
    word = (bits + 1) // 2
    found = _encrypt(places.astype(np.uint64), word, _round_keys(seed))
    while len(beyond := np.flatnonzero(found >= examples)):
        found[beyond] = _encrypt(found[beyond], word, _round_keys(seed))
    return found.astype(np.int64)


def _permute_all(examples: int, seed: int) -> np.ndarray:
    """Returns the whole permutation that `_permute` tells of, for at most `_SMALL` examples."""
    if examples == 1:
        return np.zeros(1, np.int64)
    following = _encrypt(np.arange(_SMALL, dtype=np.uint64), 8, _round_keys(seed)).astype(np.int64)
    # Where the walk from a number ends: it stays where it is allowed to, and any other takes the
    # place of its successor's, twice as far each time.
    ends = np.where(np.arange(_SMALL) < examples, np.arange(_SMALL), following)
    for _ in range(16):
        ends = ends[ends]
    return ends[following[:examples]]


def _encrypt(values: np.ndarray, word: int, keys: tuple[int, ...]) -> np.ndarray:
    """Encrypts numbers uint64 of two words of so many bits."""
    mask = 2**word - 1

    def scramble(half: np.ndarray) -> np.ndarray:
        once, twice, far = (half << shift | half >> word - shift for shift in (1, 2, 8))
        return (once & far ^ twice) & mask

    left, right = values >> word & mask, values & mask
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left ^= scramble(right) ^ first & mask
        right ^= scramble(left) ^ second & mask
    return left << word | right


@functools.lru_cache(maxsize=8)
def _round_keys(seed: int) -> tuple[int, ...]:
    """Returns four keys of a seed, each of 32 bits, as C++'s std::seed_seq makes them."""
    number, mask = 4, 2**32 - 1
    keys = [0x8B8B8B8B] * number
    for k in range(2 * number):
        here, after, behind = k % number, (k + 1) % number, (k + 2) % number
        three = keys[here], keys[after], keys[(k - 1) % number]
        if k < number:
            mixed = three[0] ^ three[1] ^ three[2]
            factor = 1664525 * (mixed ^ mixed >> 27) & mask
            added = factor + (1 if k == 0 else here + seed if k == 1 else here) & mask
            keys[after] = keys[after] + factor & mask
            keys[behind] = keys[behind] + added & mask
        else:
            mixed = sum(three) & mask
            factor = 1566083941 * (mixed ^ mixed >> 27) & mask
            added = factor - here & mask
            keys[after] ^= factor
            keys[behind] ^= added
        keys[here] = added
    return tuple(keys)
