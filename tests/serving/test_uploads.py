"""Uploads that are too large, too slow, no photo, or no form."""

import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

from tests.serving.tiny_server import FACE, encode, refusal


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 400, "no photo in it"),
        (b"I am no photo", 415, "expected one of JPEG, PNG, WebP, GIF, BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "no photo"),
        (FACE[:-2] + b"\xff\xda" * 1001 + FACE[-2:], 422, "1,002 scans, and a photo has"),
        (encode(np.zeros((9, 9), np.uint8), "TIFF"), 415, "no photo"),
        (FACE[: len(FACE) // 2], 422, "cannot be decoded"),
        (FACE[:100], 422, "damaged"),
        (FACE[:4] + bytes(1000), 415, "no photo"),
    ],
    ids=["empty", "text", "svg", "postscript", "scans", "tiff", "half", "header", "zeros"],
)
@pytest.mark.parametrize("address", ["/api/faces", "/api/explain?face=1"])
def test_what_is_no_sound_photo_is_refused_in_plain_words(connect, address, content, status, said):
    assert said in refusal(connect().post(address, content=content), status)


def make_webp_that_is_im() -> bytes:
    """A WebP of 2 x 2 pixels, whose length is a colon: by that Pillow reads an IM of 70 x 70."""
    chunks = encode(np.zeros((2, 2, 3), np.uint8), "WEBP", lossless=True)[12:]
    length = ord(":")
    filler = length - len(b"WEBP") - len(chunks) - 8
    junk = b"JUNK" + struct.pack("<I", filler) + b"x" * filler
    header = b"\nImage type: L image\nImage size (x*y): 70*70\n\x1a"
    return b"RIFF" + struct.pack("<I", length) + b"WEBP" + chunks + junk + header + bytes(4900)


def test_file_of_two_formats_is_no_photo(connect):
    pytest.importorskip("PIL.ImImagePlugin", reason="Pillow 15 reads IM no more")
    content = make_webp_that_is_im()
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        assert image.size == (2, 2)
    with Image.open(io.BytesIO(content), formats=["IM"]) as image:
        assert image.size == (70, 70)
    assert "no photo" in refusal(connect().post("/api/faces", content=content), 415)


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
        {"content": b"ab\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {
            "content": b"--x\r\nContent-Disposition: form-data; name=photo\r\n\r\na\r\n--x--\r\n",
            "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"},
        },
    ],
)
def test_other_forms_are_refused_and_nothing_is_logged_of_them(connect, form, caplog):
    assert "field 'photo'" in refusal(connect().post("/api/faces", **form), 400)
    assert caplog.text == ""


def test_nothing_is_written_to_the_disk(connect, monkeypatch, tmp_path):
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a file was opened on the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = FACE + bytes(2**21)  # twice what Starlette would keep in memory
    assert connect().post("/api/faces", files={"photo": ("a", large)}).status_code == 200
    assert not list(tmp_path.iterdir())
