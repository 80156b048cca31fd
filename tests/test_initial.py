"""Runs that begin with weights of a file: what is used, what is kept of it, and going on."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from dmfer_jax import compiling, initial, loop, sharding, state, train
from dmfer_jax.config import load_config
from dmfer_jax.errors import UserError
from dmfer_jax.initial import describe_start, read_initial_weights
from dmfer_jax.labels import EXPRESSION_NAMES
from dmfer_jax.optimizer import make_optimizer, make_schedule
from dmfer_jax.reporting import figures
from dmfer_jax.state import TrainState
from dmfer_jax.weights.face import FACE_WEIGHTS
from dmfer_jax.weights.manifest import list_files
from dmfer_jax.weights.packaged import packaged_models
from dmfer_jax.weights.pytorch import to_state_dict
from tests.models.variables import draw_variables
from tests.weights.test_matching import as_torchvision
from tests.weights.torch_writing import write


def first_state(config: Any) -> TrainState:
    """A first state of random weights, drawn in NumPy."""
    model = state.make_model(config, 8)
    optimizer = make_optimizer(config, make_schedule(config, 12))
    like = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = draw_variables(model, image, seed=7)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    ema = None if like.ema is None else jax.tree.map(np.copy, variables)
    whole = zeros.replace(**variables, ema=ema)
    return jax.device_put(whole, sharding.replicated(sharding.make_mesh()))


def file_arrays(config: Any) -> dict[str, np.ndarray]:
    """A file's weights, by our names."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return to_state_dict(draw_variables(state.make_model(config, 8), image, seed=3))


def by_name(params: Any, batch_stats: Any) -> dict[str, np.ndarray]:
    return to_state_dict(jax.device_get({"params": params, "batch_stats": batch_stats}))


def begin(config: Any, workdir: Path, like: Any = None) -> Any:
    like = first_state(config) if like is None else like
    return read_initial_weights(config, workdir, like, EXPRESSION_NAMES, True, "synthetic_faces")


def test_a_file_of_others_is_taken_for_one_of_imagenets_normalisation(
    tiny_config, tmp_path, capsys
):
    arrays = file_arrays(tiny_config)
    tiny_config.init_from = str(write(tmp_path / "resnet10.pth", as_torchvision(arrays)))
    weights = begin(tiny_config, tmp_path)
    assert "adapted" in capsys.readouterr().out
    name = "backbone.stem.conv.weight"
    given = arrays[name]
    std = np.reshape((0.229, 0.224, 0.225), (1, 3, 1, 1))
    after = weights.put_into(first_state(tiny_config))
    found = by_name(after.params, after.batch_stats)[name]
    np.testing.assert_allclose(found, given / (2 * std), rtol=1e-5)


def test_state_begins_with_the_backbone_and_its_average_too(tiny_config, tmp_path, capsys):
    arrays = file_arrays(tiny_config)
    path = write(tmp_path / "resnet10.pth", as_torchvision(arrays, "module."))
    tiny_config.init_from, tiny_config.init_normalization = str(path), "symmetric"
    before = first_state(tiny_config)
    weights = begin(tiny_config, tmp_path, before)
    after = weights.put_into(before)
    ours = by_name(after.params, after.batch_stats)
    average = by_name(**after.ema)
    drawn = by_name(before.params, before.batch_stats)
    for name, array in ours.items():
        expected = arrays[name] if name.startswith("backbone.") else drawn[name]
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(average[name], expected)
    for name in ("opt_state", "centers", "step"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.dtype, old.sharding) == (new.dtype, new.sharding)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    printed = capsys.readouterr().out
    # 12 convolutions, each with a BatchNorm of four numbers a channel.
    assert f"weights from resnet10.pth, SHA-256 {digest}:\n  matched 60 of the" in printed
    assert "not used of the file: 2 (module.fc.weight, module.fc.bias)" in printed
    assert "drawn at random: attention, compress, head, two_scale" in printed
    told = describe_start(tmp_path)["init_from"]
    assert (told["file"], told["sha256"], told["matched"]) == ("resnet10.pth", digest, 60)
    assert str(tmp_path) not in json.dumps(told)


def test_own_weights_begin_the_whole_network(tiny_config, tmp_path):
    arrays = file_arrays(tiny_config)
    safetensors.numpy.save_file(arrays, tmp_path / "dmfer.safetensors")
    tiny_config.init_from = str(tmp_path / "dmfer.safetensors")
    before = first_state(tiny_config)
    after = begin(tiny_config, tmp_path, before).put_into(before)
    ours = by_name(after.params, after.batch_stats)
    assert ours.keys() == arrays.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("classes", "random"),
    [
        (EXPRESSION_NAMES, []),
        (("calm", "cross", "glad"), ["head"]),
        (EXPRESSION_NAMES[::-1], ["head"]),
    ],
)
def test_the_model_of_the_package_begins_a_run_with_its_head_on_its_own_classes_alone(
    tmp_path, classes, random
):
    config: Any = load_config("configs/ferplus_face_cpu.py")
    config.init_from = "ferplus-small"
    model = state.make_model(config, len(classes))
    images = jax.ShapeDtypeStruct((1, 131, 131, 1), np.float32)
    like: Any = SimpleNamespace(**jax.eval_shape(model.init, jax.random.key(0), images))
    weights = read_initial_weights(config, tmp_path, like, classes, True, "ferplus")
    record = describe_start(tmp_path)["init_from"]
    assert (record["file"], record["random"]) == ("ferplus-small.safetensors", random)
    note = f"its classes are others, or in another order: {', '.join(EXPRESSION_NAMES)}"
    known = (
        "it was trained on valid of ferplus: scores on these images will be too high, and choose "
        "no epoch"
    )
    assert record["notes"] == [*[note] * len(random), known]
    assert record["trained_on"] == {"ferplus": ["train", "valid"]}
    read_initial_weights(config, tmp_path, like, classes, True, "folder/mine")
    assert describe_start(tmp_path)["init_from"]["notes"] == [note] * len(random)
    config.data.dataset = "folder"  # whose full name is another
    read_initial_weights(config, tmp_path, like, classes, True, "ferplus")
    assert describe_start(tmp_path)["init_from"]["notes"] == [*[note] * len(random), known]
    assert weights is not None
    assert len(weights.taken) == record["matched"] > 100
    assert any(name.startswith("head.") for name in weights.taken) == (not random)


def test_of_another_network_on_the_backbone_nothing_else_is_said_to_be_taken(tmp_path):
    config: Any = load_config("configs/ferplus_face_cpu.py")
    like: Any = SimpleNamespace(
        **jax.eval_shape(
            state.make_model(config, 8).init,
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, 131, 131, 1), np.float32),
        )
    )
    assert not initial.holds_whole_network("face")
    for start in ("face", "ferplus-small"):
        config.init_from = start
        given: Any = (config, tmp_path, like, EXPRESSION_NAMES, True, "ferplus")
        weights = read_initial_weights(*given, backbone_alone=True)
        assert weights is not None
        assert {name.split(".")[0] for name in weights.taken} == {"backbone"}
        told = describe_start(tmp_path)["init_from"]
        assert told["random"] == ["all but the backbone"]
        assert told["matched"] == told["tensors"] == len(weights.taken)
    assert "head.weight" in told["not_used"]
    assert initial.holds_whole_network("ferplus-small")


def test_a_damaged_file_of_ours_begins_nothing(tmp_path):
    config: Any = load_config("configs/ferplus_face_cpu.py")
    content = bytearray(packaged_models()["ferplus-small"].read_bytes())
    content[len(content) // 2] ^= 1
    config.init_from = str(tmp_path / "damaged.safetensors")
    Path(config.init_from).write_bytes(content)
    like: Any = SimpleNamespace()  # which is not looked at
    with pytest.raises(UserError, match=r"damaged\.safetensors.* is damaged"):
        read_initial_weights(config, tmp_path, like, EXPRESSION_NAMES, True, "ferplus")


def test_file_that_does_not_fit_is_named_and_leaves_no_record(tiny_config, tmp_path):
    tiny_config.init_from = str(tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"missing\.pth: No such file"):
        begin(tiny_config, tmp_path)
    other = write(tmp_path / "other.pth", {"a": np.ones(1, np.float32)})
    tiny_config.init_from = str(other)
    with pytest.raises(UserError, match=r"init_from=.*other\.pth: it holds no ResNet"):
        begin(tiny_config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_a_process_that_has_another_file_than_process_0_does_not_begin(
    tiny_config, tmp_path, monkeypatch
):
    arrays = as_torchvision(file_arrays(tiny_config))
    tiny_config.init_from = str(write(tmp_path / "first.pth", arrays))
    begin(tiny_config, tmp_path)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    begin(tiny_config, tmp_path)
    arrays[min(arrays)] = arrays[min(arrays)] + 1
    tiny_config.init_from = str(write(tmp_path / "first.pth", arrays))
    with pytest.raises(UserError, match=r"first\.pth has SHA-256 .* here, and .* in process 0"):
        begin(tiny_config, tmp_path)


def test_random_beginning_forgets_one_that_was_never_saved(tiny_config, tmp_path):
    (tmp_path / "initial_weights.json").write_text('{"file": "x", "sha256": "y"}')
    assert begin(tiny_config, tmp_path) is None
    assert describe_start(tmp_path) == {}


def go_on(config: Any, workdir: Path) -> None:
    nothing: Any = None
    assert read_initial_weights(config, workdir, nothing, (), False, "") is None


def test_run_that_goes_on_must_have_begun_with_the_same_file(tiny_config, tmp_path):
    arrays = as_torchvision(file_arrays(tiny_config))
    path = write(tmp_path / "first.pth", arrays)
    tiny_config.init_from = str(path)
    begin(tiny_config, tmp_path)
    go_on(tiny_config, tmp_path)
    moved = path.rename(tmp_path / "moved.pth")
    go_on(tiny_config, tmp_path)  # the weights are in the checkpoint; the file is not needed
    tiny_config.init_from = str(moved)
    go_on(tiny_config, tmp_path)
    tiny_config.init_from = str(write(tmp_path / "second.pth", {"x": np.ones(1, np.float32)}))
    with pytest.raises(UserError, match=r"began with first\.pth .*second\.pth is another file"):
        go_on(tiny_config, tmp_path)
    tiny_config.init_from = ""
    with pytest.raises(UserError, match=r"began with first\.pth .*init_from is not set"):
        go_on(tiny_config, tmp_path)
    (tmp_path / "initial_weights.json").write_text("{")
    with pytest.raises(UserError, match=r"initial_weights\.json.*damaged"):
        go_on(tiny_config, tmp_path)


def test_manifest_whose_files_have_moved_is_as_good_as_there_and_another_file_is_not(
    tiny_config, tmp_path
):
    record = {"file": "manifest.json", "sha256": "0" * 64}
    (tmp_path / "initial_weights.json").write_text(json.dumps(record))
    path = tmp_path / "manifest.json"
    tiny_config.init_from = str(path)
    path.write_text('[{"paths": ["gone.bin"], "weights": []}]')
    go_on(tiny_config, tmp_path)
    for text in ("[", "[1]", "[{}]"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"is another file \(SHA-256 unknown, it cannot"):
            go_on(tiny_config, tmp_path)


def test_run_of_random_weights_does_not_go_on_with_a_file(tiny_config, tmp_path):
    go_on(tiny_config, tmp_path)
    tiny_config.init_from = "x.pth"
    with pytest.raises(UserError, match=r"began with random weights.*'x\.pth'"):
        go_on(tiny_config, tmp_path)


def test_fine_tuning_keeps_what_is_frozen_and_reports_where_it_began(
    tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "draw_report_figures", lambda *_: [])
    # Less to compile.
    tiny_config.augment.update({f: 0.0 for f in tiny_config.augment if f != "erase_area"})
    tiny_config.model.update({"attention": "none", "scales": "deep"})
    tiny_config.loss.name = "none"
    arrays = file_arrays(tiny_config)
    path = write(tmp_path / "resnet10.pth", as_torchvision(arrays))
    tiny_config.init_from = str(path)
    tiny_config.init_normalization = "symmetric"
    tiny_config.model.frozen_stages = 2
    tiny_config.optimizer.layer_decay = 0.5
    tiny_config.data.test_splits = ("test",)
    tiny_config.train.epochs = 1
    kept: list[TrainState] = []
    honest = loop.train_steps

    def keep(*arguments: Any) -> Any:
        trained, note = honest(*arguments)
        kept.append(jax.device_get(trained))
        return trained, note

    monkeypatch.setattr(loop, "train_steps", keep)
    workdir = tmp_path / "run"
    report = train.train(tiny_config, workdir)
    (trained,) = kept
    assert trained.step == 6
    after, average = by_name(trained.params, trained.batch_stats), by_name(**trained.ema)
    frozen = ("backbone.stem", "backbone.stage1", "backbone.stage2")
    for name, array in arrays.items():
        if name.startswith("backbone."):
            assert np.array_equal(after[name], array) == name.startswith(frozen), name
            assert np.array_equal(average[name], array) == name.startswith(frozen), name
    # Momentum is of what learns alone.
    names = {jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(trained.opt_state)}
    assert any("stage3" in name for name in names)
    assert not any("stage2" in name or "stem" in name for name in names)

    assert report["init_from"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["config"]["init_from"] == "resnet10.pth"
    assert str(tmp_path) not in json.dumps(report)


def test_face_weights_begin_with_the_statistics_of_the_training_images(
    tiny_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train, "compile_train_step", lambda *_: None)
    first: list[TrainState] = []

    def stop(run: Any, begun: TrainState, *_: Any) -> Any:
        first.append(jax.device_get(begun))
        raise SystemExit

    monkeypatch.setattr(loop, "train_steps", stop)
    tiny_config.init_from = "face"
    tiny_config.data.image_size = 64
    tiny_config.model.update({"backbone": "face_resnet", "width": 1.0, "attention": "none"})
    with pytest.raises(SystemExit):
        train.train(tiny_config, tmp_path)
    assert "matched 135 of the network's" in capsys.readouterr().out
    (begun,) = first
    by = by_name(begun.params, begun.batch_stats)
    # Of no layer the statistics are those that the file was read with.
    for name, array in by.items():
        if name.startswith("backbone.") and name.endswith("running_var"):
            assert not np.any(array == np.float32(1 - 1e-5)), name
    average = by_name(**begun.ema)
    for name, array in by.items():
        np.testing.assert_array_equal(average[name], array)

    told = describe_start(tmp_path)["init_from"]
    whole = b"".join(path.read_bytes() for path in list_files(FACE_WEIGHTS))
    assert told["sha256"] == hashlib.sha256(whole).hexdigest()
    go_on(tiny_config, tmp_path)


def test_reading_needs_shapes_alone(tiny_config, tmp_path):
    path = write(tmp_path / "x.pth", as_torchvision(file_arrays(tiny_config)))
    tiny_config.init_from = str(path)
    like = jax.eval_shape(lambda: first_state(tiny_config))
    like = compiling.place(like, sharding.replicated(sharding.make_mesh()))
    assert isinstance(begin(tiny_config, tmp_path, like), initial.InitialWeights)
