"""Training batches are a function of (seed, step); evaluation sees every example once."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from dmfer_jax.data import pipeline
from dmfer_jax.data.sources import Split

CLASSES = 4


class ReadWhenAsked:
    """Images that are no array, as those that do not fit in memory."""

    def __init__(self, images: np.ndarray):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._images[index]


def make_split(
    examples: int, *, in_memory: bool = True, labels: Sequence[int] | np.ndarray | None = None
) -> Split:
    """A split whose image i is filled with i, and whose first class has the share i/100."""
    numbers = np.arange(examples)
    images: Any = np.tile(numbers.astype(np.uint8)[:, None, None, None], (1, 2, 2, 1))
    targets = np.zeros((examples, CLASSES), np.float32)
    targets[:, 0], targets[:, 1] = numbers / 100, 1 - numbers / 100
    return Split(
        name="train",
        images=images if in_memory else ReadWhenAsked(images),
        labels=np.asarray(numbers % CLASSES if labels is None else labels, np.int32),
        targets=targets,
        rows=numbers * 10,
        repeated=numbers % 3 == 2,
        names=numbers.astype(str),
        groups={},
        class_names=("a", "b", "c", "d"),
    )


def read(
    examples: int = 10,
    batch_size: int = 4,
    batches: int = 5,
    *,
    in_memory: bool = True,
    labels: Sequence[int] | np.ndarray | None = None,
    **options,
) -> list[pipeline.Batch]:
    split = make_split(examples, in_memory=in_memory, labels=labels)
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
    assert [joined(parts) for parts in zip(*shares, strict=True)] == alone  # in order, too


# 16 examples of class 0, 4 of class 1 and one of class 3; none of class 2.
UNEQUAL = np.repeat([0, 1, 3], [16, 4, 1])
# Of three hundred examples: a third each, and as 4 : 2 : 1.
SHARES = {"balanced": {0: 100, 1: 100, 3: 100}, "square_root": {0: 171, 1: 86, 3: 43}}


def read_unequal(sampling: str, batch_size: int = 30, batches: int = 10, **options) -> list[int]:
    """The examples of UNEQUAL in the order read."""
    options = {"labels": UNEQUAL, "sampling": sampling, **options}
    return joined(positions(read(len(UNEQUAL), batch_size, batches, **options)))


@pytest.mark.parametrize("sampling", SHARES)
@pytest.mark.parametrize("start_step", [0, 70])
def test_classes_have_their_share_whatever_their_size(sampling, start_step):
    # Targets say nothing of class 3: a class is told by the label.
    seen = UNEQUAL[read_unequal(sampling, start_step=start_step)]
    assert {label: int((seen == label).sum()) for label in (0, 1, 3)} == SHARES[sampling]
    assert len(set(seen[:30].tolist())) == 3  # mixed, not one class after another


@pytest.mark.parametrize("sampling", SHARES)
def test_examples_of_a_class_come_once_each_before_any_comes_again(sampling):
    seen = np.array(read_unequal(sampling, batches=40))
    for members in ([*range(16)], [*range(16, 20)], [20]):
        of_class = seen[np.isin(seen, members)]
        whole = len(of_class) // len(members) * len(members)
        passes = of_class[:whole].reshape(-1, len(members))
        assert (np.sort(passes, axis=1) == members).all()
        if len(members) > 1:
            assert len({tuple(order) for order in passes.tolist()}) > 2  # in orders of their own


@pytest.mark.parametrize("sampling", SHARES)
def test_balanced_batches_are_a_function_of_seed_and_step(sampling):
    whole = read_unequal(sampling, batches=40, seed=3)
    assert read_unequal(sampling, batches=5, seed=3, start_step=35, workers=7) == whole[-150:]
    assert read_unequal(sampling, batches=40, seed=4) != whole


@pytest.mark.parametrize("hosts", [2, 4, 8])
@pytest.mark.parametrize("sampling", SHARES)
def test_hosts_share_out_balanced_batches_and_each_sees_every_class(sampling, hosts):
    labels = (
        np.arange(80) % 8
    )  # as many classes as hosts: a periodic mixture would deal one to each
    options = {"labels": labels, "sampling": sampling}
    alone = positions(read(80, 8, 400, **options))
    shares = [
        positions(read(80, 8 // hosts, 400, host=h, hosts=hosts, **options)) for h in range(hosts)
    ]
    assert [joined(parts) for parts in zip(*shares, strict=True)] == alone
    for share in shares:
        numbers = np.bincount(labels[joined(share)], minlength=8)
        assert numbers.min() > 400 / hosts / 2  # 400 / hosts on average


def test_class_too_rare_for_a_share_still_occurs():
    # The roots are as 413 to 1: of two hundred examples, half a one.
    labels = np.repeat([0, 1], [413**2, 1])
    (batch,) = read(len(labels), 201, 1, labels=labels, sampling="square_root")
    rare = batch["target"][:, 0] == np.float32(413**2 / 100)
    assert rare.sum() == 1


def test_natural_sampling_is_the_default_and_asks_for_no_classes():
    assert positions(read(labels=[0] * 10, sampling="natural")) == positions(read())


def test_split_smaller_than_a_batch_is_repeated():
    seen = joined(positions(read(examples=3, batch_size=6, batches=2)))
    assert sorted(seen) == sorted([0, 1, 2] * 4)


def test_steps_of_an_epoch_need_not_be_whole():
    assert pipeline.epoch_ends(10, 4, 4) == [2, 5, 7, 10]
    assert pipeline.epoch_ends(52, 12, 27)[-1] == 117  # 27 times 52 / 12 is a little less


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


@pytest.mark.parametrize("examples", [16, 13, 2])  # the last batch whole, partly and mostly padding
def test_hosts_share_out_the_batch_that_one_host_would_evaluate(examples):
    split = make_split(examples)
    alone = list(pipeline.eval_batches(split, 6))
    shares = [list(pipeline.eval_batches(split, 2, host=h, hosts=3)) for h in range(3)]
    for whole, *parts in zip(alone, *shares, strict=True):
        for key, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), values)


def test_first_leaves_out_padding_and_repeated_pixels():
    batches = list(pipeline.eval_batches(make_split(10), 4))
    first = np.concatenate([batch["first"] for batch in batches])
    # 2, 5 and 8 repeat an earlier row; 10 and 11 are padding.
    assert first.tolist() == [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 0]
    assert {batch["first"].dtype for batch in batches} == {np.dtype(np.float32)}
    assert {batch["mask"].dtype for batch in batches} == {np.dtype(np.float32)}
    assert {batch["label"].dtype for batch in batches} == {np.dtype(np.int32)}
