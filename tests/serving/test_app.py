"""The endpoints and the pages: what they answer."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from dmfer_jax.expression_model import Photo
from dmfer_jax.photo_record import make_record
from dmfer_jax.serving.gate import HEADERS
from tests.serving.tiny_server import FACE, NAMES, SIZE, encode, refusal, two_faces


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
    assert record["faces"][0]["box"] != face["box"]
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
