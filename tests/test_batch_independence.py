"""An image is predicted the same whatever lies beside it, at every entry point that predicts.

Bit by bit where the compiled program and the image's place in the batch are the same. Elsewhere
another program, or another part of a loop, may add in another order: probabilities then agree to
`CLOSE`, which is some ten units in the last place of float32 after about twenty layers.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmfer_jax import evaluate, export, loading, scoring, sharding, steps
from dmfer_jax.data.corruptions import CORRUPTIONS, CorruptedImages
from dmfer_jax.data.lists import Entry, NamedList
from dmfer_jax.data.sources import Split, load_split
from dmfer_jax.feeding import Feed
from dmfer_jax.labels import EXPRESSION_NAMES, Expression
from dmfer_jax.models import resnet
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.predictor import Predictor
from dmfer_jax.reporting.writers import read_jsonl
from dmfer_jax.steps import EvalStep
from tests.conftest import make_tiny_config
from tests.models.variables import draw_variables

CLOSE = 2e-6
SIZE = 32
MODEL = Dmfer(8, stem="small", stem_stride=2, width=0.125, embedding=16, heads=2)


@pytest.fixture(scope="module", autouse=True)
def _one_block_a_stage():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BACKBONES["resnet34"], "blocks", (1, 1, 1, 1))
        yield


@pytest.fixture(scope="module")
def model() -> Dmfer:
    return MODEL.clone(backbone="resnet34")


@pytest.fixture(scope="module")
def variables(model) -> Any:
    return draw_variables(model, jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32))


@pytest.fixture
def eval_step(model, convolve_as_users_do) -> EvalStep:
    """On four devices."""
    return steps.make_eval_step(model, sharding.make_mesh())


def make_split(number: int, seed: int = 0) -> Split:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 8, number).astype(np.int32)
    return Split(
        name="test",
        images=random.integers(0, 256, (number, SIZE, SIZE, 1), np.uint8),
        labels=labels,
        targets=np.eye(8, dtype=np.float32)[labels],
        rows=100 * seed + np.arange(number),
        repeated=np.zeros(number, bool),
        names=np.array([f"fer{100 * seed + row:07d}.png" for row in range(number)]),
        groups={},
        class_names=EXPRESSION_NAMES,
    )


def chosen(split: Split, positions: Any) -> Split:
    fields = ("images", "labels", "targets", "rows", "repeated", "names")
    return replace(split, **{name: getattr(split, name)[positions] for name in fields})


def predict(
    eval_step: EvalStep, variables: Any, split: Split, batch_size: int, device_gib: float = 1
) -> np.ndarray:
    """The probabilities `[n, 8]` of a split's images, from the batches that evaluations use."""
    feed = Feed(split, sharding.make_mesh(), device_gib)
    totals: Any = jax.device_put(steps.empty_totals(8), sharding.replicated(feed.mesh))
    found = []
    for batch in feed.eval_batches(batch_size):
        totals, probabilities = eval_step(variables, batch, totals)
        found.append(np.asarray(probabilities))
    return np.concatenate(found)[: len(split)]


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)


def test_evaluation_step_on_four_devices(eval_step, variables):
    split, others = make_split(12), make_split(12, seed=1)
    expected = predict(eval_step, variables, split, 12)
    assert np.ptp(expected, axis=0).max() > 0.1  # images do differ in what is predicted of them

    for kept in (0, 4, 11):
        images = others.images[:].copy()
        images[kept] = split.images[kept]
        beside_others = predict(eval_step, variables, replace(split, images=images), 12)
        np.testing.assert_array_equal(beside_others[kept], expected[kept])
        assert (beside_others[kept - 1] != expected[kept - 1]).any()

    order = np.random.default_rng(0).permutation(12)
    close(predict(eval_step, variables, chosen(split, order), 12), expected[order])
    close(predict(eval_step, variables, split, 4), expected)


def test_average_over_mirror_images_on_four_devices(model, variables, convolve_as_users_do):
    eval_step = steps.make_eval_step(model.clone(flip_average=True), sharding.make_mesh())
    split, others = make_split(12), make_split(12, seed=1)
    expected = predict(eval_step, variables, split, 12)
    images: Any = split.images
    mirrored = replace(split, images=np.ascontiguousarray(images[:, :, ::-1]))
    close(predict(eval_step, variables, mirrored, 12), expected)

    beside = others.images[:].copy()
    beside[4] = images[4]
    found = predict(eval_step, variables, replace(split, images=beside), 12)
    np.testing.assert_array_equal(found[4], expected[4])
    assert (found[5] != expected[5]).any()


@pytest.mark.parametrize("device_gib", [1, 0])  # gathered on the devices, or read ahead
def test_padded_last_batch(eval_step, variables, device_gib):
    split = make_split(12)
    whole = predict(eval_step, variables, split, 12)
    for number, padded in ((1, 4), (7, 8)):  # a power of two, over four devices
        expected = predict(eval_step, variables, chosen(split, slice(padded)), padded)
        found = predict(eval_step, variables, chosen(split, slice(number)), 12, device_gib)
        np.testing.assert_array_equal(found, expected[:number])
        close(found, whole[:number])
    for number in (1, 3):
        found = predict(eval_step, variables, chosen(split, slice(8 + number)), 8, device_gib)
        expected = predict(eval_step, variables, split, 8)
        np.testing.assert_array_equal(found, expected[: 8 + number])


@pytest.mark.parametrize("device_gib", [1, 0])
def test_scores_of_a_split_are_those_of_its_images_one_by_one(eval_step, variables, device_gib):
    split = make_split(14)

    def score(part: Split) -> dict[str, Any]:
        return scoring.score(eval_step, variables, Feed(part, sharding.make_mesh(), device_gib), 4)

    whole = score(split)
    alone = [score(chosen(split, slice(at, at + 1))) for at in range(len(split))]
    confusion = sum(np.array(one["confusion"]) for one in alone)
    np.testing.assert_array_equal(whole["confusion"], confusion)
    assert whole["loss"] == pytest.approx(np.mean([one["loss"] for one in alone]), rel=1e-5)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_harm_under_stress(kind):
    """What is random about an image follows from its row alone."""
    split = make_split(6)
    images = CorruptedImages(split.images, split.rows, kind, 3)
    whole = images[np.arange(6)]
    order = np.array([4, 0, 5])
    among_others = chosen(split, order)
    found = CorruptedImages(among_others.images, among_others.rows, kind, 3)
    np.testing.assert_array_equal(found[np.arange(3)], whole[order])
    np.testing.assert_array_equal(found[np.array([2, 1])], whole[[5, 0]])
    np.testing.assert_array_equal(images[np.array([3])][0], whole[3])
    np.testing.assert_array_equal(images[np.int64(3)], whole[3])


def test_evaluation_under_stress(eval_step, variables):
    split = make_split(10)
    harmed = replace(split, images=CorruptedImages(split.images, split.rows, "noise", 2))
    expected = predict(eval_step, variables, harmed, 12)
    part = chosen(split, np.arange(3, 10))
    of_part = replace(part, images=CorruptedImages(part.images, part.rows, "noise", 2))
    close(predict(eval_step, variables, of_part, 4), expected[3:])


def test_images_of_lists(eval_step, variables):
    splits = [make_split(12), make_split(12, seed=1)]
    expected = [predict(eval_step, variables, split, 12) for split in splits]
    places = [(1, 3), (0, 7), (0, 2), (1, 11), (0, 0)]  # split, position
    entries = tuple(
        Entry(splits[number].names[position].removesuffix(".png"), Expression.NEUTRAL, None)
        for number, position in places
    )
    listed = NamedList("ferplus", "occlusion", entries, len(entries), ())
    (split,) = evaluate.join_lists([listed], splits, "ferplus").splits
    wanted = np.stack([expected[number][position] for number, position in places])
    for batch_size in (4, 12):
        close(predict(eval_step, variables, split, batch_size), wanted)


def test_predictor_in_any_bucket_and_at_any_place(model, variables, convolve_as_users_do):
    predictor = Predictor(model, variables, SIZE, 1, EXPRESSION_NAMES, buckets=(1, 4))
    images, others = make_split(8).images[:], make_split(8, seed=1).images[:]
    alone = np.concatenate([predictor(image[None]).probabilities for image in images])
    np.testing.assert_array_equal(alone[5], predictor(images[5:6]).probabilities[0])
    for number in (3, 4, 5, 8):  # padded, whole, and of several calls
        close(predictor(images[:number]).probabilities, alone[:number])
    order = np.random.default_rng(0).permutation(8)
    close(predictor(images[order]).probabilities, alone[order])
    before = predictor(images[:4]).probabilities
    for kept in range(4):
        beside = others[:4].copy()
        beside[kept] = images[kept]
        np.testing.assert_array_equal(predictor(beside).probabilities[kept], before[kept])


def test_validation_of_a_training_run_and_its_portable_file(
    finished: tuple[Path, dict], data_dir: Path, tmp_path: Path
):
    """What a run logged in batches of 12 is what its portable file says image by image."""
    workdir, report = finished
    manifest = export.export(workdir, "last", tmp_path / "model.safetensors")
    predictor = loading.load_predictor(tmp_path / "model.safetensors", buckets=(1, 8))
    (dataset_dir,) = data_dir.glob("synthetic_faces/tiny/*")
    split = load_split(dataset_dir, "valid", make_tiny_config(data_dir).data, train=False)
    images: Any = split.images
    alone = np.concatenate([predictor(image[None]).probabilities for image in images])
    close(predictor(images).probabilities, alone)

    rows = read_jsonl(workdir / "metrics.jsonl")
    (logged,) = [r for r in rows if r["kind"] == "eval" and r["step"] == manifest.training["step"]]
    right = alone.argmax(-1) == split.labels
    loss = -np.log(alone[np.arange(len(split)), split.labels]).mean()
    for said in (logged, report["checkpoints"]["last"]["splits"]["valid"]):
        assert said["accuracy"] == pytest.approx(right.mean())
        assert said["loss"] == pytest.approx(loss, rel=1e-4)
