"""Forms and weights of the center cosine loss, and where its centers come from, in short runs."""

from dmfer_jax.grids import Grid

LEARNED = {"loss.centers": "learned"}


def get_grid() -> Grid:
    """Returns the grid, for a few epochs of `configs/ferplus_face_cpu.py`."""
    return Grid(
        "cross_entropy",
        {
            "cross_entropy": {"loss.name": "none"},
            "center_cosine": {},
            "hard_labels": {"loss.center_labels": "hard"},
            "weight=0.01": {"loss.weight": 0.01},
            "learned": LEARNED,
            "learned_weight=1": {"loss.weight": 1.0, **LEARNED},
            "island": {"loss.name": "center_cosine_island", **LEARNED},
            "triplet": {"loss.name": "center_cosine_triplet"},
        },
    )
