"""StableHLO files hold one program for three platforms and any number of images."""

import json
import zipfile

import numpy as np
import pytest
from jax import export

from dmfer_jax.errors import UserError
from dmfer_jax.exported import load_exported
from dmfer_jax.formats.stablehlo import save_stablehlo
from tests.formats import exported_files

pytest.importorskip("flatbuffers")
pytestmark = pytest.mark.usefixtures("convolve_as_users_do")


@pytest.fixture(autouse=True, scope="module")
def _few_blocks():
    with pytest.MonkeyPatch.context() as patch:
        exported_files.have_few_blocks(patch)
        yield


@pytest.fixture(scope="module")
def network(_few_blocks):
    return exported_files.make({"flip_average": True}, channels=3)


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("stablehlo") / "model.stablehlo"
    save_stablehlo(path, *network)
    return path


def test_program_gives_what_the_network_gives(saved, network):
    images = exported_files.draw_images(channels=3)
    manifest, variables = network
    expected = exported_files.predict(manifest, variables, images)
    model = load_exported(saved)
    exported_files.check_same(model(images[:1]), [one[:1] for one in expected])
    many = np.concatenate([images] * 2)  # a call of eight
    exported_files.check_same(model(many), [np.concatenate([one] * 2) for one in expected])
    assert model.class_names == exported_files.LABELS
    with pytest.raises(UserError, match="expected uint8"):
        model(images[..., :1])


def test_file_is_of_three_platforms_and_needs_nothing_of_this_project(saved):
    with zipfile.ZipFile(saved) as file:
        program = export.deserialize(bytearray(file.read("program.bin")))
        manifest = json.loads(file.read("manifest.json"))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(one) for one in program.in_avals] == ["uint8[n,48,48,3]"]
    assert [str(one) for one in program.out_avals] == ["float32[n,3]", "float32[n,16]"]
    assert tuple(manifest["labels"]) == exported_files.LABELS


@pytest.mark.parametrize("place", [0.001, 0.01, 0.5])
def test_changed_byte_is_found(saved, tmp_path, place):
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 1
    path = tmp_path / "bad.stablehlo"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.stablehlo: .*export it again"):
        load_exported(path)


@pytest.mark.parametrize("program", [b"", b"no program", bytes(1000)])
def test_program_that_jax_cannot_read_is_refused(network, tmp_path, monkeypatch, program):
    path = tmp_path / "old.stablehlo"
    monkeypatch.setattr(export.Exported, "serialize", lambda _: program)
    save_stablehlo(path, *network)
    with pytest.raises(UserError, match=r"old\.stablehlo: JAX .* cannot read its program"):
        load_exported(path)


def test_other_files_are_refused(saved, tmp_path):
    (tmp_path / "short.stablehlo").write_bytes(saved.read_bytes()[:-100])
    (tmp_path / "text.stablehlo").write_text("no program")
    for name, kind in (("other", zipfile.ZIP_STORED), ("packed", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / f"{name}.stablehlo", "w", kind) as file:
            file.writestr("manifest.json", "{}")
            file.writestr("program.bin" if name == "packed" else "evil.py", b"")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=rf"{path.name}: .*export it again"):
            load_exported(path)
