"""Scores under a temperature are numbers, however sure the network is."""

import numpy as np

from dmfer_jax.data.sources import Split
from dmfer_jax.explaining import scores


def test_a_sure_mistake_has_a_loss_at_any_temperature():
    labels = np.array([0, 1, 1], np.int32)
    split = Split(
        name="valid",
        images=np.zeros((3, 32, 32, 1), np.uint8),
        labels=labels,
        targets=np.eye(2, dtype=np.float32)[labels],
        rows=np.arange(3),
        repeated=np.zeros(3, bool),
        names=np.array(["a", "b", "c"]),
        groups={},
        class_names=("one", "two"),
    )
    logits = np.log([[0.9, 0.1], [0.1, 0.9], [1.0, 1e-38]])
    temperature = 0.05
    odds = np.log(9) / temperature
    expected = (2 * np.log1p(np.exp(-odds)) + 38 * np.log(10) / temperature) / 3
    summary = scores._summarize(logits, split, temperature)
    np.testing.assert_allclose(summary["loss"], expected, rtol=1e-5)
