"""What the makers of TPU chips state of them, and the slices of them that can be had."""

from typing import NamedTuple

from dmfer_jax.errors import UserError

SLICES: dict[str, int] = {
    "1x1": 1,
    "2x2": 4,
    "2x4": 8,
    "4x4": 16,
    "4x8": 32,
    "8x8": 64,
    "8x16": 128,
    "16x16": 256,
}
"""Shape -> chips: the slices that both pages below list; the largest is a whole pod."""


class Chip(NamedTuple):
    """A chip as its datasheet describes it.

    Attributes:
      name: as it begins the name of a topology.
      memory_bytes: of its HBM; a GB is taken as 1e9 bytes, the smaller of its two meanings.
      flops: bfloat16 operations per second at most.
      memory_rate: bytes per second to and from HBM.
      interconnect_rate: bytes per second out to the other chips of a slice; as many come in. The
        datasheet states both directions together.
      source: the page that the figures come from.
    """

    name: str
    memory_bytes: float
    flops: float
    memory_rate: float
    interconnect_rate: float
    source: str


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v5e", 16e9, 197e12, 819e9, 400e9 / 2, "https://cloud.google.com/tpu/docs/v5e"),
        Chip("v6e", 32e9, 918e12, 1638e9, 800e9 / 2, "https://cloud.google.com/tpu/docs/v6e"),
    )
}
"""Name -> chip."""


class Topology(NamedTuple):
    """A slice: so many chips of one kind, in a shape."""

    name: str
    chip: Chip
    chips: int


def find_topology(name: str) -> Topology:
    """Returns the slice of a name such as "v5e:2x4".

    Raises:
      UserError: there is no such slice; the message lists those there are.
    """
    kind, _, shape = name.partition(":")
    # Checked here and not left to libtpu, which a shape such as 0x2 kills.
    if kind not in CHIPS or shape not in SLICES:
        raise UserError(
            f"there is no TPU topology '{name}'; expected a chip ({', '.join(CHIPS)}), a colon and "
            f"a shape ({', '.join(SLICES)}), such as v5e:2x4, which is 8 chips"
        )
    return Topology(name, CHIPS[kind], SLICES[shape])
