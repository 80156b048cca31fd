"""Which tensors of a file a network takes, and which files it refuses."""

import functools
import re
from typing import Any

import jax
import numpy as np
import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.resnet import ResNet
from dmfer_jax.weights.face import FACE_WEIGHTS, translate
from dmfer_jax.weights.matching import IMAGENET_MEAN, IMAGENET_STD, match
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict
from dmfer_jax.weights.reading import read_weights
from tests.models.variables import draw_variables

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def draw(channels: int = 3, classes: int = 8, **changes: Any) -> Arrays:
    """Returns a narrow network's tensors by our names."""
    return dict(_draw(channels, classes, **changes))


@functools.cache
def _draw(channels: int, classes: int, **changes: Any) -> Arrays:
    options: dict[str, Any] = {"stem": "small", "width": 0.125, "embedding": 16, "heads": 2}
    model = Dmfer(classes, **{**options, **changes})
    return to_state_dict(
        draw_variables(model, jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32))
    )


def shapes_of(arrays: Arrays) -> Shapes:
    return {name: array.shape for name, array in arrays.items()}


def as_torchvision(arrays: Arrays, prefix: str = "") -> Arrays:
    """Returns a network's backbone under torchvision's names, with a `fc` and counts of batches."""
    named: Arrays = {"fc.weight": np.ones((10, 64), np.float32), "fc.bias": np.ones(10, np.float32)}
    for name, array in arrays.items():
        if not name.startswith("backbone."):
            continue
        name = name.removeprefix("backbone.").replace("stem.conv", "conv1")
        name = name.replace("stem.norm", "bn1").replace("downsample.conv", "downsample.0")
        name = name.replace("downsample.norm", "downsample.1")
        name = re.sub(r"conv(\d)\.conv", r"conv\1", name)
        name = re.sub(r"conv(\d)\.norm", r"bn\1", name)
        name = re.sub(
            r"stage(\d)_block(\d)", lambda found: f"layer{found[1]}.{int(found[2]) - 1}", name
        )
        named[name] = array
        if name.endswith("running_var"):
            named[name.replace("running_var", "num_batches_tracked")] = np.array(7)
    return {prefix + name: array for name, array in named.items()}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_backbone_with_torchvisions_names_is_taken_whole(backbone, prefix):
    arrays = draw(backbone=backbone)
    found = match(as_torchvision(arrays, prefix), shapes_of(arrays), backbone, "symmetric")
    expected = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    assert found.taken.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found.taken[name], array)
    assert found.random == ("attention", "compress", "head", "two_scale")
    assert found.unused == (f"{prefix}fc.weight", f"{prefix}fc.bias")
    assert found.tensors == len(arrays)
    assert found.lines() == [
        f"matched {len(expected)} of the network's {len(arrays)} tensors",
        f"not used of the file: 2 ({prefix}fc.weight, {prefix}fc.bias)",
        "drawn at random: attention, compress, head, two_scale",
    ]


def test_names_are_torchvisions():
    # As torchvision 0.20 lists them; the test's own renaming must not agree only with itself.
    names = as_torchvision(draw(backbone="resnet50"))
    for name in (
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer1.0.bn3.bias",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_mean",
        "layer3.5.conv3.weight",
        "layer4.2.bn2.num_batches_tracked",
    ):
        assert name in names
    assert len([name for name in names if "num_batches" not in name]) == 267  # 161 and statistics


@pytest.mark.parametrize("prefix", ["", "module."])
def test_own_weights_are_taken_whole(prefix):
    arrays = draw()
    found = match(
        {prefix + name: array for name, array in arrays.items()},
        shapes_of(arrays),
        "resnet18",
        "imagenet",  # is said of torchvision's names alone
    )
    assert (found.unused, found.random, found.notes) == ((), (), ())
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.taken[name], array)
    assert found.lines()[1:] == ["not used of the file: nothing", "drawn at random: nothing"]


def test_part_of_other_shape_is_drawn_at_random_as_a_whole():
    found = match(draw(classes=8), shapes_of(draw(classes=7)), "resnet18", "symmetric")
    assert found.random == ("head",)
    assert set(found.unused) == {"head.bias", "head.weight"}
    found = match(
        draw(attention="squeeze_excite"), shapes_of(draw(embedding=16)), "resnet18", "symmetric"
    )
    assert found.random == ("attention",)


def test_halves_become_float32():
    arrays = draw()
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    found = match(halves, shapes_of(arrays), "resnet18", "symmetric")
    assert {array.dtype for array in found.taken.values()} == {np.dtype(np.float32)}


def stem_outputs(arrays: Arrays, images: np.ndarray) -> np.ndarray:
    """The 7x7/2 convolution and BatchNorm, by hand in float64: `[n, o, h/2, w/2]`."""
    kernel = arrays["backbone.stem.conv.weight"].astype(np.float64)
    padded = np.pad(images.astype(np.float64), ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (1, 2))[:, ::2, ::2]
    y = np.einsum("nhwcij,ocij->nohw", windows, kernel)
    norm = {
        leaf: arrays[f"backbone.stem.norm.{leaf}"].astype(np.float64)[:, None, None]
        for leaf in ("weight", "bias", "running_mean", "running_var")
    }
    centered = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
    return centered * norm["weight"] + norm["bias"]


def test_weights_for_imagenets_normalisation_are_adapted_exactly_but_for_the_border():
    arrays = draw(stem="imagenet")
    found = match(as_torchvision(arrays), shapes_of(arrays), "resnet18", "imagenet")
    assert "adapted" in found.notes[0]
    # As torchvision has them in its weights' transforms.
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert IMAGENET_STD == (0.229, 0.224, 0.225)
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3))
    theirs = stem_outputs(arrays, (images - IMAGENET_MEAN) / IMAGENET_STD)
    ours = stem_outputs(found.taken, 2 * images - 1)
    inside = (..., slice(2, -1), slice(2, -1))  # windows 2*i-3 to 2*i+3 within 0 to 31
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-5)
    assert np.abs(ours - theirs).max() > 1e-2  # which the documentation says of the border
    changed = {"backbone.stem.conv.weight", "backbone.stem.norm.running_mean"}
    for name, array in found.taken.items():
        assert np.array_equal(array, arrays[name]) == (name not in changed)


def test_grey_network_computes_what_the_rgb_one_does_of_equal_channels():
    arrays = draw(stem="imagenet")
    grey_shapes = shapes_of(draw(stem="imagenet", channels=1))
    found = match(as_torchvision(arrays), grey_shapes, "resnet18", "symmetric")
    assert found.notes == ("the first convolution's RGB kernels were summed for grey images",)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 1))
    expected = stem_outputs(arrays, np.repeat(image, 3, axis=3))
    np.testing.assert_allclose(stem_outputs(found.taken, image), expected, atol=1e-5)


def refusal(arrays: Arrays, shapes: Shapes, backbone: str = "resnet18") -> str:
    with pytest.raises(UserError) as caught:
        match(arrays, shapes, backbone, "imagenet")
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("held", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("asked", ["resnet18", "resnet34", "resnet50"])
def test_other_depth_is_refused_with_what_to_set(held, asked):
    # Of ResNet-34's tensors some would fill a ResNet-18, which would be no ResNet-34's.
    if held == asked:
        return
    shapes = shapes_of(draw(backbone=asked))
    for arrays in (as_torchvision(draw(backbone=held)), draw(backbone=held)):
        assert f"set config.model.backbone={held}" in refusal(arrays, shapes, asked)


def test_incomplete_backbone_is_refused_with_the_first_names():
    arrays = draw()
    theirs = as_torchvision(arrays)
    for name in ("layer2.0.downsample.0.weight", "bn1.running_var"):
        del theirs[name]
    message = refusal(theirs, shapes_of(arrays))
    assert "missing are 2 (backbone." in message
    assert "backbone.stage2_block1.downsample.conv.weight" in message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layer1.0.se.fc.0.weight", "squeeze"),
        ("layer2.1.prelu.weight", "PReLU"),
        ("conv1.bias", "bias"),
    ],
)
def test_backbone_with_parts_that_ours_has_not_is_refused(name, kind):
    arrays = draw()
    theirs = {**as_torchvision(arrays), name: np.ones(8, np.float32)}
    message = refusal(theirs, shapes_of(arrays))
    assert name in message
    assert kind in message


def test_ir50_is_refused_as_what_it_is():
    ir50 = {
        name: np.ones(1, np.float32)
        for name in ("input_layer.0.weight", "body.0.res_layer.0.weight", "output_layer.0.weight")
    }
    message = refusal(ir50, shapes_of(draw()))
    assert "IR-50" in message
    assert "ResNet-18, 34 and 50" in message


@pytest.mark.parametrize(
    ("theirs", "ours", "advice"),
    [
        ({"stem": "imagenet"}, {}, "set config.model.stem=imagenet"),
        ({}, {"stem": "imagenet"}, "set config.model.stem=small"),
        ({"width": 0.25}, {}, "config.model.width=0.25"),
        ({"channels": 1}, {}, "set config.data.channels=1"),
    ],
    ids=range(4),
)
def test_other_shapes_are_refused_with_what_to_set(theirs, ours, advice):
    for arrays in (draw(**theirs), as_torchvision(draw(**theirs))):
        assert advice in refusal(arrays, shapes_of(draw(**ours)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (-1.0, "variances below 0")],
)
def test_numbers_that_no_network_has_are_refused(value, expected):
    arrays = draw()
    theirs = as_torchvision(arrays)
    theirs["bn1.running_var"] = np.full_like(theirs["bn1.running_var"], value)
    assert expected in refusal(theirs, shapes_of(arrays))


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.bias", "layer4.0.bn1.running_mean"])
def test_whole_numbers_and_odd_shapes_are_refused(name):
    arrays = draw()
    theirs = as_torchvision(arrays)
    whole = {**theirs, name: theirs[name].astype(np.int64)}
    assert "int64" in refusal(whole, shapes_of(arrays))
    for shape in ((), (3,), (8, 3, 7, 0), (1, 1, 1, 1, 1)):
        odd = {**theirs, name: np.ones(shape, np.float32)}
        assert "another shape" in refusal(odd, shapes_of(arrays))


def test_two_tensors_of_one_meaning_are_refused():
    arrays = draw()
    theirs = as_torchvision(arrays)
    theirs["module.conv1.weight"] = theirs["conv1.weight"]
    assert "same meaning" in refusal(theirs, shapes_of(arrays))


def test_names_from_a_file_are_printed_without_control_characters():
    arrays = draw()
    theirs = {**as_torchvision(arrays), "\x1b[31mred": np.ones(1), "x" * 10_000: np.ones(1)}
    found = match(theirs, shapes_of(arrays), "resnet18", "symmetric")
    assert all(line.isprintable() and len(line) < 500 for line in found.lines())


def test_what_was_taken_is_a_networks_variables():
    arrays = draw()
    found = match(as_torchvision(arrays), shapes_of(arrays), "resnet18", "symmetric")
    variables = from_state_dict(found.taken)
    backbone = {name: tree["backbone"] for name, tree in variables.items()}
    expected = draw_variables(
        ResNet(width=0.125, stem="small"),
        jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32),
        train=False,
    )
    assert jax.tree.map(np.shape, backbone) == jax.tree.map(np.shape, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_face_network_is_taken_whole_and_computes_the_same_of_grey(channels):
    arrays = draw(channels, backbone="face_resnet", width=1.0)
    found = match(read_weights(FACE_WEIGHTS), shapes_of(arrays), "face_resnet", "imagenet")
    assert set(found.taken) == {name for name in arrays if name.startswith("backbone.")}
    assert found.random == ("attention", "compress", "head", "two_scale")
    assert "fc" in found.unused
    assert not found.fitted
    stem = found.taken["backbone.stem.conv.weight"]
    whole = translate(read_weights(FACE_WEIGHTS))[0]["backbone.stem.conv.weight"]
    expected = whole if channels == 3 else whole.sum(1, keepdims=True)
    np.testing.assert_allclose(stem, expected, rtol=1e-5, atol=1e-7)


def test_other_backbones_are_told_from_the_face_network():
    face, resnet = draw(backbone="face_resnet", width=1.0), draw()
    with pytest.raises(UserError, match=r"holds a backbone face_resnet, .* is 'resnet18'"):
        match(read_weights(FACE_WEIGHTS), shapes_of(resnet), "resnet18", "imagenet")
    with pytest.raises(UserError, match=r"holds a backbone resnet18, .* is 'face_resnet'"):
        match(as_torchvision(resnet), shapes_of(face), "face_resnet", "imagenet")
    narrow = draw(backbone="face_resnet", width=0.5)
    with pytest.raises(UserError, match=r"Set config\.model\.width=1"):
        match(read_weights(FACE_WEIGHTS), shapes_of(narrow), "face_resnet", "imagenet")
    assert match(face, shapes_of(face), "face_resnet", "imagenet").fitted
