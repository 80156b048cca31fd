"""The embedding's geometry: how near examples of a class are to each other, and a map of them."""

from typing import Any

import numpy as np

from dmfer_jax.errors import UserError

PERPLEXITY = 30.0
"""About how many neighbours each point of the map minds (van der Maaten and Hinton, 2008)."""


def sample_by_class(labels: np.ndarray, limit: int, seed: int = 0) -> np.ndarray:
    """Returns positions of examples, each class equally often as far as it has that many.

    In proportion, a class of one in a hundred would be a handful of points on a map.

    Args:
      labels: int `[n]`.
      limit: how many at the most.
      seed: of the choice; the same one chooses the same examples of the same labels.

    Returns:
      int `[m]`, rising, m at most `limit`.
    """
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    chosen: list[np.ndarray] = []
    left = limit
    # From the smallest class on, what one cannot use is shared by those that come after it.
    for place, members in enumerate(sorted(shuffled, key=len)):
        chosen.append(members[: left // (len(classes) - place)])
        left -= len(chosen[-1])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, int)


def to_unit(vectors: Any) -> np.ndarray:
    """Returns vectors `[n, C]` of length 1, float64; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def class_means(unit: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the direction of each class's mean `[K, C]`; zero where it has no example.

    Args:
      unit: `[n, C]`, of length 1.
      labels: int `[n]`.
      classes: K.
    """
    return to_unit(np.eye(classes)[labels].T @ unit)


def measure_classes(unit: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> dict[str, Any]:
    """Measures how compact the classes are, and how far apart, by cosines of the embedding itself.

    Args:
      unit: `[n, C]`, of length 1.
      labels: int `[n]`.
      centers: `[K, C]`, of length 1.

    Returns:
      `within`, the cosine of two different examples of a class; `between`, of two examples of
      different classes; `to_center`, of an example and its class's center: means over the pairs of
      a class or of two, then over these, so that each class counts the same, however many examples
      it has. `silhouette` (cosine distance; Rousseeuw, 1987), the mean over the examples, -1 to 1.
      None where undefined.
    """
    from sklearn.metrics import silhouette_score  # `draw_map` says what to do without it

    numbers = np.bincount(labels, minlength=len(centers))
    held = np.flatnonzero(numbers)
    sums = np.array([unit[labels == label].sum(axis=0) for label in held])
    n = numbers[held]
    products = sums @ sums.T
    pairs = n > 1  # an example alone has no other of its class
    own = [float((unit[labels == label] @ centers[label]).mean()) for label in held]
    within = (np.diag(products)[pairs] - n[pairs]) / (n[pairs] * (n[pairs] - 1))
    between = (products / np.outer(n, n))[~np.eye(len(held), dtype=bool)]
    defined = 1 < len(held) < len(labels)
    silhouette = silhouette_score(unit, labels, metric="cosine") if defined else None
    return {
        "silhouette": None if silhouette is None else float(silhouette),
        "within": float(within.mean()) if within.size else None,
        "between": float(between.mean()) if between.size else None,
        "to_center": float(np.mean(own)),
    }


def check_scikit_learn() -> None:
    """Raises a UserError if scikit-learn is missing; better before a network is run than after."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise UserError(
            "the map of embeddings needs scikit-learn, which is not installed; install it with "
            "pip install 'dmfer-jax[explain]', or pip install scikit-learn"
        ) from None


def lay_out(unit: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns a place in the plane for each vector, by t-SNE on cosine distances: float `[n, 2]`.

    Only who is near whom means anything: distances between groups, their sizes and the axes do not.

    Args:
      unit: `[n, C]`, of length 1; at least 4.
      seed: of the random numbers; the start is the plane of the two largest components.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    layout = TSNE(metric="cosine", perplexity=perplexity, init="pca", random_state=seed)
    # One thread: where cores are shared, its threads wait for each other a hundred times as long
    # as they compute, and sums come in any order.
    with threadpool_limits(1):
        return layout.fit_transform(unit)
