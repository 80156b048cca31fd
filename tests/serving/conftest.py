"""A service that all tests of a file share, and clients of applications around it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from dmfer_jax.serving.gate import Counts
from dmfer_jax.serving.service import PhotoService
from tests.serving.tiny_server import GENEROUS, make_service, make_tiny_app


@pytest.fixture(scope="module")
def service() -> PhotoService:
    return make_service()


@pytest.fixture
def connect(service) -> Callable[..., TestClient]:
    """Returns a client of the application, with some limits of its own."""

    def connect(counts: Counts | None = None, names: tuple[str, ...] = (), **limits: Any):
        changed = dataclasses.replace(GENEROUS, **limits)
        service._limits = changed
        app = make_tiny_app(service, changed, counts, names=names)
        return TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False)

    return connect
