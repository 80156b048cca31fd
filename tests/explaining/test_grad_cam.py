"""Grad-CAM against its formula written out in NumPy, and each map where its pixels are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax.data.augment import normalize
from dmfer_jax.explaining import grad_cam
from dmfer_jax.models import resnet
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.face_resnet import FaceResNet
from tests.models.variables import draw_variables

SIZE, CLASSES = 16, 3


def make(**options: Any) -> Dmfer:
    small = {"stem": "small", "stem_stride": 2, "width": 0.125, "embedding": 6, "heads": 2}
    return Dmfer(CLASSES, **{**small, **options})


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)


def with_stages(patch: pytest.MonkeyPatch, *blocks: int) -> None:
    patch.setitem(resnet.BACKBONES["resnet18"], "blocks", blocks)


def draw(model: Dmfer) -> Any:
    return draw_variables(model, jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32))


def test_weights_are_the_means_of_gradients_and_negative_sums_are_cut():
    features = jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]])  # [1, 1, 2, 2]
    gradients = jnp.array([[[[2.0, -1.0], [4.0, -3.0]]]])
    # a = (3, -2): 3 - 4 = -1, and 9 - 8 = 1.
    np.testing.assert_array_equal(grad_cam.grad_cam(features, gradients), [[[0, 1]]])


def test_maps_of_a_hand_made_network_equal_the_formula(images, monkeypatch):
    # One stage, so that the shallow scale is a 1x1 convolution of it and all is written out below.
    with_stages(monkeypatch, 1)
    model = make(scales="shallow", shallow_stage=1, attention="none")
    variables = draw(model)
    asked = np.array([2, 0, 1])
    found = grad_cam.explain_faces(model, variables, images, asked)

    backbone = resnet.ResNet((1,), stem="small", stem_stride=2, width=0.125)
    weights_of_backbone = {part: tree["backbone"] for part, tree in variables.items()}
    run = jax.jit(lambda images: backbone.apply(weights_of_backbone, images, False))
    stages: Any = run(normalize(jnp.asarray(images)))
    a = np.asarray(stages[0], np.float64)

    def affine(name: str) -> tuple[np.ndarray, np.ndarray]:
        """A 1x1 convolution and its BatchNorm as one matrix and one offset."""
        part = variables["params"]
        stats = variables["batch_stats"]
        for key in name.split("/"):
            part, stats = part[key], stats[key]
        factor = part["norm"]["scale"] / np.sqrt(stats["norm"]["var"] + 1e-5)
        matrix = part["conv"]["kernel"][0, 0] * factor
        return matrix, part["norm"]["bias"] - stats["norm"]["mean"] * factor

    w1, b1 = affine("two_scale/shallow")
    w2, b2 = affine("compress")
    head = variables["params"]["head"]
    before = a @ w1 + b1
    compressed = np.maximum(before, 0) @ w2 + b2
    places = a.shape[1] * a.shape[2]
    logits = compressed.mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
    odds = np.exp(logits)
    np.testing.assert_allclose(found.probabilities, odds / odds.sum(1, keepdims=True), rtol=1e-3)

    assert list(found.maps) == ["shallow", "compressed"]
    for index, label in enumerate(asked):
        direction = head["kernel"][:, label] / places  # dy/d compressed, at every place
        expected = np.maximum(compressed[index] @ direction, 0)
        np.testing.assert_allclose(found.maps["compressed"][index], expected, atol=1e-4, rtol=1e-3)
        gradient = ((before[index] > 0) * (w2 @ direction)) @ w1.T  # dy/dA, [h, w, c]
        weights = gradient.mean(axis=(0, 1))
        expected = np.maximum(a[index] @ weights, 0)
        assert expected.any()
        np.testing.assert_allclose(found.maps["shallow"][index], expected, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def both(images) -> tuple[Dmfer, Any, grad_cam.Explained]:
    with pytest.MonkeyPatch.context() as patch:
        with_stages(patch, 1, 1)
        model = make(shallow_stage=1)
        variables = draw(model)
        return model, variables, grad_cam.explain_faces(model, variables, images)


def test_a_face_has_the_same_maps_beside_any_others(both, images, monkeypatch):
    with_stages(monkeypatch, 1, 1)
    model, variables, found = both
    others = images.copy()
    others[1:] = 255 - others[1:]
    again = grad_cam.explain_faces(model, variables, others)
    assert list(found.maps) == ["shallow", "deep", "compressed"]
    for scale, maps in found.maps.items():
        assert maps.shape == (3, *((8, 8) if scale == "shallow" else (4, 4)))
        assert maps[0].any()
        np.testing.assert_array_equal(maps[0], again.maps[scale][0])
    assert (found.maps["compressed"] != again.maps["compressed"]).any()


def test_a_scale_that_reaches_no_logit_has_an_empty_map(both, images, monkeypatch):
    with_stages(monkeypatch, 1, 1)
    model, variables, _ = both
    cut = jax.tree.map(np.copy, variables)
    cut["params"]["two_scale"]["deep"]["conv"]["kernel"][:] = 0
    found = grad_cam.explain_faces(model, cut, images)
    assert not found.maps["deep"].any()  # though the shallow stage feeds the deep one, too
    assert found.maps["shallow"].any()


def test_maps_of_the_strongest_channels_sum_up_to_the_logits(images, monkeypatch):
    with_stages(monkeypatch, 1, 1)
    model = make(shallow_stage=1, attention="none", compress="top")
    variables = draw(model)
    # No channel is below 0 behind its ReLU; where no weight is, either, nothing of a map is cut.
    head = variables["params"]["head"]
    head["kernel"], head["bias"] = np.abs(head["kernel"]), np.zeros(CLASSES, np.float32)
    one_face = np.repeat(images[:1], CLASSES, axis=0)
    found = grad_cam.explain_faces(model, variables, one_face, np.arange(CLASSES))
    logits = found.maps["compressed"].sum(axis=(1, 2))  # of a face, for each of the classes
    odds = np.exp(logits - logits.max())
    np.testing.assert_allclose(found.probabilities[0], odds / odds.sum(), rtol=1e-4)


def test_maps_of_a_network_that_averages_over_the_mirror_image_are_of_the_image(
    images, monkeypatch
):
    with_stages(monkeypatch, 1)
    model = make(scales="shallow", shallow_stage=1, attention="none")
    variables, classes = draw(model), np.array([2, 0, 1])
    expected = grad_cam.explain_faces(model, variables, images, classes)
    found = grad_cam.explain_faces(model.clone(flip_average=True), variables, images, classes)
    for scale, heat in expected.maps.items():
        np.testing.assert_array_equal(found.maps[scale], heat)


def test_a_cell_lies_over_the_pixels_that_it_is_of(monkeypatch):
    with_stages(monkeypatch, 1, 1)
    model = make(width=0.125)
    backbone = resnet.ResNet((1, 1), stem="small", stem_stride=2, width=0.125)
    size = 48
    shape = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    # With every kernel the same, what a cell sees is symmetric about its middle.
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.ones(shape.shape), False))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)

    def cell(image: jax.Array) -> jax.Array:
        return backbone.apply(variables, image, False)[1][0, 6, 5].sum()  # type: ignore[index]

    seen = np.abs(jax.jit(jax.grad(cell))(jnp.ones(shape.shape)))[0, :, :, 0]
    middle = [(seen.sum(axis=1 - axis) @ np.arange(size)) / seen.sum() for axis in (0, 1)]
    heat = np.zeros((12, 12))
    heat[6, 5] = 1
    laid = grad_cam.lay_over_image(heat, model, 2, size)
    assert np.unravel_index(laid.argmax(), laid.shape) == (24, 20)
    np.testing.assert_allclose(middle, (24, 20), atol=1e-3)


def test_a_cell_of_the_face_network_lies_over_its_pixels_too():
    backbone = FaceResNet(width=0.25)
    size = 224
    shapes = jax.eval_shape(
        lambda: backbone.init(jax.random.key(0), jnp.ones((1, size, size, 1)), False)
    )
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)

    def cell(image: jax.Array) -> jax.Array:
        return backbone.apply(variables, image, False)[2][0, 6, 5].sum()  # type: ignore[index]

    seen = np.abs(jax.jit(jax.grad(cell))(jnp.ones((1, size, size, 1))))[0, :, :, 0]
    middle = [(seen.sum(axis=1 - axis) @ np.arange(size)) / seen.sum() for axis in (0, 1)]
    heat = np.zeros((13, 13))
    heat[6, 5] = 1
    laid = grad_cam.lay_over_image(heat, make(backbone="face_resnet"), 3, size)
    place = np.unravel_index(laid.argmax(), laid.shape)
    # Shortcuts, and equal pixels of which a pool takes the first, are up to a few pixels before.
    np.testing.assert_allclose(middle, place, atol=4)


def test_maps_are_linear_between_cells_and_constant_beyond_the_last():
    model = make()  # of stride 2 in the first stage, so 4 in the second
    laid = grad_cam.lay_over_image(np.array([[0.0, 4.0], [0.0, 4.0]]), model, 2, 7)
    np.testing.assert_allclose(laid, [[0, 1, 2, 3, 4, 4, 4]] * 7)
