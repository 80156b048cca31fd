"""ONNX files give what the network gives, whatever its options, and say what it is."""

import dataclasses
import json

import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.exported import load_exported, onnx_file
from dmfer_jax.formats import onnx_file as module
from dmfer_jax.loading import load_weights
from dmfer_jax.weights.portable import save_portable
from tests.formats import exported_files

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True, scope="module")
def _few_blocks():
    with pytest.MonkeyPatch.context() as patch:
        exported_files.have_few_blocks(patch)
        yield


@pytest.fixture(scope="module")
def network(_few_blocks):
    return exported_files.make({"backbone": "face_resnet"})


@pytest.fixture(scope="module")
def expected(network):
    manifest, variables = network
    return exported_files.predict(manifest, variables, exported_files.draw_images())


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx_file().save_onnx(path, *network)
    return path


OPTIONS = [
    ({"backbone": "resnet50", "stem": "small", "stem_stride": 2, "depthwise": True}, 3),
    ({"attention": "squeeze_excite", "compress": "top", "flip_average": True}, 3),
    ({"heads": 1}, 1),
    ({"attention": "none", "scales": "shallow", "shallow_stage": 2, "learned_centers": True}, 1),
    ({"scales": "deep", "compress": "top", "cosine_scale": 8.0, "attentive": True}, 1),
    ({"backbone": "face_resnet", "scales": "deep", "flip_average": True, "dropout": 0.5}, 1),
]


@pytest.mark.parametrize(("options", "channels"), OPTIONS, ids=str)
def test_every_option_of_the_network_is_in_the_graph(options, channels, tmp_path):
    manifest, variables = exported_files.make(options, channels)
    images = exported_files.draw_images(channels)
    onnx_file().save_onnx(tmp_path / "model.onnx", manifest, variables)
    model = load_exported(tmp_path / "model.onnx")
    expected = exported_files.predict(manifest, variables, images)
    exported_files.check_same(model(images), expected)
    exported_files.check_same(model(images[:1]), [one[:1] for one in expected])


def test_any_number_of_images_is_predicted_as_one_by_one(saved, expected):
    model = load_exported(saved)
    images = exported_files.draw_images()
    exported_files.check_same(model(images), expected)
    many = np.concatenate([images] * 44)  # more than a call takes
    exported_files.check_same(model(many), [np.concatenate([one] * 44) for one in expected])
    none = model(images[:0])
    assert (none.probabilities.shape, none.embedding.shape) == ((0, 3), (0, 16))
    with pytest.raises(UserError, match="expected uint8"):
        model(images.astype(np.float32))


def test_file_needs_nothing_of_this_project_and_says_what_it_takes_and_gives(saved, expected):
    session = onnxruntime.InferenceSession(saved)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["n", 48, 48, 1])
    assert [(one.name, one.shape) for one in session.get_outputs()] == [
        ("probabilities", ["n", 3]),
        ("embedding", ["n", 16]),
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["labels"])) == exported_files.LABELS
    before = json.loads(metadata["preprocessing"])
    assert before["resize"]["size"] == [48, 48]
    assert not {"divide_by", "mean", "std"} & before.keys()  # the program does it
    assert "pixels stay uint8, 0 to 255" in before["in_words"]
    assert json.loads(metadata["precision"]) == "float32"
    found = session.run(None, {"images": exported_files.draw_images()})
    exported_files.check_same(found, expected)


def test_graph_has_a_convolution_with_bias_for_each_of_the_networks(saved):
    graph = onnx.load(saved).graph
    operations = [node.op_type for node in graph.node]
    # Stem, 3 blocks of 2, shallow_down1, shallow_down2, shallow, deep, compress; with a bias each.
    # Query, key and value; channels of zeros on two shortcuts, and rows of zeros in one: without.
    assert [len(node.input) for node in graph.node if node.op_type == "Conv"].count(3) == 12
    assert operations.count("Conv") == 12 + 3 + 3
    assert operations.count("Transpose") == 1  # of the keys; onnxruntime multiplies without it
    assert not {"Pad", "BatchNormalization", "Gather"} & set(operations)
    assert operations.count("Softmax") == 2  # of attention and of the logits, as one node each


def test_half_weights_are_read_and_written_as_their_float32_values(network, tmp_path):
    manifest, variables = network
    save_portable(tmp_path / "half.safetensors", variables, manifest, half=True)
    manifest, half = load_weights(tmp_path / "half.safetensors")
    onnx_file().save_onnx(tmp_path / "model.onnx", manifest, half)
    images = exported_files.draw_images()
    found = load_exported(tmp_path / "model.onnx")(images)
    exported_files.check_same(found, exported_files.predict(manifest, half, images))


def test_int8_is_smaller_and_nearly_the_same(network, expected, tmp_path):
    onnx_file().save_onnx(tmp_path / "float32.onnx", *network)
    images = exported_files.draw_images()
    calibration = exported_files.draw_images(count=40)
    onnx_file().save_onnx(tmp_path / "int8.onnx", *network, calibrate_on=calibration)
    model = load_exported(tmp_path / "int8.onnx")
    assert model.class_names == exported_files.LABELS
    found = model(images)
    np.testing.assert_allclose(found.probabilities, expected[0], atol=0.05)
    assert np.abs(found.probabilities - expected[0]).max() > 1e-6
    loaded = onnx.load(tmp_path / "int8.onnx")
    convolutions = [node for node in loaded.graph.node if node.op_type == "Conv"]
    kinds = [one.data_type for one in loaded.graph.initializer if len(one.dims) == 4]
    assert kinds.count(onnx.TensorProto.INT8) == len(convolutions) > 0
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in loaded.graph.initializer}
    quantised = [name for name, one in arrays.items() if one.ndim == 4 and one.dtype == np.int8]
    for node in loaded.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantised:
            weights, scales = (arrays[name] for name in node.input[:2])
            assert scales.shape == weights.shape[:1]  # one for each channel
            assert np.abs(weights.astype(int)).max() <= 64  # 7 bits
            quantised.remove(node.input[0])
    assert not quantised
    (precision,) = [one.value for one in loaded.metadata_props if one.key == "precision"]
    assert precision == '"int8"'


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_changed_byte_is_found(saved, tmp_path, place):
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 1
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.onnx: .*export it again"):
        load_exported(path)


def test_other_files_are_refused(saved, tmp_path):
    (tmp_path / "short.onnx").write_bytes(saved.read_bytes()[:-50])
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=rf"{path.name}: .*export it again"):
            load_exported(path)
    with pytest.raises(UserError, match="No such file"):
        load_exported(tmp_path / "nothing.onnx")
    with pytest.raises(UserError, match=r"end with \.stablehlo or \.onnx"):
        load_exported(tmp_path / "model.safetensors")


@pytest.mark.parametrize("field", [{"labels": ("a", "b")}, {"image_size": 24}])
def test_file_that_says_other_than_it_computes_is_refused(saved, field, monkeypatch):
    honest = module.unseal
    monkeypatch.setattr(
        module, "unseal", lambda *arguments: dataclasses.replace(honest(*arguments), **field)
    )
    with pytest.raises(UserError, match=r"it says that it takes and gives .*, and it is"):
        load_exported(saved)
