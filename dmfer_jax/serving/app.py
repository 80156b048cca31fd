"""The application: a page, its files, and the endpoints that it and other programs ask."""

import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dmfer_jax.reporting.plain_json import dump_line
from dmfer_jax.serving.gate import Counts, Gate, answer_refused
from dmfer_jax.serving.limits import Limits, Refused
from dmfer_jax.serving.model_card import render_card
from dmfer_jax.serving.service import PhotoService
from dmfer_jax.serving.uploads import receive_photo

WEB = Path(__file__).parents[1] / "web"

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/drawing.js": ("drawing.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Address -> file of `WEB` and its type. Read once, so that no address ever becomes a path."""

_SENTENCES = {
    404: "there is nothing at this address; docs/serve.md lists those that there are",
    405: "this address is asked in another way: photos are sent with POST, the rest is read with "
    "GET",
}


def make_app(
    service: PhotoService,
    manifest: dict[str, Any],
    card: str,
    *,
    limits: Limits,
    names: Collection[str] = (),
    counts: Counts | None = None,
) -> ASGIApp:
    """Returns the application.

    Args:
      service: that photos are given to.
      manifest: of the model, as plain JSON values.
      card: of the model, in Markdown.
      limits: of uploads, places and rate.
      names: by which browsers reach it, beside localhost and IP addresses.
      counts: to count in what was served.
    """
    counts = counts or Counts()
    # The parser of forms warns with a byte of the upload.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    app = Starlette(
        routes=[*_api(service, manifest, limits, counts), *_pages(card)],
        exception_handlers={
            Refused: _answer_refused,
            HTTPException: _answer_http,
            Exception: _answer_failed,  # the gate, where it goes on to, tells the operator
        },
    )
    app.router.redirect_slashes = False  # an address is there or it is not
    return Gate(app, limits, names, counts)


def _api(
    service: PhotoService, manifest: dict[str, Any], limits: Limits, counts: Counts
) -> list[Route]:
    """The endpoints that programs and the page ask."""
    workers = anyio.CapacityLimiter(limits.workers)

    async def work(function: Callable[..., Any], *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=workers)

    async def faces(request: Request) -> Response:
        record = await work(service.tell, await receive_photo(request, limits))
        counts.photos += 1
        counts.faces += len(record["faces"])
        return _json(record)

    async def explain(request: Request) -> Response:
        number = request.query_params.get("face", "")
        if not (number.isascii() and number.isdecimal() and len(number) < 6):
            raise Refused(400, "the address names no face; expected /api/explain?face=1 or so")
        photo = await receive_photo(request, limits)
        explained = await work(service.explain, photo, int(number))
        counts.explained += 1
        return _json(explained)

    async def model(request: Request) -> Response:
        taken = {"bytes": limits.upload_bytes, "pixels": limits.pixels}
        return _json({**manifest, "limits": taken})

    async def health(request: Request) -> Response:
        return _json({"status": "ok"})

    return [
        Route("/api/faces", faces, methods=["POST"]),
        Route("/api/explain", explain, methods=["POST"]),
        Route("/api/model", model),
        Route("/health", health),
    ]


def _pages(card: str) -> list[Route]:
    """The page, what it is made of, and the model's card."""
    frame = (WEB / "card.html").read_text(encoding="utf-8")
    card_html = frame.replace("<!-- card -->", render_card(card))
    return [
        Route("/model", _give(card_html.encode(), "text/html")),
        *(
            Route(address, _give((WEB / name).read_bytes(), kind))
            for address, (name, kind) in _FILES.items()
        ),
    ]


def _give(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Answers with what a file holds. Browsers ask each time whether it is another by now."""

    async def answer(request: Request) -> Response:
        return Response(content, headers={"Cache-Control": "no-cache"}, media_type=kind)

    return answer


def _json(value: Any) -> Response:
    return Response(dump_line(value) + "\n", media_type="application/json")


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer_refused(error)


async def _answer_failed(request: Request, error: Exception) -> Response:
    return answer_refused(Refused(500, "something went wrong here; the photo was not kept"))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = answer_refused(Refused(error.status_code, _SENTENCES.get(error.status_code, "")))
    answer.headers.update(error.headers or {})
    return answer
