"""From a run's checkpoint to a file, and from the file to the same predictions."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dmfer_jax
from dmfer_jax import checkpoint, export, formats, loading, run_folder, sharding, state
from dmfer_jax.data import augment
from dmfer_jax.data.sources import load_split
from dmfer_jax.errors import UserError
from dmfer_jax.exported import load_exported
from dmfer_jax.formats import calibration
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.predictor import Predictor
from dmfer_jax.trained import load_trained
from dmfer_jax.weights import packaged
from dmfer_jax.weights.portable import Manifest, load_portable, save_portable
from tests.conftest import make_tiny_config, save_random_run


@pytest.fixture(scope="module")
def exported(finished: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of the finished run, which keeps a moving average."""
    out = tmp_path_factory.mktemp("exported") / "model.safetensors"
    export.export(finished[0], "best", out, licence="CC0-1.0", notes="drawn faces")
    return out


@pytest.fixture(scope="module")
def untrained(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two classes in bfloat16 without a moving average, that was only begun."""
    config = make_tiny_config(data_dir)
    config.model.dtype, config.optimizer.ema_decay = "bfloat16", 0.0
    return save_random_run(tmp_path_factory.mktemp("untrained"), config, ("happy", "sad"))


def test_file_says_what_the_run_was(exported, finished):
    manifest, _ = load_portable(exported)
    _, report = finished
    best = report["checkpoints"]["best"]
    assert manifest.labels == EXPRESSION_NAMES
    assert (manifest.image_size, manifest.channels) == (32, 3)
    assert manifest.training == {
        "dataset": "synthetic_faces/tiny",
        "protocol": None,
        "train_protocol": None,
        "train_splits": ["train"],
        "drop_classes": [],
        "seed": 0,
        "checkpoint": "best",
        "chosen_on": "valid",
        "step": best["step"],
        "epoch": best["epoch"],
        "moving_average": True,
        "temperature": 1.0,
    }
    assert manifest.scores is not None
    assert manifest.scores["split"] == "valid"
    assert manifest.scores["accuracy"] == pytest.approx(best["splits"]["valid"]["accuracy"])
    assert (manifest.licence, manifest.notes) == ("CC0-1.0", "drawn faces")


def test_predictor_of_the_file_equals_that_of_the_checkpoint_bit_by_bit(exported, finished):
    workdir, _ = finished
    config = run_folder.load_config(workdir)
    one_device = sharding.make_mesh(jax.devices()[:1])
    model, train_state, note = load_trained(workdir, "best", config, one_device)
    variables = jax.device_get(train_state.eval_variables())
    jax.tree.map(np.testing.assert_array_equal, load_portable(exported)[1], variables)

    of_run = Predictor(model, variables, 32, 3, note["labels"], buckets=(2,))
    of_file = loading.load_predictor(exported, buckets=(2,))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected, found = of_run(images), of_file(images)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.embedding, expected.embedding)
    assert of_file.class_names == EXPRESSION_NAMES


def test_temperature_divides_the_logits_and_half_precision_only_rounds(
    exported, finished, tmp_path, monkeypatch
):
    out = tmp_path / "small.safetensors"
    export.export(finished[0], "best", out, half=True, temperature=2.5)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    whole = dmfer_jax.load(str(exported), buckets=(4,)).predictor(images)
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path)
    small = dmfer_jax.load("small", buckets=(4,)).predictor(images)
    logits = np.log(whole.probabilities) / 2.5
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(small.probabilities, expected, atol=5e-3)
    manifest = load_portable(out)[0]
    assert manifest.training["temperature"] == 2.5
    scores = manifest.scores or {}
    assert "accuracy" in scores
    assert not {"ece", "loss"} & set(scores)
    assert out.stat().st_size < 0.75 * exported.stat().st_size
    with pytest.raises(UserError, match=r"'tiny'.* models? of this package: small"):
        dmfer_jax.load("tiny")
    with pytest.raises(UserError, match=r"--temperature is 0"):
        export.export(finished[0], "best", out, temperature=0.0)


def test_run_in_bfloat16_that_was_not_scored_keeps_float32_weights(untrained, tmp_path):
    out = tmp_path / "model.safetensors"
    manifest = export.export(untrained, "last", out)
    assert manifest.scores is None
    assert manifest.model["dtype"] == "bfloat16"
    assert manifest.training["chosen_on"] is None
    assert not manifest.training["moving_average"]
    _, variables = load_portable(out)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    assert loading.make_network(manifest).dtype == "bfloat16"


FLAGS: dict[str, Any] = {
    **dict.fromkeys(("workdir", "model", "out", "checkpoint", "temperature", "licence", "notes")),
    **{"to": "safetensors", "half": False, "int8": False, "calibrate_on": None},
}


def command(monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """Runs the command with these flags given."""
    flags = SimpleNamespace(FLAGS=SimpleNamespace(**{**FLAGS, **given}))
    monkeypatch.setattr(export, "flags", flags)
    export.main([])


def test_command_writes_the_file_and_says_what_is_in_it(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "folder" / "model.safetensors"
    command(monkeypatch, workdir=str(finished[0]), out=str(out))
    said = capsys.readouterr().out
    assert f"{out}: neutral, happiness" in said
    assert "synthetic_faces/tiny" in said
    assert list(out.parent.iterdir()) == [out]
    load_portable(out)


@pytest.mark.parametrize("step", ["many", None])
def test_what_a_strangers_file_says_of_its_training_is_printed_as_it_is(
    exported, tmp_path, monkeypatch, capsys, step
):
    manifest, variables = load_portable(exported)
    told = dataclasses.replace(manifest, training={**manifest.training, "step": step})
    save_portable(tmp_path / "theirs.safetensors", variables, told)
    model, out = str(tmp_path / "theirs.safetensors"), str(tmp_path / "m.npz")
    command(monkeypatch, model=model, to="npz", out=out)
    assert f", step {step}, " in capsys.readouterr().out


def test_what_a_strangers_file_says_does_not_steer_the_terminal(
    exported, tmp_path, monkeypatch, capsys
):
    manifest, variables = load_portable(exported)
    told = dataclasses.replace(manifest, labels=("\x1b[31mred", *manifest.labels[1:]))
    save_portable(tmp_path / "theirs.safetensors", variables, told)
    model, out = str(tmp_path / "theirs.safetensors"), str(tmp_path / "m.npz")
    command(monkeypatch, model=model, to="npz", out=out)
    assert "\\x1b[31mred, " in capsys.readouterr().out


def test_run_without_the_checkpoint_is_refused(untrained, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no run"):
        export.export(tmp_path, "last", tmp_path / "out")
    monkeypatch.setattr(checkpoint.Checkpoints, "step", lambda self, which: None)
    with pytest.raises(UserError, match="has no best checkpoint; an epoch is chosen"):
        export.export(untrained, "best", tmp_path / "out")


def change(exported: Path, out: Path, **changes: Any) -> Path:
    """A sound file with the same weights and another manifest."""
    manifest, variables = load_portable(exported)
    changes = {
        name: {**getattr(manifest, name), **value} if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    save_portable(out, variables, dataclasses.replace(manifest, **changes))
    return out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": {"std": [0.2] * 3}}, "prepared in another way .*'std' of its prepro"),
        ({"preprocessing": {"crop": 1}}, "prepared in another way .*'crop'"),
        ({"model": {"pooling": "max"}}, "has the option 'pooling', which this release"),
        ({"model": {"width": 1}}, r"width is 1; expected a value such as 1\.0"),
        ({"model": {"width": 1e300}}, r"width is 1e\+300"),
        ({"model": {"heads": 2**62}}, "heads is"),
        ({"model": {"heads": 0}}, r"config\.model\.heads is 0"),
        ({"model": {"backbone": "vgg16"}}, r"config\.model\.backbone is 'vgg16'"),
        ({"model": {"dtype": "object"}}, r"config\.model\.dtype is 'object'"),
        ({"model": {"learned_centers": 1}}, "learned_centers is 1; expected true or false"),
        ({"model": {"learned_centers": True}}, "params/centers is missing; expected"),
        ({"model": {"attentive": 1}}, "attentive is 1; expected true or false"),
        ({"model": {"attentive": True}}, "attentive/.* is missing; expected"),
        ({"model": {"cosine_scale": 0.0}}, r"cosine_scale is 0\.0; expected null, or a number"),
        ({"model": {"cosine_scale": "64"}}, "cosine_scale is '64'; expected null, or a number"),
        ({"model": {"cosine_scale": 64.0}}, r"params/head/bias is \(8,\); expected none"),
        ({"model": {"flip_average": 1}}, "flip_average is 1; expected a value such as False"),
        ({"model": {"stem": "imagenet"}}, r"stem/conv/kernel is \(3, 3, 3, 8\); expected \(7, 7"),
        ({"model": {"attention": "none"}}, "params/attention.* expected none"),
        ({"model": {"width": 0.25}}, "the weights are not those of the network"),
    ],
)
def test_file_of_another_network_than_it_says_is_refused(exported, tmp_path, changes, message):
    path = change(exported, tmp_path / "bad.safetensors", **changes)
    with pytest.raises(UserError, match=rf"bad\.safetensors: .*{message}"):
        loading.load_predictor(path)


def test_option_that_came_later_has_its_default(exported):
    manifest, _ = load_portable(exported)
    later = ("depthwise", "flip_average", "attentive", "cosine_scale")
    options = {name: value for name, value in manifest.model.items() if name not in later}
    assert len(options) == len(manifest.model) - len(later)
    older: Manifest = dataclasses.replace(manifest, model=options)
    assert loading.make_network(older) == loading.make_network(manifest)


@pytest.mark.parametrize("name", ["cosface", "attentive_center"])
def test_what_a_loss_asks_of_the_network_and_the_flip_average_are_in_the_file(
    name, data_dir, tmp_path
):
    config = make_tiny_config(data_dir)
    config.model.scales, config.model.attention, config.model.flip_average = "deep", "none", True
    config.loss.name, config.loss.scale = name, 64.0
    workdir = save_random_run(tmp_path / "run", config, ("happy", "sad"))
    manifest = export.export(workdir, "last", tmp_path / "model.safetensors")
    scale = 64.0 if name == "cosface" else None
    expected = state.make_model(config, 2)
    assert (expected.cosine_scale, expected.attentive) == (scale, name == "attentive_center")
    assert loading.make_network(manifest) == expected

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    predictor = loading.load_predictor(tmp_path / "model.safetensors", buckets=(2,))
    found, mirrored = predictor(images), predictor(images[:, :, ::-1])
    np.testing.assert_allclose(mirrored.probabilities, found.probabilities, rtol=1e-4)
    _, variables = load_portable(tmp_path / "model.safetensors")
    outputs: Any = jax.jit(expected.apply)(variables, augment.normalize(jnp.asarray(images)))
    np.testing.assert_allclose(found.probabilities, jax.nn.softmax(outputs.logits), rtol=1e-4)

    cooler, out = jax.nn.softmax(outputs.logits / 2), tmp_path / "cooler.safetensors"
    manifest = export.export(workdir, "last", out, temperature=2.0)
    assert manifest.model["cosine_scale"] == (32.0 if name == "cosface" else None)
    found = loading.load_predictor(out, buckets=(2,))(images)
    np.testing.assert_allclose(found.probabilities, cooler, rtol=1e-4)


def test_each_format_gives_the_predictions_of_the_run(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = dmfer_jax.load(str(exported)).predictor(images)
    for to in ("npz", "stablehlo", "onnx"):
        pytest.importorskip({"npz": "numpy", "stablehlo": "flatbuffers"}.get(to, "onnxruntime"))
        command(monkeypatch, model=str(exported), to=to)
        found = dmfer_jax.load(f"model.{to}").predictor(images)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-4)


def test_int8_is_calibrated_on_the_runs_validation_images_or_on_a_folder(
    tiny_config, finished, exported, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, workdir=str(finished[0]), to="onnx", int8=True, out="a.int8.onnx")
    valid = finished[1]["checkpoints"]["last"]["splits"]["valid"]["examples"]
    (folder,) = Path(tiny_config.data.data_dir).glob("synthetic_faces/tiny/*")
    of_valid = load_split(folder, "valid", tiny_config.data, train=False).images
    np.testing.assert_array_equal(calibration.images_of_run(finished[0]), of_valid)
    assert f"int8, calibrated on {valid} images" in capsys.readouterr().out
    assert load_exported(tmp_path / "a.int8.onnx").manifest.scores is None  # those of float32
    (tmp_path / "faces" / "more").mkdir(parents=True)
    with pytest.raises(UserError, match="faces holds no picture"):
        command(monkeypatch, model=str(exported), to="onnx", int8=True, calibrate_on="faces")
    with pytest.raises(UserError, match="faecs is no folder"):
        command(monkeypatch, model=str(exported), to="onnx", int8=True, calibrate_on="faecs")
    (tmp_path / "faces" / "._0.png").write_text("what a Mac leaves beside a picture")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(
            tmp_path / "faces" / "more" / f"{number}.{'png' if number else 'tif'}"
        )
    command(monkeypatch, model=str(exported), to="onnx", int8=True, calibrate_on="faces")
    assert "model.int8.onnx" in (said := capsys.readouterr().out)
    assert "calibrated on 2 images" in said
    (tmp_path / "faces" / "broken.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read.*take it out of"):
        command(monkeypatch, model=str(exported), to="onnx", int8=True, calibrate_on="faces")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give either --workdir, .* or --model"),
        ({"workdir": "a", "model": "b"}, "both are given"),
        ({"model": "b", "checkpoint": "best"}, "--checkpoint goes with --workdir"),
        ({"model": "b", "temperature": 1.0}, "--temperature goes with --workdir"),
        ({"workdir": "a", "to": "npz", "half": True}, "--half goes with --to=safetensors"),
        ({"workdir": "a", "int8": True}, "--int8 goes with --to=onnx"),
        ({"workdir": "a", "to": "onnx", "calibrate_on": "x"}, "--calibrate_on goes with --int8"),
        ({"model": "b", "to": "onnx", "int8": True}, "name a folder of a hundred or more"),
        ({"workdir": "a", "to": "onnx", "out": "a.npz"}, r"end with \.onnx"),
        ({"model": "nothing", "to": "onnx"}, "there is no model 'nothing'"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        command(monkeypatch, **flags)
    assert not list(tmp_path.iterdir())


def test_model_is_not_written_over_itself(exported, monkeypatch):
    monkeypatch.chdir(exported.parent)
    with pytest.raises(UserError, match="is the model itself"):
        command(monkeypatch, model=str(exported))


def test_packages_that_are_missing_are_named_with_their_extra(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module, to, extra in (
        ("flatbuffers", "stablehlo", "export"),
        ("onnxruntime", "onnx", "onnx"),
    ):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, module, None)
            patched.delitem(sys.modules, "dmfer_jax.formats.onnx_file", raising=False)
            patched.delattr(formats, "onnx_file", raising=False)
            missing = rf"'{module}' is not installed; .*\[{extra}\]"
            with pytest.raises(UserError, match=missing):
                command(patched, model=str(exported), to=to)
            with pytest.raises(UserError, match=missing):
                load_exported(tmp_path / f"model.{to}")
