"""Training batches are a function of (seed, step); evaluation sees every example once."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from dmfer_jax.data import pipeline
from dmfer_jax.data.sources import Split

CLASSES = 4


class OneByOne:
    """Images that are given out singly, as those that do not fit in memory."""

    def __init__(self, images: np.ndarray):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._images[int(index)]


def make_split(examples: int, *, in_memory: bool = True) -> Split:
    """A split whose image i is filled with i, and whose first class has the share i/100."""
    numbers = np.arange(examples)
    images: Any = np.tile(numbers.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1))
    targets = np.zeros((examples, CLASSES), np.float32)
    targets[:, 0], targets[:, 1] = numbers / 100, 1 - numbers / 100
    return Split(
        name="train",
        images=images if in_memory else OneByOne(images),
        labels=(numbers % CLASSES).astype(np.int32),
        targets=targets,
        rows=numbers * 10,
        repeated=numbers % 3 == 2,
        names=numbers.astype(str),
        groups={},
        class_names=("a", "b", "c", "d"),
    )


def read(
    examples: int = 10, batch_size: int = 4, batches: int = 5, *, in_memory: bool = True, **options
) -> list[pipeline.Batch]:
    split = make_split(examples, in_memory=in_memory)
    iterator = pipeline.train_batches(split, batch_size, **{"seed": 0, "workers": 2, **options})
    return list(itertools.islice(iterator, batches))


def positions(batches: list[pipeline.Batch]) -> list[list[int]]:
    """The examples of each batch."""
    return [batch["image"][:, 0, 0, 0].tolist() for batch in batches]


def joined(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def test_batch_has_images_in_bytes_and_the_targets_that_belong_to_them():
    for batch in read():
        assert batch.keys() == {"image", "target"}
        assert (batch["image"].shape, batch["image"].dtype) == ((4, 2, 2, 1), np.uint8)
        assert (batch["target"].shape, batch["target"].dtype) == ((4, CLASSES), np.float32)
        number = batch["image"][:, 0, 0, 0]
        np.testing.assert_allclose(batch["target"][:, 0], number / 100, rtol=1e-6)
        np.testing.assert_allclose(batch["target"].sum(axis=1), 1, rtol=1e-6)


def test_each_epoch_holds_every_example_once_in_an_order_of_its_own():
    # 5 batches of 4 are two epochs of 10; the third batch holds the end of one and the next.
    seen = joined(positions(read()))
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert seen[:10] != list(range(10))


def test_batches_depend_on_the_seed_alone():
    assert positions(read(seed=3)) == positions(read(seed=3))
    assert positions(read(seed=3)) != positions(read(seed=4))


@pytest.mark.parametrize("start_step", [1, 3, 7])
def test_starting_at_a_step_equals_skipping_the_steps_before_it(start_step):
    whole = positions(read(batches=12))
    assert positions(read(batches=12 - start_step, start_step=start_step)) == whole[start_step:]


@pytest.mark.parametrize("workers", [1, 8])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    assert positions(read(workers=workers)) == positions(read())


def test_streamed_images_give_the_same_batches():
    for streamed, in_memory in zip(read(in_memory=False), read(), strict=True):
        np.testing.assert_array_equal(streamed["image"], in_memory["image"])
        np.testing.assert_array_equal(streamed["target"], in_memory["target"])


@pytest.mark.parametrize("examples", [12, 11])
def test_hosts_share_out_the_batch_that_one_host_would_read(examples):
    alone = positions(read(examples, batch_size=6))
    shares = [positions(read(examples, batch_size=2, host=h, hosts=3)) for h in range(3)]
    together = [joined(parts) for parts in zip(*shares, strict=True)]
    assert [sorted(batch) for batch in together] == [sorted(batch) for batch in alone]


def test_split_smaller_than_a_batch_is_repeated():
    seen = joined(positions(read(examples=3, batch_size=6, batches=2)))
    assert sorted(seen) == sorted([0, 1, 2] * 4)


def test_steps_of_an_epoch_need_not_be_whole():
    assert pipeline.steps_per_epoch(make_split(10), 4) == 2.5


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 1)])
@pytest.mark.parametrize("in_memory", [True, False])
def test_evaluation_covers_every_example_once_in_order(examples, batch_size, in_memory):
    batches = list(pipeline.eval_batches(make_split(examples, in_memory=in_memory), batch_size))
    assert len(batches) == -(-examples // batch_size)
    assert {batch["image"].shape for batch in batches} == {(batch_size, 2, 2, 1)}
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    counts = whole["mask"] == 1
    assert set(whole["mask"].tolist()) <= {0.0, 1.0}
    assert whole["image"][counts, 0, 0, 0].tolist() == list(range(examples))
    assert counts[:examples].all()  # the padding stands at the end
    split = make_split(examples)
    np.testing.assert_array_equal(whole["label"][counts], split.labels)
    np.testing.assert_array_equal(whole["target"][counts], split.targets)


def test_first_leaves_out_padding_and_repeated_pixels():
    batches = list(pipeline.eval_batches(make_split(10), 4))
    first = np.concatenate([batch["first"] for batch in batches])
    # 2, 5 and 8 repeat an earlier row; 10 and 11 are padding.
    assert first.tolist() == [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 0]
    assert {batch["first"].dtype for batch in batches} == {np.dtype(np.float32)}
    assert {batch["mask"].dtype for batch in batches} == {np.dtype(np.float32)}
    assert {batch["label"].dtype for batch in batches} == {np.dtype(np.int32)}
