"""Drawn videos are whole or not there, and show what was seen when it was seen."""

import pytest
from PIL import Image

from dmfer_jax.reporting import face_drawing
from dmfer_jax.video import read_frames


def test_each_frame_of_a_camera_is_shown_until_the_next(tmp_path):
    image = Image.new("RGB", (64, 64))
    with face_drawing.DrawnVideo(tmp_path / "seen.mp4", endless=True) as drawn:
        for seconds in (0.0, 0.3, 0.31, 0.6):
            drawn.write(image, 10.0, seconds)
    assert len(list(read_frames(tmp_path / "seen.mp4"))) == 7


def test_a_drawn_video_that_is_not_whole_is_none(tmp_path):
    place = tmp_path / "drawn.mp4"
    place.write_bytes(b"before")
    drawn = face_drawing.DrawnVideo(place)
    drawn.write(Image.new("RGB", (64, 64)), 10.0, 0.0)
    drawn._count = 40  # of which a full disk took one
    with pytest.raises(face_drawing.NotDrawn, match="cannot be written whole"), drawn:
        pass
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(place, b"before")]
