"""The endpoints: what they answer, and everything that they refuse."""

import base64
import dataclasses
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from dmfer_jax.expression_model import Photo
from dmfer_jax.photo_record import make_record
from dmfer_jax.serving.gate import HEADERS, Counts
from dmfer_jax.serving.service import PhotoService
from tests.serving.tiny_server import ASTRONAUT, GENEROUS, NAMES, SIZE, make_service, make_tiny_app

FACE = ASTRONAUT.read_bytes()


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


def encode(pixels: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def two_faces() -> bytes:
    return encode(np.hstack([np.asarray(Image.open(ASTRONAUT).convert("RGB"))] * 2))


def refusal(answer: Any, status: int) -> str:
    """The sentence of an answer that has to be a refusal."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    return answer.json()["error"]


def test_photo_gets_the_record_that_the_command_writes(connect, service):
    answer = connect().post("/api/faces", content=FACE)
    assert answer.status_code == 200
    faces = service._model(FACE)
    expected = make_record("upload", Photo(faces, 200, 220, "", ""))
    assert answer.json() == json.loads(json.dumps(expected))
    assert len(faces) == 1
    assert sum(answer.json()["faces"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_form_and_body_are_the_same_and_file_names_mean_nothing(connect):
    client = connect()
    expected = client.post("/api/faces", content=FACE).json()
    for name in ("a.jpg", "../../etc/passwd", "/dev/stdin", "C:\\x\\..\\y", "%2e%2e%2f", ".html"):
        answer = client.post("/api/faces", files={"photo": (name, FACE, "text/html")})
        assert answer.json() == expected
        assert name not in answer.text


def test_several_faces_and_none(connect):
    client = connect()
    assert len(client.post("/api/faces", content=two_faces()).json()["faces"]) == 2
    nothing = client.post("/api/faces", content=encode(np.zeros((40, 50, 3), np.uint8)))
    assert nothing.status_code == 200
    assert nothing.json()["faces"] == []
    assert (nothing.json()["width"], nothing.json()["height"]) == (50, 40)


def test_face_is_explained_where_it_lies(connect):
    client = connect()
    record = client.post("/api/faces", content=two_faces()).json()
    answer = client.post("/api/explain?face=2", content=two_faces())
    assert answer.status_code == 200
    explained, face = answer.json(), record["faces"][1]
    assert explained["face"] == 2
    assert explained["expression"] == face["expression"]
    left, top, right, bottom = face["box"]
    assert left < explained["frame"]["x"] < right
    assert top < explained["frame"]["y"] < bottom
    assert set(explained["maps"]) == {"deep", "compressed"}  # the network has one scale
    for one in explained["maps"].values():
        heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
        assert heat.shape == (SIZE, SIZE)
        assert heat.dtype == np.uint8
        assert (one["near"] is None) == (heat.max() == 0)


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [("2", 422, "no face 2"), ("0", 422, "no face 0"), ("", 400, "no face"), ("-1", 400, "face=1")],
)
def test_face_that_is_not_there_is_refused(connect, number, status, said):
    answer = connect().post(f"/api/explain?face={number}", content=FACE)
    assert said in refusal(answer, status)


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 400, "no photo in it"),
        (b"I am no photo", 415, "expected one of JPEG, PNG, WebP, GIF, BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "no photo"),
        (encode(np.zeros((9, 9), np.uint8), "TIFF"), 415, "no photo"),
        (FACE[: len(FACE) // 2], 422, "cannot be decoded"),
        (FACE[:100], 422, "damaged"),
        (FACE[:4] + bytes(1000), 415, "no photo"),
    ],
    ids=["empty", "text", "svg", "postscript", "tiff", "half", "header", "zeros"],
)
@pytest.mark.parametrize("address", ["/api/faces", "/api/explain?face=1"])
def test_what_is_no_sound_photo_is_refused_in_plain_words(connect, address, content, status, said):
    assert said in refusal(connect().post(address, content=content), status)


def test_photo_of_too_many_pixels_is_refused_before_it_is_decoded(connect, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", None)
    pixels = encode_claiming(8_000, 5_000)
    assert "8,000 x 5,000 pixels" in refusal(connect().post("/api/faces", content=pixels), 413)
    many = encode_claiming(20_000, 20_000)
    assert "too many pixels" in refusal(connect().post("/api/faces", content=many), 413)
    client = connect(pixels=200 * 220 - 1)
    assert "200 x 220 pixels" in refusal(client.post("/api/faces", content=FACE), 413)


def encode_claiming(width: int, height: int) -> bytes:
    """A PNG whose header says that it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_large_upload_is_refused_by_what_it_declares_and_while_it_is_read(connect):
    client = connect(upload_bytes=len(FACE))
    assert client.post("/api/faces", content=FACE).status_code == 200
    assert "too large" in refusal(client.post("/api/faces", content=FACE + b"x"), 413)
    taken = []

    def endless():
        while True:
            taken.append(b"x" * 4096)
            yield taken[-1]

    # No length is declared. What comes behind the limit is not asked for.
    app, messages = client.app, iter(endless())
    sent = run_asgi(
        app, lambda: {"type": "http.request", "body": next(messages), "more_body": True}
    )
    assert sent[0]["status"] == 413
    assert len(taken) == len(FACE) // 4096 + 1


def run_asgi(app: Any, receive: Callable[[], Any], headers: tuple = ()) -> list[Any]:
    """Sends a request whose body arrives as `receive` says, and returns what is sent back."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/faces",
        "raw_path": b"/api/faces",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }

    async def get() -> Any:
        message = receive()
        return await message if hasattr(message, "__await__") else message

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(app, scope, get, send)
    return sent


def test_upload_that_does_not_arrive_is_given_up(connect):
    client = connect(upload_seconds=0.05)
    sent = run_asgi(client.app, lambda: anyio.sleep(60))
    assert sent[0]["status"] == 408


def test_client_that_goes_away_leaves_nothing_behind(connect, capsys):
    client = connect(places=1)
    assert run_asgi(client.app, lambda: {"type": "http.disconnect"})[0]["status"] == 400
    assert client.post("/api/faces", content=FACE).status_code == 200
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"other": ("a.jpg", FACE)}},
        {"files": [("photo", ("a.jpg", FACE)), ("photo", ("b.jpg", FACE))]},
        {"files": {"photo": ("a.jpg", FACE)}, "data": {"more": "text"}},
        {"content": FACE, "headers": {"Content-Type": "multipart/form-data"}},
        {
            "content": b"--x\r\nnonsense",
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
        {"content": b"--x--", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ],
)
def test_other_forms_are_refused(connect, form):
    assert "field 'photo'" in refusal(connect().post("/api/faces", **form), 400)


def test_nothing_is_written_to_the_disk(connect, monkeypatch, tmp_path):
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a file was opened on the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = FACE + bytes(2**21)  # twice what Starlette would keep in memory
    assert connect().post("/api/faces", files={"photo": ("a", large)}).status_code == 200
    assert not list(tmp_path.iterdir())


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


def test_too_many_photos_are_told_when_to_come_back(connect):
    client = connect(client_burst=2, client_per_minute=6)
    assert [client.post("/api/faces", content=FACE).status_code for _ in range(2)] == [200] * 2
    answer = client.post("/api/faces", content=FACE)
    assert "try again in 10 s" in refusal(answer, 429)
    assert answer.headers["Retry-After"] == "10"
    assert client.get("/").status_code == 200


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


def test_page_loads_nothing_from_elsewhere(connect):
    client = connect()
    page = client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for name, value in HEADERS.items():
        assert page.headers[name] == value
    for address in ("/", "/page.css", "/page.js", "/drawing.js", "/icon.svg", "/model"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_addresses_never_become_paths(connect):
    client = connect()
    for address in ("/../serve.py", "/%2e%2e/serve.py", "/card.html", "/page.css/", "/static/x"):
        assert "nothing at this address" in refusal(client.get(address), 404)
    assert "POST" in refusal(client.get("/api/faces"), 405)
    assert "POST" in refusal(client.post("/health"), 405)


def test_manifest_and_card_are_there_to_read(connect):
    client = connect()
    manifest = client.get("/api/model").json()
    assert manifest["labels"] == list(NAMES)
    assert manifest["name"] == "tiny"
    assert manifest["limits"] == {"bytes": 16 * 2**20, "pixels": 25_000_000}
    card = client.get("/model").text
    for text in ("<h1>tiny</h1>", "<td>85.8%</td>", "happy, sad, angry", "train, valid"):
        assert text in card
    assert "None" not in card
