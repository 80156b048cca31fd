"""The frames of a video have their colours, and its rows say what was followed."""

import cv2
import numpy as np
import pytest

from dmfer_jax import predict
from dmfer_jax.expression_model import Face
from dmfer_jax.tracking import SMOOTHING_SECONDS
from dmfer_jax.video import VideoFrame, read_frames


def test_frames_are_red_green_and_blue(tmp_path):
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 32))
    blue_green_red = np.zeros((32, 64, 3), np.uint8)
    blue_green_red[:, :32, 2] = 255
    blue_green_red[:, 32:, 0] = 255
    for _ in range(2):
        writer.write(blue_green_red)
    writer.release()
    for _, rgb, rate in read_frames(path):
        np.testing.assert_allclose(rgb[16, 16], [255, 0, 0], atol=8)
        np.testing.assert_allclose(rgb[16, 48], [0, 0, 255], atol=8)
        assert rate == 10


def test_rows_have_the_averaged_probabilities_and_the_place_of_the_frame(tmp_path, monkeypatch):
    said = iter([0.9, 0.1])
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)

    def model(rgb, aligned):
        assert not aligned
        happy = next(said)
        both = {"happy": happy, "sad": 1 - happy}
        name = max(both, key=lambda name: both[name])
        left = 10 * happy
        return [Face(name, both, (left, 0, left + 100, 80), landmarks, 0.5, np.zeros(1))]

    frames = [VideoFrame(at, np.zeros((40, 50, 3), np.uint8), 10) for at in (0.0, 0.1)]
    monkeypatch.setattr(predict, "read_frames", lambda source: iter(frames))
    rows = []
    output = predict.Output(rows.append, set(), predict.Counts(), None)
    predict.predict_video(model, tmp_path / "a.avi", output, aligned=False)  # type: ignore[arg-type]
    first, second = (row["faces"][0] for row in rows)
    assert (first["track"], first["expression"]) == (1, "happy")
    assert first["probabilities"] == {"happy": 0.9, "sad": pytest.approx(0.1)}
    old = np.exp(-0.1 / SMOOTHING_SECONDS)
    happy = old * 0.9 + (1 - old) * 0.1
    assert (second["track"], second["expression"]) == (1, "happy")  # by itself it would be sad
    assert second["probabilities"]["happy"] == pytest.approx(happy, abs=1e-6)
    assert second["box"] == [1, 0, 101, 80]
    assert second["landmarks"] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [(row["seconds"], row["width"], row["height"]) for row in rows] == [
        (0.0, 50, 40),
        (0.1, 50, 40),
    ]
