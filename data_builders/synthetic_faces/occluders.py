"""Draws what hides part of a face: hands, masks, scarves, dark glasses and blocks."""

from collections.abc import Callable

import numpy as np

from data_builders.synthetic_faces.drawing import Sketch, curve, ellipse, mix, path
from data_builders.synthetic_faces.features import SIGNS
from data_builders.synthetic_faces.person import Person
from data_builders.synthetic_faces.portrait import draw_glasses

_MASKS = np.array([[120, 178, 214], [238, 240, 240], [34, 34, 40], [176, 206, 190]], float)


def draw_occluder(sketch: Sketch, person: Person, kind: str, rng: np.random.Generator) -> None:
    """Draws one occluder over a finished portrait.

    Args:
      sketch: the portrait.
      person: who is hidden; hands have that skin.
      kind: one of OCCLUSIONS but "none".
      rng: source of the occluder's place, size and colour.
    """
    _DRAW[kind](sketch, person, rng)


def _draw_hand(sketch: Sketch, person: Person, rng: np.random.Generator) -> None:
    """A hand with its fingers laid across part of the face."""
    head = sketch.head
    places = np.array([[0.0, 0.75], [-0.45, 0.55], [0.45, 0.55], [-0.42, -0.05], [0.42, -0.05]])
    target = head.place(places[int(rng.integers(5))][None])[0]
    target = target + rng.normal(0, 0.08, 2) * head.scale
    # The arm comes from below, on the side of the covered half.
    side = 1.0 if target[0] > head.place(np.zeros((1, 2)))[0, 0] else -1.0
    lean = np.radians(rng.uniform(10, 65)) * side
    size = float(rng.uniform(0.85, 1.05))
    up = np.array([-np.sin(lean), -np.cos(lean)])
    axes = np.stack([[-up[1], up[0]], up]) * size * head.scale
    skin = person.skin * rng.uniform(0.88, 1.02)
    edge = mix(skin, skin * [0.5, 0.36, 0.33], 0.8)
    thumb = side * (1.0 if rng.random() < 0.5 else -1.0)
    spread = float(rng.uniform(0.9, 1.35))

    def at(points) -> np.ndarray:
        """Maps points given across and along the hand to the canvas."""
        return np.asarray(points, float) @ axes + target

    sketch.fill_canvas(at([[-0.3, -0.5], [0.3, -0.5], [0.42, -3.5], [-0.42, -3.5]]), edge)
    sketch.fill_canvas(at([[-0.27, -0.5], [0.27, -0.5], [0.39, -3.5], [-0.39, -3.5]]), skin)
    palm = ellipse(np.array([0, -0.3]), np.array([0.42, 0.46]), 20)
    sketch.fill_canvas(at(ellipse(np.array([0, -0.3]), np.array([0.45, 0.49]), 20)), edge)
    fingers = [
        [[x * 0.95, -0.15], [x * spread, length * 0.5], [x * spread * 1.1, length]]
        for x, length in ((-0.3, 0.62), (-0.1, 0.78), (0.1, 0.8), (0.3, 0.66))
    ]
    fingers.append([[thumb * 0.25, -0.5], [thumb * 0.55, -0.15], [thumb * 0.6, 0.2]])
    for finger in fingers:
        points = at(curve(np.array(finger), 8))
        sketch.line_canvas(points, 0.23 * size, edge)
        sketch.line_canvas(points, 0.17 * size, skin)
        nail = ellipse(np.array(finger[-1]), np.array([0.055, 0.055]), 8)
        sketch.fill_canvas(at(nail), mix(skin, np.array([240.0, 190, 190]), 0.6))
    sketch.fill_canvas(at(palm), skin)
    for x in (-0.2, 0.0, 0.2):
        sketch.stroke_canvas(at([[x, 0.0], [x, 0.08], [x, 0.2]]), 0.05 * size, edge)


def _draw_mask(sketch: Sketch, person: Person, rng: np.random.Generator) -> None:
    """A surgical mask from the bridge of the nose to under the chin, with pleats and loops."""
    head = sketch.head
    colour = _MASKS[int(rng.integers(len(_MASKS)))] + rng.normal(0, 8, 3)
    top = 0.22 + float(rng.uniform(-0.05, 0.08))
    side = 62.0
    for sign in SIGNS:
        for start, end in ((0.4, -0.05), (0.85, 0.3)):
            strap = path(sign * np.linspace(side - 4, 90, 6), np.linspace(start, end, 6))
            if sign * head.pose.yaw <= 12:
                sketch.line_canvas(head.around(strap, 1.02), 0.045, mix(colour, 255.0, 0.4))
    turns = np.linspace(-1, 1, 31)
    edge = top + 0.12 * np.abs(turns) ** 1.5 - 0.05 * np.exp(-((turns / 0.2) ** 2))
    outline = head.around(head.front(edge, head.chin, side))
    middle = outline.mean(0)
    for grow, dark in ((1.05, 0.25), (1.01, 0.0)):
        cloth = middle + (outline - middle) * grow
        sketch.fill_canvas(cloth, mix(colour, 0.0, dark), hull=True)
    x = np.linspace(-0.66, 0.66, 14)
    for y in (0.5, 0.68, 0.86):
        pleat = path(x, y + 0.05 * (1 - (x / 0.66) ** 2))
        sketch.stroke(pleat, 0.04, mix(colour, 0.0, 0.22), 0.1)
    ridge = path(x * 0.4, top + 0.03 + 0.8 * (x * 0.4) ** 2)
    sketch.stroke(ridge, 0.04, mix(colour, 255.0, 0.4), 0.14)


def _draw_scarf(sketch: Sketch, person: Person, rng: np.random.Generator) -> None:
    """A thick scarf wound around neck and lower face, striped or plain."""
    head = sketch.head
    colour, stripe = rng.uniform(25, 225, (2, 3))
    striped = rng.random() < 0.6
    top = float(rng.uniform(0.42, 0.62))
    turns = np.linspace(-100, 100, 21)
    slope = 0.1 * (turns / 100) ** 2 * rng.uniform(-1, 1)
    rise = slope + 0.06 * np.sin(turns / 25 + rng.uniform(0, 6))
    upper = head.around(path(turns, np.minimum(top + rise, head.chin - 0.05)), 1.12)
    down = np.array([0, head.scale])
    lower = upper + down * np.linspace(1.25, 1.35, 21)[:, None]
    sketch.fill_canvas(np.concatenate([upper, lower[::-1]]), colour)
    for k in range(1, 6):
        band = upper + down * (0.22 * k)
        if striped and k % 2:
            sketch.line_canvas(band, 0.1, stripe)
        wave = path(np.zeros(21), 0.04 * np.sin(turns / 14 + k)) * head.scale
        sketch.stroke_canvas(band + down * 0.1 + wave, 0.055, mix(colour, 0.0, 0.3))
    sketch.stroke_canvas(upper, 0.06, mix(colour, 255.0, 0.15))


def _draw_dark_glasses(sketch: Sketch, person: Person, rng: np.random.Generator) -> None:
    kind = "round" if rng.random() < 0.4 else "square"
    draw_glasses(sketch, person, kind, tint=rng.uniform(8, 40, 3))


def _draw_block(sketch: Sketch, person: Person, rng: np.random.Generator) -> None:
    """A slab of one colour, of stripes or of squares, somewhere over the features."""
    spot = np.array([[rng.uniform(-0.4, 0.4), rng.uniform(-0.3, 0.85)]])
    center = sketch.head.place(spot)[0]
    half = rng.uniform([0.38, 0.28], [0.68, 0.45]) * sketch.head.scale
    if rng.random() < 0.5:
        half = half[::-1]
    angle = np.radians(rng.uniform(-25, 25))
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    axes = axes * half[:, None]
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    colour, second = rng.uniform(10, 245, (2, 3))
    sketch.fill_canvas(center + corners @ axes, colour)
    pattern = ("plain", "stripes", "squares")[int(rng.integers(3))]
    if pattern == "plain":
        return
    cells = 6
    for row in range(cells):
        for column in range(cells):
            if (row + (column if pattern == "squares" else 0)) % 2:
                low = np.array([column, row]) * 2 / cells - 1
                cell = low + (corners + 1) / cells
                sketch.fill_canvas(center + cell @ axes, second)


_DRAW: dict[str, Callable[[Sketch, Person, np.random.Generator], None]] = {
    "hand": _draw_hand,
    "mask": _draw_mask,
    "scarf": _draw_scarf,
    "dark_glasses": _draw_dark_glasses,
    "block": _draw_block,
}

OCCLUSIONS: tuple[str, ...] = ("none", *_DRAW)
"""What the feature `occlusion` says: "none", or what hides part of the face."""
