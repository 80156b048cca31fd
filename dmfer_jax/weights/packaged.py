"""The files of weights that this package carries, by the names that users give them by."""

from pathlib import Path

from dmfer_jax.weights.face import FACE_WEIGHTS

PRETRAINED = Path(__file__).parent.parent / "pretrained"
"""The models that this package carries, each with its card."""


def packaged_models() -> dict[str, Path]:
    """Returns {name: its file} of the models in `PRETRAINED`, such as "ferplus-small"."""
    return {path.stem: path for path in sorted(PRETRAINED.glob("*.safetensors"))}


def packaged_weights() -> dict[str, Path]:
    """Returns {name: its file} of all weights that a run may begin with: "face" and the models."""
    return {"face": FACE_WEIGHTS, **packaged_models()}
