"""Fifty photos at once, sent to a real server: each is served or told when to come back."""

import threading
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from dmfer_jax.serve import bind
from dmfer_jax.serving.limits import Limits
from tests.serving.tiny_server import ASTRONAUT, make_service, make_tiny_app

LIMITS = Limits(places=8, workers=2, client_burst=40, client_per_minute=1)


@pytest.fixture
def address():
    listening = bind("127.0.0.1", 0)
    listening.listen()  # who comes before the server does waits for it
    app = make_tiny_app(make_service(LIMITS), LIMITS)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def send(address: str) -> tuple[int, str | None]:
    try:
        with urllib.request.urlopen(f"{address}/api/faces", PHOTO, timeout=120) as answer:
            return answer.status, None
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers["Retry-After"]


PHOTO = ASTRONAUT.read_bytes() + bytes(2**20)  # as large as a phone's


def test_fifty_at_once_are_served_or_told_to_come_back(address):
    together = threading.Barrier(50)

    def wait_and_send(_: int) -> tuple[int, str | None]:
        together.wait()
        return send(address)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(wait_and_send, range(50)))
    counts = Counter(status for status, _ in answers)
    assert set(counts) <= {200, 429, 503}
    assert counts[200] >= LIMITS.places
    assert counts[429] == 10
    assert all(retry for status, retry in answers if status != 200)
    with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
        assert answer.status == 200
