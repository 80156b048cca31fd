"""The expressions, in this project's one order, and every source's order mapped onto it.

Mixed-up label orders are the most common silent bug of facial expression recognition: five orders
are in use, and each trains without an error under any other. So a source's index is translated
here, once, when records are built, and names travel with every checkpoint, report and output.

Each map is a tuple: `MAP[index in the source] -> Expression`.
"""

from enum import IntEnum


class Expression(IntEnum):
    """The canonical order: that of the FER+ votes."""

    NEUTRAL = 0
    HAPPINESS = 1
    SURPRISE = 2
    SADNESS = 3
    ANGER = 4
    DISGUST = 5
    FEAR = 6
    CONTEMPT = 7


_E = Expression

EXPRESSION_NAMES: tuple[str, ...] = tuple(e.name.lower() for e in Expression)
"""Names in canonical order: ("neutral", "happiness", ...)."""

FERPLUS_VOTES: tuple[Expression | str, ...] = (*Expression, "unknown", "NF")
"""Columns of the FER+ vote files; the last two are "unknown" and "NF" (no face)."""

FER2013: tuple[Expression, ...] = (
    _E.ANGER,
    _E.DISGUST,
    _E.FEAR,
    _E.HAPPINESS,
    _E.SADNESS,
    _E.SURPRISE,
    _E.NEUTRAL,
)
"""The `emotion` column of fer2013.csv, 0 to 6."""

RAFDB_LIST: tuple[Expression, ...] = (
    _E.SURPRISE,
    _E.FEAR,
    _E.DISGUST,
    _E.HAPPINESS,
    _E.SADNESS,
    _E.ANGER,
    _E.NEUTRAL,
)
"""RAF-DB's own order, of its list file and csv form. They count from 1: look up `index - 1`."""

RAFDB_FOLDERS_MANET: tuple[Expression, ...] = (
    _E.NEUTRAL,
    _E.HAPPINESS,
    _E.SADNESS,
    _E.SURPRISE,
    _E.FEAR,
    _E.DISGUST,
    _E.ANGER,
)
"""RAF-DB in class folders 0 to 6 as MA-Net and others arrange them."""

AFFECTNET: tuple[Expression, ...] = (
    _E.NEUTRAL,
    _E.HAPPINESS,
    _E.SADNESS,
    _E.SURPRISE,
    _E.FEAR,
    _E.DISGUST,
    _E.ANGER,
    _E.CONTEMPT,
)
"""AffectNet 0 to 7. Its 8 (none), 9 (uncertain) and 10 (no face) have no expression."""

_SPELLINGS: dict[str, Expression] = {
    "neutral": _E.NEUTRAL,
    "happiness": _E.HAPPINESS,
    "happy": _E.HAPPINESS,
    "surprise": _E.SURPRISE,
    "surprised": _E.SURPRISE,
    "suprise": _E.SURPRISE,  # of copies of FER+ in folders
    "sadness": _E.SADNESS,
    "sad": _E.SADNESS,
    "anger": _E.ANGER,
    "angry": _E.ANGER,
    "disgust": _E.DISGUST,
    "disgusted": _E.DISGUST,
    "fear": _E.FEAR,
    "fearful": _E.FEAR,
    "contempt": _E.CONTEMPT,
}


def parse_expression(name: str) -> Expression:
    """Returns the expression that a name stands for, in any spelling met in the wild.

    Args:
      name: such as "Happy", "happiness" or "ANGRY".

    Raises:
      ValueError: the name is no expression; the message lists the ones known.

    >>> parse_expression("Happy").name
    'HAPPINESS'
    """
    try:
        return _SPELLINGS[name.strip().lower()]
    except KeyError:
        raise ValueError(
            f"'{name}' is no expression name; known are {', '.join(sorted(_SPELLINGS))}"
        ) from None
