"""Fifty photos at once, sent to a real server: each is served or told when to come back."""

import urllib.request
from collections import Counter

import pytest

from benchmarks.many_uploads import send_at_once
from dmfer_jax.serving.limits import Limits
from tests.serving.tiny_server import ASTRONAUT, make_service, make_tiny_app, serving

LIMITS = Limits(places=12, client_places=8, workers=2, client_burst=10, client_per_minute=1)

PHOTO = ASTRONAUT.read_bytes() + bytes(2**20)  # as large as a phone's


@pytest.fixture
def address():
    with serving(make_tiny_app(make_service(LIMITS), LIMITS)) as address:
        yield address


def test_fifty_at_once_are_served_or_told_to_come_back(address):
    answers = send_at_once(address, [PHOTO], 50)
    counts = Counter(answer["status"] for answer in answers)
    assert set(counts) <= {200, 429, 503}
    assert LIMITS.client_places <= counts[200] <= LIMITS.client_burst
    assert counts[503] > 0
    assert all(answer["retry_after"] for answer in answers if answer["status"] != 200)
    with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
        assert answer.status == 200
