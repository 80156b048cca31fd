"""Figures as they are when they are saved, for tests of what they show."""

import pytest
from matplotlib.figure import Figure

from dmfer_jax.reporting import drawing


def keep_figure(monkeypatch: pytest.MonkeyPatch, module: object) -> list[Figure]:
    """Returns the list of the figures that a module saves from now on."""
    kept: list[Figure] = []

    def save(figure: Figure, path: drawing.StrPath) -> None:
        kept.append(figure)
        drawing.save(figure, path)

    monkeypatch.setattr(module, "save", save)
    return kept
