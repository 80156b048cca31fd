"""Each figure is drawn from a finished run's folder, or an error says what is missing there."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmfer_jax import metrics
from dmfer_jax.calibration import fit_temperature
from dmfer_jax.errors import UserError
from dmfer_jax.explain import FIGURES, explain
from dmfer_jax.explaining.subject import Asked, name_runs
from dmfer_jax.reporting import writers
from dmfer_jax.reporting.predictions import read_run_predictions
from tests.test_package import run


def ask(out: Path, *workdirs: Path, **options: Any) -> Asked:
    nothing = {"checkpoint": "last", "split": "", "names": (), "limit": 0}
    return Asked(workdirs, **{**nothing, "data_dir": "", "source": "", **options}, out=out)


@pytest.fixture(scope="module")
def drawn(finished, tmp_path_factory) -> dict[str, tuple[dict[str, Any], Path]]:
    """Every figure of the finished run: its numbers and its file."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("drawn")
    found = {}
    for figure in FIGURES:
        out = folder / f"{figure}.png"
        asked = ask(out, finished[0], **({"limit": 20} if "limit" in FIGURES[figure].reads else {}))
        found[figure] = explain(figure, asked), out
    return found


@pytest.mark.parametrize("figure", list(FIGURES))
def test_every_figure_is_drawn_and_its_numbers_are_json(drawn, figure):
    found, out = drawn[figure]
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
    assert json.loads(json.dumps(found))["figure"] == figure


def test_scores_are_those_of_the_report(drawn, finished):
    summary = finished[1]["checkpoints"]["last"]["splits"]["test"]
    assert drawn["confusion"][0]["numbers"]["confusion"] == summary["confusion"]
    for name, row in summary["per_class"].items():
        recall = drawn["recall"][0]["numbers"][name]
        assert recall["recall"] == row["recall"]
        assert recall["interval"][0] <= row["recall"] <= recall["interval"][1]


def test_calibration_is_that_of_the_report(drawn, finished):
    numbers = drawn["reliability"][0]["numbers"]
    summary = finished[1]["checkpoints"]["last"]["splits"]["test"]
    assert numbers["split"] == "test"
    assert numbers["fitted_on"] == "valid"
    assert numbers["loss"] == pytest.approx(summary["loss"], rel=1e-4)
    assert numbers["ece"] == pytest.approx(summary["ece"], abs=1e-3)
    _, said = read_run_predictions(finished[0] / "predictions.npz")
    fitted = {
        name: fit_temperature(np.log(said[name].probabilities), said[name].labels)
        for name in ("valid", "test")
    }
    assert numbers["temperature"] == pytest.approx(fitted["valid"], rel=1e-3)
    assert fitted["test"] != pytest.approx(fitted["valid"], rel=1e-2)


def test_a_test_split_that_is_not_built_is_not_asked_for(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["test_splits"] = ["private", "test_pose", "test"]
    (workdir / "config.json").write_text(json.dumps(config))
    assert explain("reliability", ask(tmp_path / "a.png", workdir))["numbers"]["split"] == "test"


def test_temperature_fitted_on_the_split_itself_never_raises_its_loss(finished, tmp_path):
    asked = ask(tmp_path / "a.png", finished[0], split="valid")
    numbers = explain("reliability", asked)["numbers"]
    assert numbers["scaled_loss"] <= numbers["loss"] + 1e-6


def test_centers_are_those_of_the_checkpoint_and_of_the_log(drawn, finished):
    workdir, report = finished
    (numbers,) = drawn["centers"][0]["numbers"].values()
    expected = report["checkpoints"]["last"]["centers"]
    for key in ("mean_cosine", "max_cosine", "ideal_cosine"):
        assert numbers[key] == pytest.approx(expected[key], rel=1e-5)
    rows = writers.read_jsonl(workdir / "metrics.jsonl")
    last = [row["center_spread"] for row in rows if row["kind"] == "train"][-1]
    assert numbers["last_logged"] == pytest.approx(1 - last)


def test_maps_are_of_right_and_wrong_faces(drawn):
    faces = drawn["gradcam"][0]["numbers"]
    right = [face["true"] == face["predicted"] for face in faces.values()]
    assert right == sorted(right, reverse=True)
    assert 0 < sum(right) < len(right)
    assert all(0.125 <= face["probability"] <= 1 for face in faces.values())


def test_attention_of_heads_of_one_scale_stays_in_it(drawn):
    for heads in drawn["attention"][0]["numbers"].values():
        assert [(head["shallow"], head["deep"]) for head in heads] == [(16, 0), (0, 16)]
        for head in heads:
            assert list(head["shares"].values()) == [pytest.approx(1)]
            assert 1 <= head["effective"] <= 16


def test_named_faces_are_drawn_as_lines_for_print(finished, tmp_path):
    out = tmp_path / "named.pdf"
    found = explain("gradcam", ask(out, finished[0], names=("valid_00001",)))
    assert list(found["numbers"]) == ["valid_00001"]
    assert out.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("figure", "options", "words"),
    [
        ("curves", {"out": "a.jpg"}, r"expected a file that ends in .png, .pdf, .svg"),
        ("recall", {"split": "train"}, r"no scores of 'train' by its last checkpoint; scored are"),
        ("gradcam", {"names": ("nobody",)}, r"no image named 'nobody'; its names are such as"),
        ("gradcam", {"split": "nothing"}, "nothing"),
        ("gradcam", {"names": ("valid_00001",), "limit": 2}, "--limit goes without --names"),
        ("attention", {"names": ("a", "b")}, "--names names 2 faces; attention is drawn of one"),
        (
            "reliability",
            {"limit": 2},
            "--limit makes no difference to reliability, which",
        ),
        (
            "curves",
            {"checkpoint": "best"},
            "--checkpoint makes no .* which reads --workdir, --out",
        ),
        ("centers", {"split": "test"}, "--split makes no difference to centers"),
    ],
)
def test_what_is_missing_is_told_and_nothing_written(finished, tmp_path, figure, options, words):
    out = tmp_path / options.pop("out", "a.png")
    with pytest.raises(UserError, match=words):
        explain(figure, ask(out, finished[0], **options))
    assert not list(tmp_path.iterdir())


def test_figures_of_one_run_refuse_several(finished, tmp_path):
    with pytest.raises(UserError, match="names 2 runs; this figure is of one"):
        explain("recall", ask(tmp_path / "a.png", finished[0], finished[0]))


@pytest.mark.parametrize("figure", [name for name in FIGURES if name != "tsne"])
def test_folder_without_a_run_is_told(tmp_path, figure):
    with pytest.raises(UserError, match="holds no run"):
        explain(figure, ask(tmp_path / "a.png", tmp_path))


def changed(finished: Any, folder: Path, **sections: dict[str, Any]) -> Path:
    """A copy of the run's config and log, in which some fields differ."""
    workdir = folder / "changed"
    workdir.mkdir()
    config = json.loads((finished[0] / "config.json").read_text())
    for section, fields in sections.items():
        config[section] |= fields
    (workdir / "config.json").write_text(json.dumps(config))
    shutil.copy(finished[0] / "metrics.jsonl", workdir)
    return workdir


def test_network_without_attention_or_centers_is_told(finished, tmp_path):
    workdir = changed(finished, tmp_path, model={"attention": "none"}, loss={"name": "none"})
    with pytest.raises(UserError, match="has no channel attention"):
        explain("attention", ask(tmp_path / "a.png", workdir))
    with pytest.raises(UserError, match="has no class centers"):
        explain("centers", ask(tmp_path / "a.png", workdir))


def test_run_without_log_or_scores_is_told(finished, tmp_path):
    workdir = changed(finished, tmp_path)
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has no line of a training step"):
        explain("curves", ask(tmp_path / "a.png", workdir))
    with pytest.raises(UserError, match="any split by its last checkpoint; scored are: none"):
        explain("confusion", ask(tmp_path / "a.png", workdir))


def test_scores_of_a_later_evaluation_are_found(finished, tmp_path):
    workdir = changed(finished, tmp_path)
    (workdir / "evaluation").mkdir()
    shutil.copy(finished[0] / "report.json", workdir / "evaluation" / "last_test.json")
    found = explain("confusion", ask(tmp_path / "a.png", workdir))["numbers"]
    assert found["confusion"] == finished[1]["checkpoints"]["last"]["splits"]["test"]["confusion"]
    (workdir / "report.json").write_text(json.dumps({**finished[1], "seed": 9, "checkpoints": {}}))
    with pytest.raises(UserError, match="scored are: none"):  # that evaluation was another run's
        explain("confusion", ask(tmp_path / "a.png", workdir))


def test_runs_are_named_by_folder_and_by_path_where_that_is_not_enough():
    assert name_runs([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert name_runs([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]


def test_interval_of_a_share_is_wilsons():
    # Of 8 of 10 by hand: middle (0.8 + 0.19208)/1.38416, reach sqrt(0.016 + 0.009604)*1.96/1.38416
    low, high = metrics.wilson_interval(8, 10)  # type: ignore[misc]
    assert (low, high) == pytest.approx((0.49016, 0.94331), abs=1e-4)
    assert metrics.wilson_interval(0, 10)[0] == 0  # type: ignore[index]
    assert metrics.wilson_interval(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert metrics.wilson_interval(0, 0) is None


def test_command_ends_with_one_line_of_json(finished, tmp_path):
    out = tmp_path / "curves.svg"
    flags = ("--figure=curves", f"--workdir={finished[0]}", f"--out={out}")
    process = run("-m", "dmfer_jax.explain", *flags, folder=tmp_path)
    line = json.loads(process.stdout.splitlines()[-1])
    assert line["figure"] == "curves"
    assert line["numbers"]["train"] > 0
    assert "<svg" in out.read_text()
