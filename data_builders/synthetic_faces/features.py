"""Draws the parts of the face that move: brows, eyes, nose, cheeks and mouth.

Every function takes the sketch, the person and the shape of the face. Sides are 0 for the left of
the picture and 1 for its right; a side's x is `sign * distance`. Lengths are head units.
"""

import numpy as np

from data_builders.synthetic_faces.drawing import Colour, Sketch, curve, ellipse, mix, path
from data_builders.synthetic_faces.expression import FaceShape
from data_builders.synthetic_faces.person import Person

SIGNS = (-1.0, 1.0)

_BROW_X = np.array([0.0, 0.17, 0.35, 0.52])
_BROW_Y = np.array([-0.35, -0.42, -0.43, -0.34])
_BROW_TAPER = np.interp(np.linspace(0, 1, 12), [0, 0.2, 0.6, 1], [0.8, 1, 0.85, 0.25])
_WRINKLE = np.linspace(-0.42, 0.42, 12)
_ARC = np.linspace(-1, 1, 17)
_LID = (1 - np.abs(_ARC) ** 2.2) ** 0.8
_LEFT = _ARC < 0
_LIP_FULLNESS = (1 - np.abs(_ARC) ** 2.2) ** 0.6
_LIP_BOW = 1 - 0.22 * np.exp(-((_ARC / 0.12) ** 2))
_DARKENING = np.array([0.5, 0.64, 0.67])
_TEETH = np.array([240.0, 238, 228])
_EYE_WHITE = np.array([246.0, 244, 242])
_BLACK = np.array([12.0, 10, 10])
_WHITE = np.array([255.0, 255, 255])


def shade_of(person: Person, strength: float) -> Colour:
    """Returns the colour of a crease or a shadow in the person's skin; 0 is the skin itself."""
    return person.skin * (1 - _DARKENING * strength)


def draw_brows(sketch: Sketch, person: Person, face: FaceShape) -> None:
    """Draws both brows and the furrow between them."""
    for side, sign in enumerate(SIGNS):
        inner = face.eye_spacing - face.eye_width * 1.15 - face.brow_inwards[side]
        line = curve(path(sign * (inner + _BROW_X), _BROW_Y + face.brow[side]), 12)
        sketch.stroke(line, 0.105 * person.brow_width * _BROW_TAPER, person.brows, 0.05)
    if face.furrow > 0.15:
        y = float(_BROW_Y[0] + face.brow[:, 0].mean())
        colour = shade_of(person, 0.75 * face.furrow)
        for sign in SIGNS:
            x = sign * (0.07 - 0.02 * face.furrow)
            line = np.array([[x, y - 0.1], [x * 0.85, y], [x * 1.1, y + 0.12]])
            sketch.stroke(curve(line, 8), 0.05, colour, 0.02)


def draw_forehead(sketch: Sketch, person: Person, face: FaceShape) -> None:
    """Draws the wrinkles that raised brows make, where no fringe hides them."""
    if face.forehead < 0.25 or "fringe" in person.style:
        return
    colour = shade_of(person, 0.5 * face.forehead)
    for y in (-0.68, -0.8):
        sketch.stroke(
            path(_WRINKLE, y - 0.03 * np.cos(_WRINKLE * 7) * face.forehead), 0.035, colour
        )


def draw_eyes(sketch: Sketch, person: Person, face: FaceShape, gaze: np.ndarray) -> None:
    """Draws both eyes.

    Args:
      sketch: what to draw on.
      person: whose eyes.
      face: how far they are open.
      gaze: where they look, offsets of the iris to the right and down, [2].
    """
    white = mix(_EYE_WHITE, person.skin, 0.12)
    for side, sign in enumerate(SIGNS):
        x = sign * face.eye_spacing + face.eye_width * _ARC
        slant = face.eye_slant * sign * _ARC
        upper = path(x, slant - face.lid_upper[side] * _LID)
        # Raised cheeks push the lower lid up in the middle: the arcs of smiling eyes.
        lower_y = (face.lid_lower[side] - 0.03 * face.cheek[side]) * _LID + slant
        lower = path(x, np.maximum(lower_y, upper[:, 1] + 0.012))
        sketch.fill(np.concatenate([upper, lower[::-1]]), white)
        _draw_iris(sketch, person, np.array([sign * face.eye_spacing, -0.012]) + gaze)
        _draw_lids(sketch, person, upper, lower, slant)
        _draw_around_eye(sketch, person, face, side, sign, upper)


def _draw_iris(sketch: Sketch, person: Person, center: np.ndarray) -> None:
    sketch.fill(ellipse(center, (0.105, 0.105), 16), mix(person.iris, 0.0, 0.35))
    sketch.fill(ellipse(center, (0.075, 0.075), 12), person.iris)
    sketch.fill(ellipse(center, (0.048, 0.048), 12), _BLACK)
    glint = ellipse(center + np.array([-0.035, -0.04]), (0.026, 0.026), 8)
    sketch.fill(glint, _WHITE)


def _draw_lids(
    sketch: Sketch, person: Person, upper: np.ndarray, lower: np.ndarray, slant: np.ndarray
) -> None:
    """Paints the lids over what of the iris they cover, and their rims."""
    over = path(upper[:, 0], np.minimum(slant - 0.17, upper[:, 1] - 0.02))
    lid = mix(shade_of(person, 0.18), person.shadow_colour, person.eye_shadow)
    sketch.fill(np.concatenate([upper, over[::-1]]), lid)
    under = path(lower[:, 0], np.maximum(slant + 0.13, lower[:, 1] + 0.02))
    sketch.fill(np.concatenate([lower, under[::-1]]), shade_of(person, 0.08))
    lash = mix(shade_of(person, 0.9), _BLACK, 0.45 + 0.5 * person.lashes)
    sketch.stroke(upper, np.full(17, 0.04 + 0.025 * person.lashes), lash, 0.02)
    sketch.stroke(lower, 0.026, shade_of(person, 0.6), 0.01)


def _draw_around_eye(
    sketch: Sketch, person: Person, face: FaceShape, side: int, sign: float, upper: np.ndarray
) -> None:
    crease = upper[1:-1] - [0, 0.05 + 0.15 * face.lid_upper[side]]
    sketch.stroke(crease, 0.026, shade_of(person, 0.5))
    if face.cheek[side] < 0.3:
        return
    colour = shade_of(person, 0.45 * face.cheek[side])
    bag = path(upper[:, 0], 0.17 - 0.06 * face.cheek[side] + 0.05 * (1 - _ARC**2))
    sketch.stroke(bag, 0.03, colour)
    corner = sign * (face.eye_spacing + face.eye_width)
    for dy in (-0.05, 0.02, 0.08):
        foot = np.array([[corner + sign * 0.04, dy * 0.5], [corner + sign * 0.15, dy * 1.6]])
        sketch.stroke(curve(foot, 4), 0.025, colour)


def draw_nose(sketch: Sketch, person: Person, face: FaceShape) -> None:
    """Draws the nose, whose tip stands out of the face, and the wrinkles at its root."""
    w, tip = person.nose_width, 0.36 + person.nose_length - face.nose_lift
    wing = 0.16 * w * (1 + 0.22 * face.flare)
    # On a turned head the ridge hides the far side of the nose; the near side lies in shadow.
    far = 1.0 if sketch.head.pose.yaw >= 0 else -1.0
    ridge = np.array([[0, -0.12], [0, 0.08], [0, tip - 0.06], [0, tip + 0.03]])
    foot = np.array([[wing, tip + 0.07], [wing * 0.95, tip - 0.03], [0.07, 0.05], [0.09, -0.14]])
    sketch.fill(
        np.concatenate([ridge, foot * [far, 1]]),
        shade_of(person, 0.14),
        np.array([0.06, 0.16, 0.3, 0.26, 0.02, 0.03, 0.03, 0.02]),
    )
    bulb = ellipse(np.array([0, tip]), (0.11 * w, 0.085), 16)
    sketch.fill(bulb, mix(person.skin, np.array([235.0, 150, 130]), 0.12), 0.24)
    x = np.array([-wing, -wing * 0.8, 0, wing * 0.8, wing])
    y = tip + np.array([0.01, 0.09, 0.12, 0.09, 0.01])
    out = curve(np.array([0.04, 0.06, 0.18, 0.06, 0.04])[:, None], 15)[:, 0]
    sketch.stroke(curve(path(x, y), 15), 0.045, shade_of(person, 0.65), out)
    for sign in SIGNS:
        hole = ellipse(np.array([sign * 0.075 * w, tip + 0.075]), (0.042 * w, 0.024), 8)
        sketch.fill(hole, shade_of(person, 1.0) * 0.6, 0.13)
    if face.nose_wrinkle > 0.15:
        colour = shade_of(person, 0.75 * min(face.nose_wrinkle, 1))
        for y, reach in ((-0.12, 0.12), (-0.04, 0.15), (0.04, 0.14)):
            sketch.stroke(path(reach * _ARC, y + 0.07 * _ARC**2), 0.04, colour, 0.08)


def draw_cheeks(sketch: Sketch, person: Person, face: FaceShape) -> None:
    """Draws the folds from the nose to the corners of the mouth, and the blush."""
    rosy = mix(person.skin, np.array([226.0, 96, 96]), 0.3 * person.blush + 0.1)
    for side, sign in enumerate(SIGNS):
        cheek, strength = float(face.cheek[side]), float(face.fold[side])
        if person.blush + cheek > 0.3:
            center = np.array([sign * 0.56, 0.4 - 0.1 * cheek])
            radii = np.array([0.2, 0.13])
            sketch.fill(ellipse(center, radii * 1.2, 14), mix(person.skin, rosy, 0.4))
            sketch.fill(ellipse(center, radii * 0.85, 14), rosy)
        corner_x, corner_y = face.corner_x[side], face.mouth_y + face.corner_y[side]
        line = np.array(
            [
                [0.19 * person.nose_width, 0.3 - 0.06 * face.nose_wrinkle],
                [0.31 + 0.06 * strength, 0.44],
                [corner_x + 0.11, corner_y - 0.02],
                [corner_x + 0.09, corner_y + 0.1],
            ]
        )
        colour = shade_of(person, 0.1 + 0.65 * strength)
        sketch.stroke(curve(line * [sign, 1], 10), 0.02 + 0.045 * strength, colour)


def draw_mouth(sketch: Sketch, person: Person, face: FaceShape) -> None:
    """Draws lips, teeth, the dark between them, dimples and the chin."""
    x = _ARC * np.where(_LEFT, face.corner_x[0], face.corner_x[1])
    bend = np.where(_LEFT, face.corner_y[0], face.corner_y[1])
    pulled = np.abs(_ARC) ** 1.7
    rest = face.mouth_y + face.mouth_middle * (1 - pulled) + bend * pulled
    bell = (1 - np.abs(_ARC) ** (2.0 + 4.0 * face.square)) ** 0.8
    raised = np.where(_LEFT, face.lip_raise[0], face.lip_raise[1]) * (1 - _ARC**4)
    inner_up = rest - face.opening_up * bell - raised * 0.8
    inner_down = np.maximum(rest + face.opening_down * bell - raised * 0.5, inner_up)
    outer_up = inner_up - (face.lip_upper + 0.012) * _LIP_BOW * _LIP_FULLNESS
    outer_down = inner_down + (face.lip_lower + 0.012) * _LIP_FULLNESS

    def fill_between(upper: np.ndarray, lower: np.ndarray, colour: Colour) -> None:
        sketch.fill(np.concatenate([path(x, upper), path(x, lower)[::-1]]), colour, 0.04)

    fill_between(outer_up, inner_up, mix(person.lips, 0.0, 0.12))
    fill_between(inner_down, outer_down, person.lips)
    gap = float((inner_down - inner_up).max())
    if gap > 0.03:
        fill_between(inner_up, inner_down, np.array([72.0, 20, 24]))
        fill_between(inner_up, np.minimum(inner_up + 0.1 * bell, inner_down), _TEETH)
        if face.square > 0.4 or gap > 0.3:
            low = np.maximum(inner_down - 0.07 * bell, np.minimum(inner_up + 0.115, inner_down))
            fill_between(low, inner_down, _TEETH * 0.93)
        for edge in (inner_up, inner_down):
            sketch.stroke(path(x, edge), 0.03, mix(person.lips, 0.0, 0.55), 0.04)
    else:
        seam = mix(person.lips, 0.0, 0.6) * [1, 0.7, 0.7]
        sketch.stroke(path(x, (inner_up + inner_down) / 2), 0.055 + 0.03 * face.press, seam, 0.04)
    _draw_around_mouth(sketch, person, face)


def _draw_around_mouth(sketch: Sketch, person: Person, face: FaceShape) -> None:
    for side, sign in enumerate(SIGNS):
        corner = np.array([sign * face.corner_x[side], face.mouth_y + face.corner_y[side]])
        sketch.fill(ellipse(corner, (0.035, 0.03), 8), shade_of(person, 0.6), 0.03)
        if face.dimple[side] > 0.2:
            line = corner + np.array([[0.06, -0.13], [0.115, -0.01], [0.07, 0.12]]) * [sign, 1]
            colour = shade_of(person, 0.85 * face.dimple[side])
            sketch.stroke(curve(line, 8), 0.055, colour, 0.02)
    if face.chin_bulge > 0.2:
        y = sketch.head.chin - 0.22
        arc = path(0.2 * _ARC, y + 0.06 * _ARC**2)
        sketch.stroke(arc, 0.045, shade_of(person, 0.6 * face.chin_bulge))
