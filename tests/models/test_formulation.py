"""Plain operations are another way to write the same function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from dmfer_jax.models import face_resnet
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.formulation import is_plain, plain
from tests.models.variables import draw_variables

pytestmark = pytest.mark.usefixtures("convolve_as_users_do")


def test_plain_network_has_no_formulation_of_ours_and_gives_the_same(monkeypatch):
    monkeypatch.setattr(face_resnet, "BLOCKS", (1, 1, 1))
    model = Dmfer(3, width=0.125, embedding=16, heads=2, backbone="face_resnet")
    images = jax.random.normal(jax.random.key(0), (2, 48, 48, 1))
    variables = draw_variables(model, images)

    def trace() -> Any:  # of a function that JAX has not traced before
        return jax.make_jaxpr(lambda images: model.apply(variables, images))(images)

    ours = trace()
    with plain():
        assert is_plain()
        written = trace()
    assert not is_plain()
    for formulation in ("platform_index", "custom_vjp_call"):
        assert formulation in str(ours)
        assert formulation not in str(written)
    expected, found = (jax.jit(core.jaxpr_as_fun(one))(images) for one in (ours, written))
    for ours_of, written_of in zip(expected, found, strict=True):
        atol = 1e-4 * float(jnp.abs(ours_of).max())
        np.testing.assert_allclose(written_of, ours_of, rtol=1e-4, atol=atol)
