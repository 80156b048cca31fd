"""What a model's name stands for."""

import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.loading import find_model, load_weights


def test_home_of_a_user_that_there_is_not_is_a_path_like_any_other(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"there is no model '~nosuchuser/m\.npz'"):
        find_model("~nosuchuser/m.npz")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.npz").touch()
    assert find_model("~/m.npz") == tmp_path / "m.npz"


@pytest.mark.parametrize("ending", [".onnx", ".stablehlo"])
def test_a_program_is_told_from_a_damaged_file_of_weights(ending, tmp_path):
    path = tmp_path / f"face{ending}"
    path.write_bytes(b"a program")
    with pytest.raises(UserError, match=r"face\.\w+ is a program .*; give the .safetensors or"):
        load_weights(path)
