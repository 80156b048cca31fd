"""The steps from the first recipe of `configs/ferplus_cpu.py` to the one it has, each kept.

The last four take one part away again.
"""

from dmfer_jax.grids import Grid

VOTES = {"data.vote_power": 1.0}
NARROW = {"model.width": 0.25, **VOTES}
SMALL = {"data.image_size": 48, **NARROW}
ADAMW = {
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.008,
    "optimizer.weight_decay": 0.02,
    **SMALL,
}


def get_grid() -> Grid:
    """Returns the grid, for a few epochs of `configs/ferplus_cpu.py`."""
    return Grid(
        "adamw_48px_quarter_width",
        {
            "adamw_48px_quarter_width": ADAMW,
            "+sgd": SMALL,
            "+64px": NARROW,
            "+half_width": VOTES,
            "+squared_votes": {},
            "no_erasing": {"augment.erase": 0.0},
            "cross_entropy_alone": {"loss.name": "none"},
            "majority_labels": {"data.train_protocol": "majority", **VOTES},
            "no_moving_average": {"optimizer.ema_decay": 0.0},
        },
        {
            "+64px": "+sgd",
            "+half_width": "+64px",
            "+squared_votes": "+half_width",
            "no_erasing": "+squared_votes",
            "cross_entropy_alone": "+squared_votes",
            "majority_labels": "+half_width",
            "no_moving_average": "+squared_votes",
        },
    )
