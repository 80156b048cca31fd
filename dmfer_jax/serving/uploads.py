"""Takes the photo out of a request, in memory alone and no more of it than is allowed."""

from collections.abc import AsyncGenerator

import anyio
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from dmfer_jax.serving.limits import Limits, Refused

FIELD = "photo"
"""The name of a form's field with the photo."""


async def receive_photo(request: Request, limits: Limits) -> bytes:
    """Returns the bytes of the one photo that a request brings.

    It is the body itself, whatever type that says it has; or the one file of a form
    (multipart/form-data). The name that a form gives the file is not looked at.

    Raises:
      Refused: it is too large, too slow, empty or no such form.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.upload_bytes:
        raise _too_large(limits)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _read_limited(request, limits)
    try:
        with anyio.fail_after(limits.upload_seconds):
            if kind == "multipart/form-data":
                photo = await _read_form(request, body, limits)
            else:
                photo = b"".join([chunk async for chunk in body])
    except TimeoutError:
        raise Refused(
            408, f"the photo took more than {limits.upload_seconds:.0f} s to arrive"
        ) from None
    except ClientDisconnect:
        raise Refused(400, "the photo did not arrive whole") from None
    if not photo:
        raise Refused(400, "the request has no photo in it, or an empty one")
    return photo


async def _read_limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body as it arrives; counted, since its declared length may be missing or untrue."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.upload_bytes:
            raise _too_large(limits)
        yield chunk


async def _read_form(request: Request, body: AsyncGenerator[bytes, None], limits: Limits) -> bytes:
    parser = MultiPartParser(request.headers, body, max_files=1, max_fields=0)
    parser.spool_max_size = limits.upload_bytes + 1  # never on the disk
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError):  # the second of a charset such as "undefined"
        raise _other_form() from None
    try:
        photo = form.get(FIELD)
        if not isinstance(photo, UploadFile):
            raise _other_form()
        return await photo.read()
    finally:
        await form.close()


def _too_large(limits: Limits) -> Refused:
    size = limits.upload_bytes / 2**20
    return Refused(413, f"the photo is too large; at most {size:.3g} MiB are taken")


def _other_form() -> Refused:
    return Refused(
        400, f"the form cannot be read; expected one file in the field {FIELD!r} and nothing else"
    )
