"""How hard the drawn faces are to name: every strength and every probability in one place.

The defaults are set so that a small ResNet at 48 pixels, trained for some minutes on two cores,
passes 90 % and stays below 100 %, and so that occlusion and pose cost it points.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """The knobs. Strengths of 0 make every face of a class the same but for its person.

    Angles are in degrees, strengths of action units lie in 0 (absent) to 1 (as strong as it gets),
    lengths are fractions of the image's side.
    """

    # The expression itself.
    intensity_min: float = 0.4  # below about 0.25 nobody can tell the face from a neutral one
    intensity_mode: float = 0.7  # the intensities are triangular: least, most frequent, 1
    action_unit_spread: float = 0.14  # each action unit is off by this share (standard deviation)
    asymmetry: float = 0.08  # left against right, likewise
    resting_noise: float = 0.05  # action units that have nothing to do with the expression
    resting_shape: float = 1.0  # how much brows, lids and mouths at rest differ between people

    # Where the face stands.
    roll: float = 12.0
    yaw: float = 20.0
    pitch: float = 16.0
    pose_from: float = 31.0  # test_pose: yaw or pitch at least this far
    pose_yaw_to: float = 45.0
    pose_pitch_to: float = 38.0
    scale: float = 0.07  # relative size, standard deviation
    shift: float = 0.03  # standard deviation

    # How the picture is taken.
    light: float = 0.5  # 0 is flat light, 1 leaves the far side of the face black
    colour_cast: float = 0.045
    grey_chance: float = 0.12
    low_resolution_chance: float = 0.25
    low_resolution_side: int = 40  # pixels; the least that a face is reduced to
    blur_chance: float = 0.35
    blur_sigma: float = 1.1  # pixels, at most
    noise: float = 10.0  # grey levels, at most
    quality_min: int = 35  # of the JPEG file
    quality_max: int = 95


DEFAULT = Difficulty()
