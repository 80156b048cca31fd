"""Who may ask and how often; and what is said of errors."""

import functools

import anyio
import pytest
from starlette.types import Message

from dmfer_jax.serving import gate
from dmfer_jax.serving.gate import Counts, answer_refused
from dmfer_jax.serving.limits import Limits, Rate, Refused
from tests.serving.tiny_server import FACE, refusal, two_faces


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "a b"]
)
def test_names_of_others_are_refused(connect, host):
    client = connect()
    for ask in (client.get, client.post):
        assert "--names" in refusal(ask("/api/faces", headers={"Host": host}), 421)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:8000",
        "[::1]:8000",
        "192.168.1.7",
        "Faces.example:81",
    ],
)
def test_own_names_and_addresses_are_served(connect, host):
    client = connect(names=("faces.example",))
    assert client.get("/health", headers={"Host": host}).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_others_cannot_post(connect, headers):
    answer = connect().post("/api/faces", content=FACE, headers=headers)
    assert "own page" in refusal(answer, 403)


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, {}]
)
def test_own_page_and_programs_can_post(connect, headers):
    assert connect().post("/api/faces", content=FACE, headers=headers).status_code == 200


@pytest.mark.parametrize(("chunks", "taken"), [(1, 1), (3, 3), (99, 5)])
def test_what_still_arrives_of_a_refused_request_is_taken_up_to_a_limit(chunks, taken):
    given = []

    async def receive() -> dict:
        given.append(b"x" * 10)
        return {"type": "http.request", "body": given[-1], "more_body": len(given) < chunks}

    anyio.run(gate._pass_over_body, receive, 40)
    assert len(given) == taken


@pytest.fixture
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a photo takes here, nobody earns the next one meanwhile."""
    monkeypatch.setattr(gate, "Rate", functools.partial(Rate, clock=lambda: 0.0))


@pytest.mark.usefixtures("_time_stands_still")
def test_too_many_photos_are_told_when_to_come_back(connect):
    client = connect(client_burst=2, client_per_minute=6)
    assert [client.post("/api/faces", content=FACE).status_code for _ in range(2)] == [200] * 2
    answer = client.post("/api/faces", content=FACE)
    assert "try again in 10 s" in refusal(answer, 429)
    assert answer.headers["Retry-After"] == "10"
    assert client.get("/").status_code == 200


@pytest.mark.usefixtures("_time_stands_still")
def test_all_clients_together_are_limited_too(connect):
    client = connect(all_burst=1, all_per_minute=60)
    assert client.post("/api/faces", content=FACE).status_code == 200
    answer = client.post("/api/faces", content=FACE)
    assert "many people" in refusal(answer, 429)
    assert answer.headers["Retry-After"] == "1"


def test_full_house_is_told_to_come_back(connect):
    answer = connect(places=0).post("/api/faces", content=FACE)
    assert "waiting" in refusal(answer, 503)
    assert answer.headers["Retry-After"] == "2"


def test_error_of_our_own_says_nothing_of_the_photo_and_the_server_goes_on(
    connect, service, capsys
):
    counts = Counts()
    client = connect(counts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service, "tell", lambda encoded: {}["secret of the photo"])
        answer = client.post("/api/faces", content=FACE)
    assert "went wrong" in refusal(answer, 500)
    said = capsys.readouterr().err
    assert "KeyError" in said
    assert "secret" not in said
    assert client.post("/api/faces", content=FACE).status_code == 200
    assert counts == Counts(photos=1, faces=1, failed=1)


def test_only_counts_are_remembered(connect, capsys):
    counts = Counts()
    client = connect(counts)
    client.post("/api/faces", content=two_faces())
    client.post("/api/faces", content=b"")
    client.post("/api/explain?face=1", content=FACE)
    client.get("/nothing")
    assert counts == Counts(photos=1, faces=2, explained=1, refused=2)
    assert capsys.readouterr() == ("", "")


def test_one_client_leaves_places_to_the_others(monkeypatch):
    async def serve(client: str) -> int:
        async def never() -> dict:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            statuses.append(message.get("status"))

        statuses: list = []
        scope = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost")]}
        await house({**scope, "path": "/", "client": (client, 1)}, never, send)
        return statuses[0]

    async def app(scope, receive, send) -> None:
        if scope["client"][0] == "held":
            await anyio.sleep_forever()
        await answer_refused(Refused(200, ""))(scope, receive, send)

    async def ask() -> list[int]:
        told = []
        async with anyio.create_task_group() as held:
            for _ in range(2):
                held.start_soon(serve, "held")
            await anyio.wait_all_tasks_blocked()
            told = [await serve("held"), await serve("other")]
            held.cancel_scope.cancel()
        assert not house._held
        return told

    monkeypatch.setattr(gate, "_PATIENCE", 0.01)
    house = gate.Gate(app, Limits(places=3, client_places=2), [], Counts())
    assert anyio.run(ask) == [503, 200]
