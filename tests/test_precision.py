"""What must not be rounded on accelerators asks for all its bits."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.lax import Precision

from dmfer_jax import config as configs
from dmfer_jax import sharding, state, steps
from dmfer_jax.optimizer import make_optimizer, make_schedule


def operations(program: Any) -> Iterator[Any]:
    """All operations of a program and of those inside it."""
    for equation in program.eqns:
        yield equation
        for value in equation.params.values():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from operations(inner)


@pytest.mark.parametrize(
    ("loss", "centers"),
    [
        ("center_cosine", "state"),
        ("center_cosine_island", "learned"),
        ("cosface", "state"),
    ],
)
def test_products_of_losses_and_attention_keep_all_bits(loss, centers):
    config: Any = configs.load_config("configs/ferplus.py")
    assert config.model.dtype == "bfloat16"
    config.model.width, config.model.embedding, config.model.heads = 0.125, 16, 2
    config.data.image_size, config.loss.name, config.loss.centers = 32, loss, centers
    configs.validate(config)
    model, mesh = state.make_model(config, 8), sharding.make_mesh()
    optimizer = make_optimizer(config, make_schedule(config, 10))
    step: Any = steps.make_train_step(config, model, optimizer, mesh, None)
    before = jax.eval_shape(lambda: state.init_state(config, model, optimizer))
    batch = {
        "image": jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.uint8),
        "target": jax.ShapeDtypeStruct((8, 8), jnp.float32),
    }
    rounded, exact = [], 0
    for operation in operations(step.trace(before, batch).jaxpr.jaxpr):
        if operation.primitive.name != "dot_general":
            continue
        shapes = [operand.aval.shape for operand in operation.invars]
        if all(operand.aval.dtype == jnp.float32 for operand in operation.invars):
            if operation.params["precision"] == (Precision.HIGHEST, Precision.HIGHEST):
                exact += 1
            elif 3 not in shapes[0]:  # channels of an image: augmentation may round
                rounded.append(shapes)
    assert exact >= 6
    assert rounded == []
