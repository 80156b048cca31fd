"""From an expression to the shape of a face, by way of facial action units.

An action unit is what one muscle group does, in the numbering of the Facial Action Coding System
(Ekman and Friesen, 1978): 12 pulls the corners of the mouth, 4 lowers the brows. An expression is a
recipe of action units, a face's shape is a function of their strengths. So weak, lopsided and mixed
expressions come out as they do on people: of the same parts, moved less far.
"""

import dataclasses

import numpy as np

from data_builders.synthetic_faces.difficulty import Difficulty
from dmfer_jax.labels import Expression

_E = Expression

_RECIPES: dict[Expression, tuple[dict[int, float], ...]] = {
    # Each variant is as frequent as the others of its expression.
    _E.NEUTRAL: ({},),
    _E.HAPPINESS: (
        {6: 0.8, 12: 0.95},
        {6: 0.9, 12: 1.0, 25: 0.8},
        {6: 1.0, 12: 1.0, 25: 1.0, 26: 0.35},
    ),
    _E.SURPRISE: (
        {1: 1.0, 2: 1.0, 5: 0.9, 25: 0.5, 26: 0.8},
        {1: 0.9, 2: 1.0, 5: 1.0, 25: 0.6, 26: 0.5, 27: 0.5},
    ),
    _E.SADNESS: (
        {1: 1.0, 4: 0.7, 15: 1.0, 17: 0.4, 43: 0.35},
        {1: 1.0, 4: 0.5, 15: 0.9, 43: 0.6},
    ),
    _E.ANGER: (
        {4: 1.0, 5: 0.5, 7: 0.5, 23: 0.7, 24: 1.0, 17: 0.3},
        {4: 1.0, 5: 0.7, 7: 0.4, 10: 0.35, 16: 0.6, 22: 0.9, 25: 0.9},
    ),
    _E.DISGUST: (
        {4: 0.35, 7: 0.5, 9: 1.0, 10: 0.8, 15: 0.6, 16: 0.5},
        {4: 0.35, 7: 0.6, 9: 1.0, 10: 1.0, 15: 0.5, 16: 0.8, 25: 0.5},
    ),
    _E.FEAR: (
        {1: 1.0, 2: 0.5, 4: 0.8, 5: 1.0, 20: 1.0, 25: 0.8, 26: 0.2},
        {1: 1.0, 2: 0.6, 4: 0.7, 5: 1.0, 20: 0.9, 16: 0.5, 25: 0.6},
    ),
    _E.CONTEMPT: ({12: 0.95, 14: 1.0}, {2: 0.45, 7: 0.2, 12: 0.85, 14: 1.0}),
}

ACTION_UNITS: tuple[int, ...] = tuple(
    sorted({unit for variants in _RECIPES.values() for variant in variants for unit in variant})
)
"""The units that any expression uses."""

_HAS_SIDES = np.array([unit not in (9, 16, 17, 22, 23, 24, 25, 26, 27) for unit in ACTION_UNITS])
"""Which units can differ between left and right; the others belong to the midline."""

_HALF = [ACTION_UNITS.index(unit) for unit in (2, 7, 12, 14)]
"""Where contempt is one-sided."""

_WEIGHTS = {
    expression: np.array(
        [[variant.get(unit, 0.0) for unit in ACTION_UNITS] for variant in variants]
    )
    for expression, variants in _RECIPES.items()
}

# What is linear in the action units, for either side: how far each unit pulls, in head units, or
# strengths 0 to 1.
_PULLS: dict[str, dict[int, float]] = {
    "brow_inwards": {4: 0.09, 9: 0.03},
    "lid_upper": {6: -0.4, 7: -0.45, 9: -0.35, 43: -0.7, 4: -0.1, 5: 0.75},
    "lid_lower": {6: -0.75, 7: -0.7, 9: -0.5, 5: 0.35},
    "cheek": {6: 0.7, 12: 0.3},
    "fold": {12: 0.6, 9: 0.7, 10: 0.4, 15: 0.15},
    "dimple": {14: 1.0},
    "corner_x": {
        **{12: 0.12, 20: 0.13, 14: 0.05},
        **{23: -0.07, 24: -0.04, 22: -0.03, 26: -0.09, 27: -0.13},
    },
    "corner_y": {12: -0.18, 15: 0.16, 20: 0.05, 14: -0.04},
    "lip_raise": {10: 0.09, 9: 0.03},
}
# The same for four points of a brow, from the nose outwards; down is positive.
_BROW_PULLS: tuple[dict[int, float], ...] = (
    {1: -0.19, 9: 0.06},
    {1: -0.13, 2: -0.06, 9: 0.06},
    {1: -0.03, 2: -0.16, 9: 0.03},
    {1: 0.05, 2: -0.15, 4: -0.03, 43: 0.02},
)
_PULL_MATRIX, _BROW_MATRIX = (
    np.array([[pull.get(unit, 0.0) for unit in ACTION_UNITS] for pull in pulls])
    for pulls in (tuple(_PULLS.values()), _BROW_PULLS)
)
_INNER_RAISER, _LOWERER = ACTION_UNITS.index(1), ACTION_UNITS.index(4)
_LOWERED = np.array([[0.16], [0.12], [0.04], [0.0]])
_TILT, _ARCH = np.array([-1, -0.4, 0.4, 1]), np.array([0.0, -1, -1, 0])


@dataclasses.dataclass(frozen=True)
class RestingFace:
    """How a person's face looks when it expresses nothing; lengths in head units."""

    brow_height: float = 0.0
    brow_tilt: float = 0.0
    brow_arch: float = 0.0
    eye_opening: float = 1.0
    eye_slant: float = 0.0
    eye_spacing: float = 0.42
    eye_width: float = 0.215
    mouth_height: float = 0.72
    mouth_width: float = 0.36
    mouth_curve: float = 0.0
    lip_thickness: float = 1.0
    fold: float = 0.1  # nasolabial folds at rest, which deepen with age


@dataclasses.dataclass(frozen=True)
class FaceShape:
    """Everything a drawing of the face's features needs; pairs are left and right, [2].

    Lengths in head units, offsets downwards; strengths 0 to 1.
    """

    brow: np.ndarray  # offsets of inner end, two points between, outer end: [2, 4]
    brow_inwards: np.ndarray
    furrow: float
    forehead: float
    lid_upper: np.ndarray
    lid_lower: np.ndarray
    eye_spacing: float
    eye_width: float
    eye_slant: float
    nose_wrinkle: float
    nose_lift: float
    flare: float
    cheek: np.ndarray
    fold: np.ndarray
    dimple: np.ndarray
    corner_x: np.ndarray
    corner_y: np.ndarray
    mouth_y: float
    mouth_middle: float
    lip_raise: np.ndarray
    opening_up: float
    opening_down: float
    square: float
    lip_upper: float
    lip_lower: float
    press: float
    chin_bulge: float
    jaw_drop: float


def draw_units(
    rng: np.random.Generator, expression: Expression, intensity: float, difficulty: Difficulty
) -> np.ndarray:
    """Draws how strongly each action unit is active.

    Args:
      rng: source of the individual differences.
      expression: what is expressed.
      intensity: how strongly, 0 to 1.
      difficulty: how much people differ.

    Returns:
      The strengths of ACTION_UNITS, [units, 2], left and right of the picture; 1 is strong.
    """
    variants = _WEIGHTS[expression]
    weights = variants[int(rng.integers(len(variants)))]
    strength = rng.normal(1, difficulty.action_unit_spread, len(ACTION_UNITS))
    lopsided = rng.normal(0, difficulty.asymmetry, len(ACTION_UNITS)) * _HAS_SIDES
    resting = np.abs(rng.normal(0, difficulty.resting_noise, len(ACTION_UNITS)))
    sides = np.stack([1 + lopsided, 1 - lopsided], 1)
    if expression == Expression.CONTEMPT:
        # Contempt is the one expression of half a face.
        sides[_HALF, int(rng.integers(2))] *= 0.08
    values = (intensity * weights * strength)[:, None] * sides + resting[:, None]
    return np.minimum(np.maximum(values, 0), 1.15)


def draw_resting_face(rng: np.random.Generator, difficulty: Difficulty) -> RestingFace:
    """Draws the face that a person has at rest."""
    n = difficulty.resting_shape * np.clip(rng.normal(size=12), -2, 2)
    return RestingFace(
        brow_height=0.025 * n[0],
        brow_tilt=0.018 * n[1],
        brow_arch=0.018 * n[2],
        eye_opening=1 + 0.1 * n[3],
        eye_slant=0.015 * n[4],
        eye_spacing=0.42 + 0.016 * n[5],
        eye_width=0.215 + 0.012 * n[6],
        mouth_height=0.72 + 0.02 * n[7],
        mouth_width=0.36 + 0.025 * n[8],
        mouth_curve=0.014 * n[9],
        lip_thickness=1 + 0.17 * n[10],
        fold=0.1 + 0.06 * abs(n[11]),
    )


def shape_face(strengths: np.ndarray, rest: RestingFace) -> FaceShape:
    """Moves the parts of a resting face as far as the action units pull them.

    Args:
      strengths: of ACTION_UNITS, [units, 2].
      rest: the face without them.

    Returns:
      The face to draw.
    """
    # Numbers of Python for the midline, and one matrix for what is linear on either side: arrays
    # of two numbers each would take five times as long.
    one = dict(zip(ACTION_UNITS, strengths.mean(1).tolist(), strict=True))
    pulled = dict(zip(_PULLS, _PULL_MATRIX @ strengths, strict=True))
    opening = one[25]
    return FaceShape(
        brow=_brow(strengths, rest),
        brow_inwards=pulled["brow_inwards"],
        furrow=_unit(one[4] * (1 - 0.5 * one[1]) + 0.2 * one[9]),
        forehead=one[1] * (1 - 0.25 * one[4]) * (0.4 + 0.6 * one[2]),
        lid_upper=0.115 * rest.eye_opening * np.maximum(1 + pulled["lid_upper"], 0.22),
        lid_lower=0.07 * rest.eye_opening * np.maximum(1 + pulled["lid_lower"], 0.0),
        eye_spacing=rest.eye_spacing,
        eye_width=rest.eye_width,
        eye_slant=rest.eye_slant + 0.04 * one[1] * (1 - one[2]) * one[43],
        nose_wrinkle=one[9],
        nose_lift=0.05 * one[9] + 0.02 * one[10],
        flare=0.6 * one[9] + 0.35 * one[22] + 0.2 * one[4],
        # None of these can be negative: no unit is, nor the fold at rest.
        cheek=np.minimum(pulled["cheek"], 1),
        fold=np.minimum(rest.fold + pulled["fold"], 1),
        dimple=np.minimum(pulled["dimple"], 1),
        corner_x=rest.mouth_width + pulled["corner_x"],
        corner_y=pulled["corner_y"] - rest.mouth_curve,
        mouth_y=rest.mouth_height
        - 0.03 * one[9]
        - 0.02 * one[17]
        + 0.04 * one[26]
        + 0.05 * one[27],
        mouth_middle=0.02 * one[12] - 0.04 * one[15] - 0.03 * one[17],
        lip_raise=pulled["lip_raise"],
        opening_up=(0.035 + 0.04 * one[10] + 0.03 * one[22]) * opening + 0.04 * one[26],
        opening_down=(0.11 + 0.06 * one[16]) * opening + 0.2 * one[26] + 0.28 * one[27],
        square=_unit(0.9 * one[22] + 0.7 * one[20] + 0.4 * one[16]),
        lip_upper=0.07 * rest.lip_thickness * (1 - 0.75 * one[24] - 0.3 * one[23] - 0.2 * one[12]),
        lip_lower=0.1 * rest.lip_thickness * (1 - 0.7 * one[24] - 0.3 * one[23] - 0.15 * one[12])
        + 0.05 * one[16],
        press=_unit(one[24] + 0.4 * one[23]),
        chin_bulge=_unit(one[17] + 0.5 * one[15]),
        jaw_drop=0.03 * opening + 0.14 * one[26] + 0.18 * one[27],
    )


def _unit(value: float) -> float:
    """Returns the value, cut to 0 to 1."""
    return min(max(value, 0.0), 1.0)


def _brow(strengths: np.ndarray, rest: RestingFace) -> np.ndarray:
    """Returns how far four points of each brow, from the nose outwards, lie below the usual."""
    moved = _BROW_MATRIX @ strengths
    # The inner brow raiser wins over the brow lowerer: that makes the slanted brows of sadness.
    raised, lowering = strengths[_INNER_RAISER], strengths[_LOWERER]
    lowered = lowering * (1 - 0.75 * np.minimum(raised, 1))
    still = rest.brow_height + rest.brow_tilt * _TILT + rest.brow_arch * _ARCH
    return (moved + _LOWERED * lowered).T + still
