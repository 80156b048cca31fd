"""Draws a person back to front: shoulders, hair, skull, face, beard, fringe and glasses."""

import numpy as np

from data_builders.synthetic_faces import features
from data_builders.synthetic_faces.drawing import Colour, Sketch, curve, ellipse, mix, path
from data_builders.synthetic_faces.expression import FaceShape
from data_builders.synthetic_faces.features import SIGNS
from data_builders.synthetic_faces.head import Head
from data_builders.synthetic_faces.person import Person

_SIDE = 95.0
_HAIRLINE_TURNS = np.linspace(-_SIDE, _SIDE, 41)
_LONG = ("long", "long_fringe")
# Turn and height; and offsets from them, or from other points, in head units.
_HANG = np.array([[-100.0, 0.1], [100.0, 0.1]])
_HANG_DOWN = np.array([[-0.09, 1.35], [0.09, 1.35]])
_NECK = np.array([[-0.6, -0.4], [0.6, -0.4], [0.69, 1.1], [-0.69, 1.1]])
_SHOULDERS = path(
    np.array([-1.75, -0.62, -0.3, 0, 0.3, 0.62, 1.75, 1.75, -1.75]),
    np.array([0.5, -0.05, 0.22, 0.3, 0.22, -0.05, 0.5, 4, 4]),
)
_LOBE = ellipse(np.zeros(2), (0.13, 0.25), 16) @ np.array([[0.75, 0, -1], [0, 1, 0]])
_EAR = np.concatenate([_LOBE, 0.55 * _LOBE])  # the ear and its hollow, [32, 3]
_EYE_LEVEL = np.full(41, 0.1)
_STRAND = np.linspace(0, 1, 6)
_MOUSTACHE_TAPER = np.interp(np.linspace(0, 1, 10), [0, 0.5, 1], [0.13, 0.14, 0.04])


def draw_portrait(
    sketch: Sketch, person: Person, face: FaceShape, rng: np.random.Generator
) -> None:
    """Draws the whole person.

    Args:
      sketch: what to draw on; empty.
      person: who.
      face: the expression.
      rng: source of what has nothing to do with either: gaze, strands, freckles.
    """
    far = 1 if sketch.head.pose.yaw > 0 else 0
    _draw_body(sketch, person)
    _draw_ear(sketch, person, far)
    _draw_back_hair(sketch, person)
    _draw_skin(sketch, person)
    if person.style not in _LONG:
        _draw_ear(sketch, person, 1 - far)
    if person.freckles:
        spots = np.stack([rng.uniform(-0.6, 0.6, 14), rng.uniform(0.16, 0.42, 14)], 1)
        brown = features.shade_of(person, 0.3)
        for spot in spots:
            sketch.fill(ellipse(spot, (0.022, 0.022), 6), brown)
    _draw_beard(sketch, person, face)
    features.draw_forehead(sketch, person, face)
    features.draw_cheeks(sketch, person, face)
    gaze = np.clip(rng.normal(0, [0.022, 0.012]), -0.045, 0.045)
    features.draw_eyes(sketch, person, face, gaze)
    features.draw_mouth(sketch, person, face)
    _draw_moustache(sketch, person, face)
    features.draw_nose(sketch, person, face)
    features.draw_brows(sketch, person, face)
    _draw_strands(sketch, person, rng)
    if person.glasses != "none":
        draw_glasses(sketch, person, person.glasses, None)


def draw_glasses(sketch: Sketch, person: Person, kind: str, tint: Colour | None) -> None:
    """Draws glasses.

    Args:
      sketch: what to draw on.
      person: gives the frame's colour and the distance of the eyes.
      kind: "round" or "square".
      tint: the colour of big sunglasses' lenses, or None for ordinary clear ones.
    """
    head = sketch.head
    power = 1.0 if kind == "round" else 0.55
    radii = np.array([0.29, 0.27 if kind == "round" else 0.22])
    width, drop = 0.045, 0.02
    if tint is not None:
        # Sunglasses reach from the brows to the cheeks.
        radii, width, drop = radii * [1.22, 1.25], 0.07, -0.02
    unit = ellipse(np.zeros(2), (1, 1), 24)
    rim = np.sign(unit) * np.abs(unit) ** power * radii
    for sign in SIGNS:
        center = np.array([sign * person.rest.eye_spacing, drop])
        if tint is not None:
            sketch.fill(rim + center, tint, 0.12)
            gleam = np.array([[-0.14, -0.14], [-0.03, -0.18], [-0.11, 0.02], [-0.18, 0.04]])
            sketch.fill(gleam + center, mix(tint, 255.0, 0.3), 0.12)
        sketch.loop(rim + center, width, person.frame, 0.12)
        # The arm is seen on the side that faces the viewer.
        if sign * head.pose.yaw <= 8:
            start = head.place(np.array([[sign * (0.4 + radii[0]), -0.06]]), 0.12)
            end = head.around(np.array([[sign * 88.0, -0.08]]), 1.03)
            sketch.line_canvas(np.concatenate([start, end]), width, person.frame)
    inner = max(person.rest.eye_spacing - radii[0], 0.05) + 0.01
    bridge = np.array([[-inner, -0.02], [0, -0.06], [inner, -0.02]])
    sketch.stroke(curve(bridge, 6), np.full(6, width), person.frame, 0.16)


def _draw_body(sketch: Sketch, person: Person) -> None:
    """Draws neck and shoulders, which turn less than the head does."""
    head, unit = sketch.head, sketch.head.scale
    jaw, chin = head.project(np.array([[0.0, 0.645, -0.05], [0.0, head.chin + 0.32, -0.15]]))
    base = jaw + np.array([0, 1.1 * unit])
    if person.style in _LONG:
        _draw_long_hair(sketch, person)
    sketch.fill_canvas(jaw + _NECK * unit, features.shade_of(person, 0.35))
    top = np.array([0.4 * chin[0] + 0.6 * base[0], chin[1]])
    sketch.fill_canvas(top + _SHOULDERS * unit, person.clothes)


def _draw_long_hair(sketch: Sketch, person: Person) -> None:
    head = sketch.head
    # Its lower part hangs straight down, however the head is turned.
    top = np.concatenate([head.cap(head.shape.crown, -0.7, 0.0), _HANG])
    top = head.around(top, person.hair_volume)
    low = top[-2:] + _HANG_DOWN * head.scale
    colour = mix(person.hair, 0.0, 0.2)
    sketch.fill_canvas(np.concatenate([top, low]), colour, hull=True)


def _draw_back_hair(sketch: Sketch, person: Person) -> None:
    if person.style == "bald":
        return
    head = sketch.head
    volume = person.hair_volume + (0.2 if person.style == "afro" else 0.0)
    bottom = {"afro": 0.25, "receding": 0.3}.get(person.style, 0.45)
    top = head.shape.crown * (0.75 if person.style == "receding" else 1.0)
    grow = 1.03 if person.style == "receding" else volume
    sketch.fill_around(head.cap(top, -0.7, bottom), person.hair, grow, hull=True)
    if person.style == "bun":
        knot = head.project(np.array([[0.0, head.shape.crown * 1.12, -0.3]]))[0]
        ball = ellipse(knot, np.array([0.42, 0.36]) * head.scale)
        sketch.fill_canvas(ball, mix(person.hair, 0.0, 0.12))


def _hairline(head: Head, person: Person) -> np.ndarray:
    """Returns the heights at which hair ends, from the left ear over the brow to the right."""
    turn = _HAIRLINE_TURNS / _SIDE
    crown = head.shape.crown
    side = 0.72
    if person.style == "receding":
        front, side = np.full(41, crown * 0.99), 0.9
    elif person.style in ("fringe", "long_fringe"):
        front, side = -0.61 - 0.05 * np.cos(turn * 9), 0.62
    elif person.style in ("parted", "long"):
        front = crown * 0.74 + 0.32 * np.abs(turn - 0.45 * person.parting) ** 1.3
        side = 0.68
    else:
        front = crown * 0.68 + 0.12 * turn**2
    low = 0.25 if person.style in _LONG else 0.05
    burn = np.clip((np.abs(turn) - side) / (0.92 - side), 0, 1) ** 1.5
    return front + (low - front) * burn


def _draw_skin(sketch: Sketch, person: Person) -> None:
    head = sketch.head
    if person.style == "bald":
        whole = head.surface(head.shape.crown, head.chin)
        sketch.fill_around(whole, person.skin, hull=True)
        return
    # Jaw and chin as a hull, then the forehead up to the hairline.
    sketch.fill_around(head.front(_EYE_LEVEL, head.chin, 88), person.skin, hull=True)
    sketch.fill_around(head.front(_hairline(head, person), 0.6), person.skin)


def _draw_ear(sketch: Sketch, person: Person, side: int) -> None:
    head, sign = sketch.head, SIGNS[side]
    root = np.array([sign * (head.shape.width + 0.03), 0.1, -0.16])
    points = head.project(root + _EAR * np.array([sign, 1, 1]))
    sketch.fill_canvas(points[:16], person.skin)
    sketch.fill_canvas(points[16:], features.shade_of(person, 0.45))


def _draw_beard(sketch: Sketch, person: Person, face: FaceShape) -> None:
    if person.beard in ("none", "moustache"):
        return
    head = sketch.head
    strength = 0.3 if person.beard == "stubble" else 0.92
    colour = mix(person.skin, mix(person.hair, 0.0, 0.1), strength)
    if person.beard == "goatee":
        low = head.chin - 0.05
        points = np.array(
            [[-0.2, 0.93], [0, 0.9], [0.2, 0.93], [0.2, low], [0, low + 0.07], [-0.2, low]]
        )
        sketch.fill(points, colour, 0.03)
        return
    turn = _HAIRLINE_TURNS / _SIDE
    edge = 0.62 + 0.04 * np.cos(turn * 5) - 0.5 * np.abs(turn) ** 2.2
    edge = edge - 0.1 * face.cheek.mean()
    grow = 1.0 if person.beard == "stubble" else 1.04
    if person.beard == "stubble":
        # It thins out towards the cheeks.
        sketch.fill_around(head.front(edge - 0.1, head.chin, 92), mix(person.skin, colour, 0.5))
    sketch.fill_around(head.front(edge, head.chin, 92), colour, grow)
    # The lips and a rim around them stay bare.
    width = float(face.corner_x.mean()) + 0.08
    low = face.mouth_y + face.opening_down * 0.5
    bare = ellipse(np.array([0, low]), np.array([width, 0.17 + face.opening_down * 0.6]), 20)
    sketch.fill(bare, mix(person.skin, colour, 0.25), 0.01)


def _draw_moustache(sketch: Sketch, person: Person, face: FaceShape) -> None:
    if person.beard not in ("full", "goatee", "moustache"):
        return
    up = face.mouth_y - face.opening_up - face.lip_upper - 0.03 + face.mouth_middle
    colour = mix(person.hair, 0.0, 0.08)
    for side, sign in enumerate(SIGNS):
        end = face.corner_y[side] * 0.8 + face.mouth_y
        rise, reach = float(face.lip_raise[side]), sign * face.corner_x[side]
        line = np.array([[0.0, up - rise * 0.5], [reach * 0.55, up - rise], [reach, end - 0.02]])
        sketch.stroke(curve(line, 10), _MOUSTACHE_TAPER, colour, 0.08)


def _draw_strands(sketch: Sketch, person: Person, rng: np.random.Generator) -> None:
    """Draws lighter and darker strands that follow the hair from the crown down."""
    if person.style in ("bald", "receding"):
        return
    head = sketch.head
    ends = rng.uniform(-85, 85, 7)
    low = np.interp(ends, _HAIRLINE_TURNS, _hairline(head, person)) - 0.03
    high = head.shape.crown * 0.93
    roots = ends * 0.5 + 12 * person.parting
    points = np.empty((7, 6, 2))
    points[..., 0] = roots[:, None] + (ends - roots)[:, None] * _STRAND
    points[..., 1] = high + (low[:, None] - high) * _STRAND
    colours = mix(person.hair, 0.0, 0.3), mix(person.hair, 255.0, 0.14)
    for strand, light in zip(points, (rng.random(7) < 0.5).tolist(), strict=True):
        sketch.stroke_around(strand, 0.05, colours[light], person.hair_volume)
