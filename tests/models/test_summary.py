"""The summary adds up, and its operations are those counted by hand."""

import pytest

from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.summary import Summary, summarize


@pytest.fixture(scope="module")
def tiny() -> Summary:
    model = Dmfer(8, stem="small", stem_stride=2, width=0.125, embedding=16, heads=2)
    return summarize(model, 32, 3)


def test_parts_stand_in_the_order_of_the_forward_pass_with_their_outputs(tiny):
    assert [(part.name, part.output) for part in tiny.parts] == [
        ("backbone", "2 x 2 x 64"),
        ("two_scale", "2 x 2 x 32"),
        ("attention", "2 x 2 x 32"),
        ("compress", "2 x 2 x 16"),
        ("head", "8"),
    ]


def test_parts_add_up_to_the_total(tiny):
    parameters = {part.name: part.parameters for part in tiny.parts}
    assert sum(parameters.values()) == tiny.parameters
    assert parameters["head"] == 16 * 8 + 8
    assert parameters["compress"] == 32 * 16 + 2 * 16


def products(side: int, size: int, inputs: int, outputs: int) -> int:
    """Multiplications of a convolution to `side` x `side` pixels."""
    return side**2 * size**2 * inputs * outputs


def test_operations_are_those_counted_by_hand(tiny):
    convolutions = products(16, 3, 3, 8)  # stem
    convolutions += 4 * products(16, 3, 8, 8)  # stage 1: two blocks of two
    for side, c in ((8, 8), (4, 16), (2, 32)):  # stages 2 to 4: from c to 2c channels
        convolutions += products(side, 3, c, 2 * c) + products(side, 1, c, 2 * c)
        convolutions += 3 * products(side, 3, 2 * c, 2 * c)
    # Shallow: two strided convolutions of stage 2 and a 1x1. Deep: a 1x1.
    convolutions += products(4, 3, 16, 16) + products(2, 3, 16, 16)
    convolutions += products(2, 1, 16, 16) + products(2, 1, 64, 16)
    convolutions += 3 * products(2, 1, 32, 32)  # query, key, value
    attention = 2 * 2 * 16 * 16 * 4  # two products, two heads of 16 channels, 4 pixels
    head = products(2, 1, 32, 16) + 16 * 8  # compression and linear layer
    assert tiny.flops == 2 * (convolutions + attention + head)


def test_flip_average_doubles_all_but_the_head(tiny):
    model = Dmfer(8, stem="small", stem_stride=2, width=0.125, embedding=16, heads=2)
    twice = summarize(model.clone(flip_average=True), 32, 3)
    head = 2 * 16 * 8
    assert twice.flops - head == 2 * (tiny.flops - head)
    assert twice.parts == tiny.parts


def test_what_is_of_training_alone_counts_as_parameters_and_not_as_operations(tiny):
    model = Dmfer(8, stem="small", stem_stride=2, width=0.125, embedding=16, heads=2)
    attentive = summarize(model.clone(attentive=True), 32, 3)
    assert attentive.flops == tiny.flops
    (part,) = [part for part in attentive.parts if part.name == "attentive"]
    assert part.output == "16"
    assert attentive.parameters == tiny.parameters + part.parameters
