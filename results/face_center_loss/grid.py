"""Forms and weights of the center cosine loss, and the labels that it takes, for a few epochs."""

from dmfer_jax.grids import Grid

HARD = {"loss.center_labels": "hard"}
ISLAND = {"loss.name": "center_cosine_island", "loss.centers": "learned"}
TRIPLET = {"loss.name": "center_cosine_triplet"}


def get_grid() -> Grid:
    """Returns the grid, for `configs/ferplus_face_cpu.py`."""
    return Grid(
        "cross_entropy",
        {
            "cross_entropy": {"loss.name": "none"},
            "center_cosine": {},
            "hard_labels": HARD,
            "weight=0.01": {"loss.weight": 0.01},
            "island": ISLAND,
            "triplet": TRIPLET,
            "hard_labels_weight=0.01": {"loss.weight": 0.01, **HARD},
            "hard_labels_scale=8": {"loss.scale": 8.0, **HARD},
            "hard_labels_island": {**ISLAND, **HARD},
            "hard_labels_triplet": {**TRIPLET, **HARD},
        },
    )
