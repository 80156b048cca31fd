"""An application with random weights of a tiny network, and what tests send to it and expect."""

import contextlib
import dataclasses
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import uvicorn
from PIL import Image

from dmfer_jax.data import preprocessing
from dmfer_jax.expression_model import ExpressionModel
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.predictor import Predictor
from dmfer_jax.reporting.plain_json import to_plain
from dmfer_jax.serve import bind
from dmfer_jax.serving.app import make_app
from dmfer_jax.serving.gate import HEADERS, Counts
from dmfer_jax.serving.limits import Limits
from dmfer_jax.serving.model_card import read_card
from dmfer_jax.serving.service import Network, PhotoService
from dmfer_jax.weights.sealing import Manifest
from tests.models.variables import draw_variables

ASTRONAUT = Path(__file__).parents[1] / "stored" / "astronaut.jpg"
FACE = ASTRONAUT.read_bytes()
NAMES = ("happy", "sad", "angry")
SIZE = 16

OPTIONS = {
    "stem": "small",
    "stem_stride": 2,
    "width": 0.125,
    "embedding": 16,
    "scales": "deep",
    "attention": "none",
    "learned_centers": False,
}

MANIFEST = Manifest(
    labels=NAMES,
    image_size=SIZE,
    channels=1,
    preprocessing=preprocessing.describe(SIZE, 1),
    model=OPTIONS,
    training={"dataset": "none", "train_splits": ["train", "valid"], "chosen_on": None},
    scores={"split": "valid", "accuracy": 0.85804, "loss": 0.4255},
    code_version="0.1.0",
)

GENEROUS = Limits(client_burst=1000, all_burst=1000, workers=2)
"""Limits that a test does not run into unless it changes them."""


def draw_network(size: int = SIZE) -> Network:
    """A network of random weights."""
    model = Dmfer(len(NAMES), **OPTIONS)
    images = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    return Network(model, draw_variables(model, images))


def make_service(limits: Limits = GENEROUS, size: int = SIZE) -> PhotoService:
    """Predicts and explains at random, quickly; faces of `size` pixels, maps of a 16th of them."""
    network, variables = draw_network(size)
    predictor = Predictor(network, variables, size, 1, NAMES, buckets=(1,), fold=False)
    return PhotoService(ExpressionModel(predictor), Network(network, variables), limits)


def make_tiny_app(
    service: PhotoService, limits: Limits = GENEROUS, counts: Counts | None = None, **options: Any
) -> Any:
    """The application around a service."""
    described = {"name": "tiny", **to_plain(dataclasses.asdict(MANIFEST))}
    card = read_card(Path("no/such/model.safetensors"), "tiny", described)
    return make_app(service, described, card, limits=limits, counts=counts, **options)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves an application over HTTP meanwhile; gives its address, without a slash behind it."""
    listening = bind("127.0.0.1", 0)
    listening.listen()  # who comes before the server does waits for it
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def encode(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def two_faces() -> bytes:
    """A photo of a face and, to the right of it, its mirror image: the two differ."""
    pixels = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    return encode(np.hstack([pixels, pixels[:, ::-1]]))


def refusal(answer: Any, status: int) -> str:
    """The sentence of an answer that has to be a refusal."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    return answer.json()["error"]
