"""How the center cosine loss is weighed, and where its centers come from, in short runs."""

from dmfer_jax.grids import Grid

LEARNED = {"loss.centers": "learned"}


def get_grid() -> Grid:
    """Returns the grid, for a few epochs of `configs/ferplus_face_cpu.py`."""
    return Grid(
        "cross_entropy",
        {
            "cross_entropy": {"loss.name": "none", "loss.centers": "state"},
            "center_cosine": {"loss.centers": "state"},
            "hard_labels": {"loss.centers": "state", "loss.center_labels": "hard"},
            "weight=0.01": {"loss.centers": "state", "loss.weight": 0.01},
            "learned": LEARNED,
            "learned_weight=1": {"loss.weight": 1.0, **LEARNED},
        },
    )
