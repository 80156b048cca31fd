"""What a model's name stands for."""

import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.loading import find_model


def test_home_of_a_user_that_there_is_not_is_a_path_like_any_other(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"there is no model '~nosuchuser/m\.npz'"):
        find_model("~nosuchuser/m.npz")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.npz").touch()
    assert find_model("~/m.npz") == tmp_path / "m.npz"
