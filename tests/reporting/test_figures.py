"""Figures are whole PNG files of the expected size that show the numbers given."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.metrics import Metrics, center_report, summarize
from dmfer_jax.reporting import figures
from tests.reporting.kept_figures import keep_figure


def summary_of(right, num_classes=8):
    """`right` of 20 images of each class, the rest taken for the next class; one full bin."""
    eye = np.eye(num_classes, dtype=np.int32)
    bins = np.eye(15)[12] * 20 * num_classes
    metrics = Metrics.empty(num_classes).replace(
        confusion=right * eye + (20 - right) * np.roll(eye, 1, axis=1),
        bin_count=bins.astype(np.int32),
        bin_confidence=(0.8 * bins).astype(np.float32),
        bin_correct=(bins * right / 20).astype(np.int32),
    )
    return summarize(metrics, EXPRESSION_NAMES[:num_classes])


def rows_of(steps, scale=1.0):
    rows = [
        {
            "kind": "train",
            "step": s,
            "cross_entropy": scale / s,
            "accuracy": 0.5,
            "learning_rate": 0.1,
        }
        for s in range(1, steps + 1)
    ]
    point = {"kind": "eval", "step": steps, "loss": scale, "accuracy": 0.4}
    return [*rows, {**point, "split": "valid"}, {**point, "split": "test"}]


def draw_confusion(path, value):
    figures.draw_confusion(path, summary_of(value)["confusion"], EXPRESSION_NAMES)


def draw_reliability(path, value):
    figures.draw_reliability(path, summary_of(value)["reliability"], ece=0.1)


def draw_center_cosines(path, value):
    centers = value * np.eye(8) + 1
    figures.draw_center_cosines(path, center_report(centers)["cosines"], EXPRESSION_NAMES, -1 / 7)


def draw_training_curves(path, value):
    figures.draw_training_curves(path, rows_of(40, scale=value))


def draw_split_accuracy(path, value):
    figures.draw_split_accuracy(path, {"valid": summary_of(10), "test": summary_of(value)})


# Inches; a figure has 150 pixels each. Matrices: 2.2 for the labels and 0.68 or 0.6 per class;
# bars: 0.75 per split.
SIZES = [
    (draw_confusion, (2.2 + 0.68 * 8, 2.2 + 0.68 * 8)),
    (draw_reliability, (6, 6)),
    (draw_center_cosines, (2.2 + 0.6 * 8, 2.2 + 0.6 * 8)),
    (draw_training_curves, (7, 8)),
    (draw_split_accuracy, (7, 1.2 + 2 * 0.75)),
]


@pytest.mark.parametrize(("draw", "inches"), SIZES)
def test_figure_has_its_size_and_follows_the_data(tmp_path, draw, inches):
    for name, value in (("a", 15), ("b", 10), ("again", 15)):
        draw(tmp_path / f"{name}.png", value)
    a, b, again = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("a", "b", "again"))
    assert a.shape[:2] == pytest.approx((150 * inches[1], 150 * inches[0]), abs=1)
    assert not np.array_equal(a, b)
    assert np.array_equal(a, again)


def test_true_classes_are_the_rows_of_a_confusion_matrix(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, figures)
    figures.draw_confusion(tmp_path / "a.png", [[3, 1], [0, 5]], ["fear", "anger"])
    axes = kept[0].axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])
    written = {text.get_text(): text.get_position()[::-1] for text in axes.texts}
    assert written == {"75 %\n3": (0, 0), "25 %\n1": (0, 1), "100 %\n5": (1, 1)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fear\n4", "anger\n5"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["fear", "anger"]


def test_cosines_stand_where_their_centers_meet_and_none_on_the_diagonal(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, figures)
    cosines = [[1, 0.5, None], [0.5, 1, -0.25], [None, -0.25, 1]]
    figures.draw_center_cosines(tmp_path / "a.png", cosines, ["a", "b", "c"])
    written = {text.get_position()[::-1]: text.get_text() for text in kept[0].axes[0].texts}
    assert written == {(0, 1): "0.50", (1, 0): "0.50", (1, 2): "-0.25", (2, 1): "-0.25"}


def test_each_split_has_its_accuracy_and_its_mean_over_the_classes(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, figures)
    splits = {
        "valid": {"examples": 1200, "accuracy": 0.9, "mean_class_accuracy": 0.6},
        "test": {"examples": 30, "accuracy": 0.8, "mean_class_accuracy": None},
    }
    figures.draw_split_accuracy(tmp_path / "a.png", splits)
    axes = kept[0].axes[0]
    bars = {str(kind.get_label()): [bar.get_width() for bar in kind] for kind in axes.containers}
    assert bars == {"accuracy": [0.9, 0.8], "mean-class accuracy": [0.6, 0]}
    assert [text.get_text() for text in axes.texts] == ["90.0 %", "80.0 %", "60.0 %", "-"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["valid\n1,200 images", "test\n30 images"]


def test_curves_of_training_have_their_axes_and_test_splits_none(tmp_path, monkeypatch):
    kept = keep_figure(monkeypatch, figures)
    figures.draw_training_curves(tmp_path / "a.png", rows_of(2, scale=3.0))
    lines = [
        {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
        for axes in kept[0].axes
    ]
    mean = "train (mean of batches)"
    assert (lines[0][mean], lines[0]["valid"]) == ([3.0, 1.5], [3.0])
    assert (lines[1][mean], lines[1]["valid"]) == ([0.5, 0.5], [0.4])
    assert "test" not in lines[0]
    assert list(lines[2].values()) == [[0.1, 0.1]]


@pytest.mark.parametrize("draw", [figures.draw_confusion, figures.draw_center_cosines])
def test_long_class_names_push_nothing_out_of_the_picture(tmp_path, draw):
    names = ["attentive and looking at the camera with both eyes", "drowsy"]
    title = "test\nLast epoch, also the one chosen on valid (epoch 20, step 221800)"
    draw(tmp_path / "a.png", [[3, -1], [-1, 3]], names, title=title)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert (pixels[:, [0, 1, -2, -1]] == 255).all()
    assert (pixels[[0, 1, -2, -1]] == 255).all()


def test_report_figures_are_drawn_for_every_checkpoint_and_split(tmp_path):
    splits = {"valid": summary_of(15, 7), "test": summary_of(12, 7)}
    last = {"epoch": 2, "step": 40, "splits": splits, "centers": center_report(np.eye(7))}
    best = {"epoch": 1, "step": 20, "splits": {"test": splits["test"]}, "centers": None}
    report = {"checkpoints": {"last": last, "best": best}}
    paths = figures.draw_report_figures(tmp_path / "figures", report, rows_of(40))
    assert {path.name for path in paths} == {
        "last_split_accuracy.png",
        "last_valid_confusion.png",
        "last_valid_reliability.png",
        "last_test_confusion.png",
        "last_test_reliability.png",
        "last_center_cosines.png",
        "best_split_accuracy.png",
        "best_test_confusion.png",
        "best_test_reliability.png",
        "training.png",
    }
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {p.name for p in paths}


def test_figures_of_nothing_are_drawn(tmp_path):
    nothing = summarize(Metrics.empty(8), EXPRESSION_NAMES)
    figures.draw_confusion(tmp_path / "a.png", nothing["confusion"], EXPRESSION_NAMES)
    figures.draw_reliability(tmp_path / "b.png", nothing["reliability"], ece=nothing["ece"])
    figures.draw_split_accuracy(tmp_path / "c.png", {"test": nothing})
    figures.draw_training_curves(tmp_path / "d.png", [])
    cosines = center_report(np.zeros((8, 4)))["cosines"]
    figures.draw_center_cosines(tmp_path / "e.png", cosines, EXPRESSION_NAMES)
    assert len(list(tmp_path.iterdir())) == 5


def test_neither_pyplot_nor_another_framework_is_loaded():
    program = (
        "import sys, dmfer_jax.reporting.figures, dmfer_jax.reporting.writers\n"
        "print({'matplotlib.pyplot', 'tensorflow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
