"""Figures of embeddings, maps and attention follow their data and keep names apart."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.metrics import wilson_interval
from dmfer_jax.reporting import drawing, embedding_figures, figures, map_figures
from tests.reporting.kept_figures import keep_figure


def test_names_of_centers_at_one_place_are_written_apart(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, embedding_figures)
    rng = np.random.default_rng(0)
    centers = np.zeros((8, 2))
    centers[7] = np.nan  # a class that has none
    one = embedding_figures.EmbeddingMap(
        "run", rng.normal(size=(40, 2)), np.arange(40) % 8, centers, trained=True
    )
    embedding_figures.draw_embeddings(tmp_path / "a.png", [one], EXPRESSION_NAMES, "title")
    (figure,) = kept
    # Of the text alone: an annotation's own box has the line to its center in it, too.
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 7
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_more_classes_than_colours_differ_by_shape(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, embedding_figures)
    names = [f"class {index}" for index in range(20)]
    labels = np.arange(20)
    places = np.random.default_rng(0).normal(size=(20, 2))
    one = embedding_figures.EmbeddingMap("run", places, labels, np.full((20, 2), np.nan), False)
    embedding_figures.draw_embeddings(tmp_path / "a.png", [one], names, "title")
    lines = [line for line in kept[0].axes[0].lines if line.get_label() in names]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20
    found = {str(line.get_label()): line.get_xydata() for line in lines}
    for index, name in enumerate(names):
        np.testing.assert_array_equal(found[name], places[index : index + 1])


def test_a_map_leaves_its_face_where_it_is_high_and_pales_it_where_it_is_low(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, map_figures)
    image = np.full((4, 4, 1), 100, np.uint8)
    heat = np.array([[0.0, 0.0, 2.0, 2.0]] * 4)
    empty = np.zeros((4, 4))
    face = map_figures.Face(image, "a", "fear", "anger", 0.9, {"one": heat, "none": empty})
    map_figures.draw_maps(tmp_path / "a.png", [face], "title")
    shown = [np.asarray(axes.images[0].get_array()) for axes in kept[0].axes]
    np.testing.assert_array_equal(shown[0], image[..., 0])
    # A quarter of 100 and three quarters of white: 216.25.
    np.testing.assert_array_equal(shown[1], [[216, 216, 100, 100]] * 4)
    assert (shown[2] == 216).all()
    titles = [axes.get_title() for axes in kept[0].axes]
    assert titles == ["anger 90 %\nwrong, is fear", "one", "none"]
    assert kept[0].axes[2].get_xlabel() == "nothing speaks for it"


def test_attention_shows_multiples_of_an_even_weight_and_the_border_of_scales(
    tmp_path, monkeypatch
):
    kept = keep_figure(monkeypatch, map_figures)
    weights = np.full((2, 4, 4), 0.25)
    weights[1, 0] = [0.5, 0.5, 0, 0]
    notes = {"a face": ["one", "two"]}
    path = tmp_path / "a.png"
    map_figures.draw_attention(path, {"a face": weights}, notes, [None, 2], "title")
    first, second = kept[0].axes[:2]
    np.testing.assert_array_equal(np.asarray(first.images[0].get_array()), np.ones((4, 4)))
    np.testing.assert_array_equal(np.asarray(second.images[0].get_array())[0], [2, 2, 0, 0])
    assert (len(first.lines), len(second.lines)) == (0, 2)
    assert second.lines[0].get_ydata()[0] == 1.5  # type: ignore[index]


def test_recall_is_drawn_of_classes_with_images_and_said_of_those_without(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, figures)
    rows = {"a": {"examples": 4, "recall": 0.5}, "b": {"examples": 0, "recall": None}}
    intervals = {"a": wilson_interval(2, 4), "b": wilson_interval(0, 0)}
    figures.draw_recall(tmp_path / "a.png", rows, intervals)
    texts = [text.get_text() for text in kept[0].axes[0].texts]
    assert texts == ["50.0 %  of 4", "no image"]


@pytest.mark.parametrize("suffix", drawing.FORMATS)
def test_pictures_are_written_as_their_name_says(tmp_path, suffix):
    runs = {"a": {"steps": [1, 2], "mean_cosine": [0.9, 0.1], "largest": (2, 0.4)}}
    path = tmp_path / f"a{suffix}"
    embedding_figures.draw_center_curves(path, runs, -1 / 7)
    start = path.read_bytes()[:200]
    assert {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix] == start[:4] or (
        suffix == ".svg" and b"<?xml" in start
    )
    if suffix == ".png":
        assert Image.open(path).size == (1050, 690)
