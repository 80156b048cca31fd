"""Stands before the application: who may ask, how often, and what every answer says to the browser.

Two ways lead from a stranger's page to a server on this machine. A form or script of that page
posts here: then the browser says where it came from (`Origin`, `Sec-Fetch-Site`), and it is
refused. Or the stranger lets a name of their own resolve to this machine (DNS rebinding), so that
to the browser both are the same place: then `Host` has that name, and is refused. An IP address
cannot be rebound, so any is a fine host.
"""

import ipaddress
import sys
import traceback
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmfer_jax.reporting.plain_json import dump_line
from dmfer_jax.serving.limits import Limits, Rate, Refused, name_client

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. The page takes scripts, styles and data from here and from nowhere else."""


@dataclass
class Counts:
    """All that is remembered of what was served.

    Attributes:
      photos: that were looked at.
      faces: found in them.
      explained: faces whose maps were computed.
      refused: requests, of all kinds.
      failed: requests that an error of this program ended.
    """

    photos: int = 0
    faces: int = 0
    explained: int = 0
    refused: int = 0
    failed: int = 0


class Gate:
    """An ASGI application around another one.

    Args:
      app: what answers.
      limits: of rate and of places.
      names: by which browsers reach this server, beside localhost and IP addresses.
      counts: to count refusals and failures in.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, names: Collection[str], counts: Counts
    ) -> None:
        self._app, self._limits, self._counts = app, limits, counts
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}
        self._client = Rate(limits.client_per_minute, limits.client_burst, limits.clients)
        self._all = Rate(limits.all_per_minute, limits.all_burst, 1)
        self._held: Counter[str] = Counter()  # places, by whom

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                self._counts.refused += message["status"] >= 400 and message["status"] != 500
            await send(message)

        try:
            await self._serve(scope, receive, send_with_headers)
        except Refused as refused:
            if scope["method"] == "POST":
                await _pass_over_body(receive, self._limits.upload_bytes)
            await answer_refused(refused)(scope, receive, send_with_headers)
        except Exception as error:
            self._counts.failed += 1
            print(_where(error), file=sys.stderr)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        check_origin(headers)
        client = name_client(scope["client"][0] if scope.get("client") else "")
        limits = self._limits
        if self._held.total() >= limits.places or self._held[client] >= limits.client_places:
            raise Refused(503, "many photos are waiting already; try again in a moment", 2)
        self._check_rate(client)  # what found no place does not count
        self._held[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._held[client] -= 1
            self._held += Counter()  # leaves who holds none
        return None

    def _check_host(self, headers: Headers) -> None:
        host = _name_of_host(headers.get("host", ""))
        if host in self._names or _is_address(host):
            return
        raise Refused(
            421,
            "this server does not go by the name in the address; use localhost or its IP address, "
            "or have it started with --names",
        )

    def _check_rate(self, client: str) -> None:
        if wait := self._client.take(client):
            raise Refused(429, f"that were many photos at once; try again in {wait} s", wait)
        if wait := self._all.take(""):
            raise Refused(429, f"many people send photos just now; try again in {wait} s", wait)


async def _pass_over_body(receive: Receive, most: int) -> None:
    """Takes what is still arriving: a connection that is closed before that loses the answer."""
    passed, more = 0, True
    with anyio.move_on_after(_PATIENCE):
        while more and passed <= most:
            message = await receive()
            passed += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)


_PATIENCE = 2.0  # seconds


def check_origin(headers: Headers) -> None:
    """Refuses a request that a browser sends for the page of another site.

    Programs that are no browsers send neither header and pass.

    Raises:
      Refused: it is one.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    same = origin is None or _place_of(origin) == headers.get("host", "").lower()
    if not same or site not in ("same-origin", "none"):
        raise Refused(403, "photos are taken from this server's own page only, not from others'")


def answer_refused(refused: Refused) -> Response:
    """Returns the answer to a request that is not served: JSON with its reason as `error`."""
    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else None
    body = dump_line({"error": str(refused)}) + "\n"
    return Response(body, refused.status, headers, "application/json")


def _place_of(origin: str) -> str | None:
    """The host and port of an origin, in lower case; None if it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _name_of_host(host: str) -> str:
    """The host without its port, in lower case; nothing if it is no host."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").rstrip(".") if parts.netloc == host and host else ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _where(error: Exception) -> str:
    """What kind of error it is and where it was raised. Its text could tell of the photo."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"error: {type(error).__name__} at {last.filename}:{last.lineno}; the server goes on"
