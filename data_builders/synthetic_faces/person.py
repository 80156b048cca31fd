"""Who is drawn: skull, colours, hair, beard, glasses and make-up, all without any expression."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from data_builders.synthetic_faces.difficulty import Difficulty
from data_builders.synthetic_faces.drawing import Colour, mix
from data_builders.synthetic_faces.expression import RestingFace, draw_resting_face
from data_builders.synthetic_faces.head import HeadShape

_SKINS = np.array(
    [
        [246, 216, 196],
        [238, 200, 172],
        [226, 182, 148],
        [206, 158, 120],
        [178, 128, 92],
        [146, 100, 70],
        [112, 74, 52],
        [88, 58, 42],
    ],
    float,
)
_HAIRS = np.array(
    [
        [24, 20, 20],
        [46, 32, 24],
        [84, 56, 36],
        [122, 82, 48],
        [206, 168, 104],
        [152, 70, 36],
        [150, 148, 146],
        [218, 214, 208],
    ],
    float,
)
_IRISES = np.array(
    [[62, 40, 24], [88, 58, 30], [70, 104, 70], [72, 112, 156], [92, 104, 112]], float
)
_LIPSTICKS = np.array([[190, 30, 50], [200, 80, 100], [140, 30, 60], [214, 96, 84]], float)

HAIR_STYLES = (
    "bald",
    "short",
    "parted",
    "fringe",
    "receding",
    "long",
    "long_fringe",
    "afro",
    "bun",
)
_STYLE_CHANCES = (
    # First those of people without a beard, then of people who may have one.
    [0.006, 0.108, 0.15, 0.12, 0.009, 0.3, 0.2, 0.07, 0.16],
    [0.06, 0.18, 0.15, 0.06, 0.09, 0.0375, 0.01, 0.07, 0.012],
)

BEARDS = ("none", "stubble", "full", "goatee", "moustache")
_BEARD_CHANCES = [0.4, 0.25, 0.13, 0.08, 0.14]

_GLASSES_CHANCES = [0.78, 0.11, 0.11]

_LIGHT_HAIRS = 4  # entries of _HAIRS from here on go with light skin, or with age


@dataclasses.dataclass(frozen=True)
class Person:
    """One person. Colours are float [3], 0 to 255."""

    skull: HeadShape
    rest: RestingFace
    skin: Colour
    hair: Colour
    brows: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    style: str
    hair_volume: float
    parting: float  # -1 to 1, where the hairline is highest
    brow_width: float
    beard: str
    lashes: float  # 0 to 1
    eye_shadow: float  # 0 to 1
    shadow_colour: Colour
    blush: float  # 0 to 1
    glasses: str  # "none", "round", "square"
    frame: Colour
    nose_width: float
    nose_length: float
    freckles: bool


def draw_person(rng: np.random.Generator, difficulty: Difficulty) -> Person:
    """Draws a person at random."""

    def between(low: float, high: float) -> float:
        """Draws a number as `rng.uniform` does, which takes five times as long for only one."""
        return low + (high - low) * rng.random()

    tone = between(0, len(_SKINS) - 1)
    low = int(tone)
    skin = mix(_SKINS[low], _SKINS[min(low + 1, len(_SKINS) - 1)], tone - low)
    skin = skin + rng.normal(0, 4, 3)
    hairs = len(_HAIRS) if tone < 3 else _LIGHT_HAIRS
    hair = _HAIRS[int(rng.integers(hairs))] + rng.normal(0, 6, 3)
    if rng.random() < 0.12:
        hair = _HAIRS[-2 + int(rng.integers(2))] + rng.normal(0, 4, 3)
    if rng.random() < 0.04:
        hair = rng.uniform(40, 220, 3)
    # Two bodies of traits that tend to go together, so that the faces look like people.
    bearded = rng.random() < 0.5
    make_up = 0.0 if bearded else float(rng.random() < 0.5)
    natural = mix(skin, np.array([176.0, 72, 72]), 0.42)
    lips = mix(natural, _LIPSTICKS[int(rng.integers(4))], make_up * between(0.3, 0.85))
    return Person(
        skull=HeadShape(
            width=between(0.92, 1.07),
            crown=between(-1.48, -1.32),
            chin=between(1.16, 1.34),
            jaw=between(2.1, 3.0) if bearded else between(1.9, 2.5),
            depth=between(0.95, 1.05),
        ),
        rest=draw_resting_face(rng, difficulty),
        skin=skin,
        hair=hair,
        brows=mix(np.minimum(hair, skin - 45), np.array([30.0, 22, 20]), 0.45),
        iris=_IRISES[int(rng.integers(5 if tone < 3 else 2))] + rng.normal(0, 6, 3),
        lips=lips,
        clothes=rng.uniform(20, 235, 3),
        style=_choose(rng, HAIR_STYLES, _STYLE_CHANCES[bearded]),
        hair_volume=between(1.05, 1.14),
        parting=between(-1, 1),
        brow_width=between(0.85, 1.2) if bearded else between(0.65, 1.0),
        beard=_choose(rng, BEARDS, _BEARD_CHANCES) if bearded else "none",
        lashes=0.2 if bearded else between(0.4, 1),
        eye_shadow=make_up * between(0, 0.6),
        shadow_colour=rng.uniform([80, 40, 60], [190, 130, 200]),
        blush=between(0, 0.35) + 0.25 * make_up,
        glasses=_choose(rng, ("none", "round", "square"), _GLASSES_CHANCES),
        frame=mix(np.array([30.0, 28, 30]), rng.uniform(20, 200, 3), between(0, 0.8)),
        nose_width=between(0.85, 1.25),
        nose_length=between(-0.04, 0.04),
        freckles=bool(tone < 2 and rng.random() < 0.2),
    )


def _choose(rng: np.random.Generator, names: Sequence[str], chances: Sequence[float]) -> str:
    """Draws a name; the chances need not add up to 1. Far faster than `rng.choice`."""
    return names[bisect.bisect(list(itertools.accumulate(chances)), rng.random() * sum(chances))]
