"""Grids of an ablation: variants of one experiment, each by the config fields that it sets.

One of the variants is the baseline that the others are compared with. A grid of one's own is a
Python file:

    from dmfer_jax.grids import Grid

    def get_grid():
        return Grid("plain", {"plain": {"augment.erase": 0.0}, "erase": {"augment.erase": 0.5}})
"""

import difflib
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dmfer_jax.config import get_config, validate
from dmfer_jax.errors import UserError
from dmfer_jax.run_folder import flatten


class Grid(NamedTuple):
    """Variants of an experiment.

    Attributes:
      baseline: name of the variant that the others are compared with.
      variants: {name: {"loss.margin": 0.3, ...}}, the fields that it sets. A name is that of a
        folder, too: of letters, digits and "+-_.=".
      steps: {variant: the one that it is a step from}; it is compared with that one, too.
    """

    baseline: str
    variants: dict[str, dict[str, Any]]
    steps: Mapping[str, str] = MappingProxyType({})


def _loss(name: str, centers: str = "state", **fields: float) -> dict[str, Any]:
    """Sets a loss, and where its centers live: what is learned leaves other losses without them."""
    values = {"name": name, "centers": centers, **fields}
    return {f"loss.{field}": value for field, value in values.items()}


_CENTER_COSINE = {"loss.name": "center_cosine"}
"""The loss of the method, on centers that live where the config says."""


def _parts(scales: str, attention: str, loss: dict[str, Any]) -> dict[str, Any]:
    return {"model.scales": scales, "model.attention": attention, **loss}


COMPONENTS = Grid(
    "deep",
    {
        "deep": _parts("deep", "none", _loss("none")),
        "+shallow": _parts("both", "none", _loss("none")),
        "+channel_attention": _parts("both", "channel", _loss("none")),
        "+center_cosine": _parts("both", "channel", _CENTER_COSINE),
        "squeeze_excite": _parts("both", "squeeze_excite", _CENTER_COSINE),
    },
    {
        "+channel_attention": "+shallow",
        "+center_cosine": "+channel_attention",
        "squeeze_excite": "+center_cosine",
    },
)
"""The parts of the method, each added to those before; and in the whole of it another attention."""

LOSSES = Grid(
    "cross_entropy",
    {
        "cross_entropy": _loss("none"),
        # Squared distances are far larger than losses on cosines: these have the weights of their
        # papers, 0.003 (Wen et al., ECCV 2016), 0.01 (Cai et al., FG 2018) and 0.01 (Farzaneh and
        # Qi, WACV 2021). DAN divides them by the variance of the centers, and has 1.
        "center": _loss("center", weight=0.003),
        "island": _loss("island", "learned", weight=0.01),
        "attentive_center": _loss("attentive_center", weight=0.01),
        "affinity": _loss("affinity", "learned", weight=1.0),
        "cosface": _loss("cosface", scale=64.0, margin=0.35),
        "arcface": _loss("arcface", scale=64.0, margin=0.5),
        "center_cosine": _CENTER_COSINE,
        "center_cosine_island": _loss("center_cosine_island", "learned"),
        "center_cosine_triplet": {"loss.name": "center_cosine_triplet"},
    },
)
"""The losses on the network that the config describes. The center cosine forms have the weight,
scale, margin and centers of the config (the island form always learned ones); the others have what
their papers have."""


def _one_at_a_time(**values: tuple[float, ...]) -> dict[str, dict[str, Any]]:
    return {
        f"{field}={value:g}": {f"loss.{field}": value}
        for field, of_field in values.items()
        for value in of_field
    }


SENSITIVITY = Grid(
    "as_configured",
    {
        "as_configured": {},
        **_one_at_a_time(
            weight=(0.01, 0.03, 0.1, 0.3, 1.0),
            scale=(8.0, 16.0, 30.0, 64.0),
            margin=(0.0, 0.1, 0.2, 0.3, 0.4),
            center_rate=(0.1, 0.5, 0.9),
        ),
    },
)
"""Weight, scale, margin and center rate of the center cosine loss, one at a time."""

GRIDS: dict[str, Grid] = {"components": COMPONENTS, "losses": LOSSES, "sensitivity": SENSITIVITY}
"""The grids that ship."""


def load_grid(name: str) -> Grid:
    """Returns a grid that ships, or that of a file.

    Args:
      name: one of `GRIDS`, or path of a Python file whose `get_grid()` returns a `Grid`.

    Raises:
      UserError: there is no such grid, or it is none.
    """
    if name in GRIDS:
        return GRIDS[name]
    if not Path(name).is_file():
        raise UserError(
            f"there is no grid '{name}'; the ones that ship are {', '.join(GRIDS)}. Your own is a "
            "Python file whose get_grid() returns a dmfer_jax.grids.Grid."
        )
    make = runpy.run_path(name).get("get_grid")
    grid = make() if callable(make) else None
    if not isinstance(grid, Grid):
        found = f"whose get_grid() returns {type(grid).__name__}" if make else "without get_grid()"
        raise UserError(f"{name} is a file {found}; expected one that returns a Grid")
    for variant, fields in grid.variants.items():
        if not (isinstance(variant, str) and isinstance(fields, dict)):
            raise UserError(
                f"{name}: the variant {variant!r} is {fields!r:.80}; expected a name, and a dict "
                "such as {'loss.margin': 0.3}"
            )
        if not re.fullmatch(r"[A-Za-z0-9+=_][A-Za-z0-9+=_.-]*", variant):
            raise UserError(
                f"{name}: the variant '{variant}' cannot be the name of a folder; expected "
                "letters, digits and '+-_.=', and neither '.' nor '-' in front"
            )
    if grid.baseline not in grid.variants:
        raise UserError(
            f"{name}: the baseline '{grid.baseline}' is none of the variants "
            f"{', '.join(grid.variants)}"
        )
    for variant, before in grid.steps.items():
        if variant == before or not {variant, before} <= grid.variants.keys():
            raise UserError(
                f"{name}: the step from '{before}' to '{variant}' is not one from one variant to "
                f"another; there are {', '.join(grid.variants)}"
            )
    return grid


def apply(config: ConfigDict, variant: str, fields: dict[str, Any]) -> ConfigDict:
    """Returns the config of a variant.

    Args:
      config: of the experiment; it stays as it is.
      variant: its name, for the message.
      fields: what it sets.

    Raises:
      UserError: there is no such field, or the config makes no sense with them.
    """
    changed = config.copy_and_resolve_references()
    known = flatten(get_config())
    for field, value in fields.items():
        if field not in known:
            near = difflib.get_close_matches(field, known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(f"variant '{variant}': there is no config field '{field}'.{hint}")
        try:
            changed.update_from_flattened_dict({field: value})
        except TypeError as error:
            raise UserError(
                f"variant '{variant}': config.{field} cannot be {value!r} ({error})"
            ) from error
    try:
        validate(changed)
    except UserError as error:
        raise UserError(f"variant '{variant}': {error}") from error
    return changed
