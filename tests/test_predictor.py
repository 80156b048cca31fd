"""Any number of images is predicted by few programs, each compiled once, one image as the next."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.data.augment import normalize
from dmfer_jax.errors import UserError
from dmfer_jax.models import resnet
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.predictor import Predictor, fill_buckets
from tests.models.variables import draw_variables

pytestmark = pytest.mark.usefixtures("convolve_as_users_do")

SIZE = 16
NAMES = ("happy", "sad", "angry")
MODEL = Dmfer(
    3, stem="small", stem_stride=2, width=0.125, embedding=16, scales="deep", attention="none"
)


@pytest.fixture(autouse=True, scope="module")
def _two_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BACKBONES["resnet18"], "blocks", (1, 1))
        patch.setattr("dmfer_jax.predictor._LARGE_KERNEL", 100)  # some of the tiny ones, not all
        yield


@pytest.fixture(scope="module")
def variables(_two_blocks) -> Any:
    return draw_variables(MODEL, jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32))


@pytest.fixture(scope="module")
def predictor(variables) -> Predictor:
    return Predictor(MODEL, variables, SIZE, 1, NAMES, buckets=(4, 1))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(predictor, images) -> Any:
    """Of each image by itself."""
    return jax.tree.map(lambda *a: np.concatenate(a), *(predictor(i[None]) for i in images))


def test_predictions_are_those_of_the_network(predictor, variables, images):
    found = predictor(images[:4])
    outputs: Any = jax.jit(lambda images: MODEL.apply(variables, normalize(images)))(images[:4])
    np.testing.assert_allclose(found.probabilities, jax.nn.softmax(outputs.logits), atol=1e-5)
    np.testing.assert_allclose(found.embedding, outputs.embedding, rtol=1e-4, atol=1e-4)
    assert predictor.class_names == NAMES


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 11])
def test_any_number_of_images_is_predicted_as_one_by_one(predictor, images, expected, n):
    found = predictor(images[:n])
    assert found.probabilities.shape == (n, 3)
    assert found.embedding.shape == (n, 16)
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found.probabilities, expected.probabilities[:n], atol=1e-6)
    np.testing.assert_allclose(found.embedding, expected.embedding[:n], rtol=1e-5, atol=1e-6)


def test_an_image_is_predicted_the_same_beside_any_others(predictor, images):
    others = images[:4].copy()
    others[1:] = 255 - others[1:]
    found, before = predictor(others), predictor(images[:4])
    np.testing.assert_array_equal(found.probabilities[0], before.probabilities[0])
    np.testing.assert_array_equal(found.embedding[0], before.embedding[0])
    assert (found.embedding[1] != before.embedding[1]).any()


def test_each_bucket_is_traced_and_compiled_once_whatever_is_asked(variables, images, monkeypatch):
    traced: list[int] = []
    predict = Predictor._predict

    def counting(self: Any, variables: Any, images: Any) -> Any:
        traced.append(images.shape[0])
        return predict(self, variables, images)

    monkeypatch.setattr(Predictor, "_predict", counting)
    predictor = Predictor(MODEL, variables, SIZE, 1, NAMES, buckets=(1, 4))
    start = threading.Barrier(4)

    def ask(n: int) -> None:
        start.wait()
        for count in (n, n + 4, 0, 11):
            predictor(images[:count])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, (1, 2, 3, 4)))
    predictor.warm_up()
    assert sorted(traced) == [1, 4]


def test_bfloat16_without_folding_agrees_with_float32(variables, images, expected):
    short = Predictor(
        MODEL, variables, SIZE, 1, NAMES, buckets=(11,), dtype=jnp.bfloat16, fold=False
    )
    found = short(images)
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(
        found.embedding, expected.embedding, atol=0.05 * np.abs(expected.embedding).max()
    )


@pytest.mark.parametrize(
    ("n", "calls"),
    [
        (0, []),
        (1, [1]),
        (3, [1, 1, 1]),
        (4, [1, 1, 1, 1]),
        (5, [8]),  # three of padding cost less than five calls
        (9, [8, 1]),
        (14, [8, 8]),
        (32, [8, 8, 8, 8]),
        (33, [64]),
        (64, [64]),
        (75, [64, 8, 1, 1, 1]),
        (200, [64, 64, 64, 8]),
    ],
)
def test_buckets_are_filled_from_the_largest_down(n, calls):
    assert fill_buckets(n, (8, 1, 64)) == calls


def test_a_smallest_bucket_above_one_is_padded():
    assert fill_buckets(10, (4, 8)) == [8, 4]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, SIZE, SIZE, 1), np.float32), r"float32 \[2, 16, 16, 1\]; expected uint8"),
        (np.zeros((SIZE, SIZE, 1), np.uint8), r"give one image as images\[None\]"),
        (
            np.zeros((2, SIZE, SIZE, 3), np.uint8),
            r"\[2, 16, 16, 3\]; expected uint8 \[n, 16, 16, 1\]",
        ),
        (np.zeros((0, 8, 8, 1), np.uint8), r"\[0, 8, 8, 1\]; expected uint8 \[n, 16, 16, 1\]"),
        ([[1]], "images are a list; expected an array"),
    ],
)
def test_other_images_are_refused(predictor, images, words):
    with pytest.raises(UserError, match=words):
        predictor(images)


def test_class_names_and_buckets_that_do_not_fit_are_refused(variables):
    with pytest.raises(UserError, match="2 class names, happy, sad; the network tells 3"):
        Predictor(MODEL, variables, SIZE, 1, NAMES[:2])
    with pytest.raises(UserError, match=r"buckets are \(0, 8\)"):
        Predictor(MODEL, variables, SIZE, 1, NAMES, buckets=(0, 8))
