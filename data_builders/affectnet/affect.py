"""Valence and arousal as both releases write them."""

import math

from dmfer_jax.errors import UserError

_NONE = -2.0  # what the owners write where an image has no valence or arousal


def check_affect(number: float, found: str) -> float:
    """Returns a valence or arousal, -1 to 1; NaN where the owners say that there is none.

    Args:
      number: as written.
      found: where it stands and what it is, for the message.

    Raises:
      UserError: it is out of range, or no number.
    """
    if number == _NONE:
        return math.nan
    if not -1 <= number <= 1:
        raise UserError(f"{found}; expected -1 to 1, or -2 where there is none.")
    return number
