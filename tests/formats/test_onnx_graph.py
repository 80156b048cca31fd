"""Functions in JAX, primitive by primitive, give the same numbers as ONNX graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402

from dmfer_jax.onnx_graph.convert import convert  # noqa: E402
from dmfer_jax.onnx_graph.graph import IR_VERSION, OPSET  # noqa: E402
from dmfer_jax.onnx_graph.shapes import _matching  # noqa: E402

SHAPE = (4, 6, 5)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 5, 8)).astype(np.float32)
ROWS = np.random.default_rng(2).normal(size=(5, 1, 6)).astype(np.float32)


def conv(x, kernel=KERNEL, padding=((1, 1), (1, 1)), **options):
    kernel, numbers = jnp.asarray(kernel), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=numbers, **options
    )


def window(x, start, operation):
    return lax.reduce_window(x, start, operation, (1, 2, 3, 1), (1, 2, 1, 1), "VALID")


FUNCTIONS = {
    "a product of what was shifted": lambda x: conv((x * 3 - 1.5) * 2),
    "a bias on a convolution": lambda x: conv(x) + jnp.arange(8.0),
    "two biases": lambda x: conv(x) + jnp.arange(8.0) + jnp.arange(8.0),
    "a number for each position": lambda x: conv(x) + jnp.arange(6.0)[:, None],
    "uneven margins": lambda x: conv(x, padding=((0, 2), (1, 0)), rhs_dilation=(1, 2)),
    "reductions over some axes": lambda x: conv(x).sum(axis=(1, 3)) + x.max(axis=(1, 3)),
    "a reduction in the middle, put back": lambda x: (
        x - conv(x, KERNEL[..., :5]).mean(axis=2, keepdims=True)
    ),
    "largest of windows": lambda x: window(conv(x), -jnp.inf, lax.max),
    "mean of windows": lambda x: window(conv(x), 0.0, lax.add) / 6,
    "rows turned round": lambda x: jnp.flip(conv(x), axis=(1, 3)),
    "every second column": lambda x: lax.slice(
        conv(x), (0, 1, 0, 2), (x.shape[0], 4, 6, 8), (1, 1, 2, 1)
    ),
    "zeros around": lambda x: jnp.pad(conv(x), ((0, 0), (1, 0), (0, 2), (0, 0))),
    "channels of zeros": lambda x: jnp.pad(conv(x), ((0, 0), (0, 0), (0, 0), (1, 2))),
    "zeros everywhere": lambda x: jnp.pad(conv(x), ((0, 0), (1, 1), (0, 0), (1, 2))),
    "ones around": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=1.0),
    "channels cut and axes moved": lambda x: conv(x).reshape(-1, 24, 2, 4).transpose(0, 2, 3, 1),
    "rows and channels joined": lambda x: conv(x).transpose(0, 2, 1, 3).reshape(-1, 6, 32),
    "beside a constant": lambda x: jnp.concatenate(
        [conv(x), jnp.ones((1, 4, 6, 2)) * x.max(axis=3, keepdims=True)], axis=3
    ),
    "stacked": lambda x: jnp.stack([conv(x), conv(x) * 2], axis=1).reshape(-1, 2 * 4, 6, 8),
    "products of matrices": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x),
    "a matrix of constants": lambda x: x.mean(axis=(1, 2)) @ jnp.asarray(ROWS[:, 0]),
    "a softmax": lambda x: jax.nn.softmax(conv(x), axis=3),
    "a softmax over columns": lambda x: jax.nn.softmax(x, axis=2),
    "other functions": lambda x: jnp.tanh(x) * jax.nn.sigmoid(x) + lax.rsqrt(x + 1) + x**2,
    "a choice": lambda x: jnp.where(x == 2.0, 0.0, conv(x, KERNEL[..., :5])),
    "the place of the largest": lambda x: jnp.argmax(x, axis=3).astype(jnp.float32),
    "a limit above 0": lambda x: jnp.maximum(x, 3.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_graph_gives_what_the_function_gives(name):
    def function(images):
        return [FUNCTIONS[name](images.astype(jnp.float32))]

    graph = convert(function, SHAPE, ["y"])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = np.random.default_rng(0).integers(0, 6, (3, *SHAPE), np.uint8)
    (expected,) = jax.jit(function)(images)
    for n in (1, 3):
        (found,) = session.run(None, {"images": images[:n]})
        np.testing.assert_allclose(found, expected[:n], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x), "no writer for the primitive 'sort'"),
        (lambda x: x**3, "'integer_pow' cannot be written: the power 3"),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, -1, 0), (0, 0, 0), (0, 0, 0)]), "'pad' cannot"),
        (lambda x: conv(x, lhs_dilation=(2, 2)), "a transposed or grouped convolution"),
        (lambda x: jnp.einsum("nhwc,nhwd->ncd", x, x), "'dot_general' cannot be written"),
    ],
)
def test_what_cannot_be_written_is_named(function, message):
    with pytest.raises(ValueError, match=message):
        convert(lambda images: [function(images.astype(jnp.float32))], SHAPE, ["y"])


def test_axes_that_hold_the_same_numbers_are_found():
    assert _matching([12, 10], [3, 4, 2, 5]) == [([0], [0, 1]), ([1], [2, 3])]
    assert _matching([6, 4], [4, 6]) == [([0, 1], [0, 1])]
