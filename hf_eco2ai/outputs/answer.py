"""Answers of the page and the API: compressed, with an ETag, without a body where none is asked for; and refusals."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hf_eco2ai.outputs.negotiation import accepts_gzip, choose

PROBLEM = "application/problem+json"
TEXT = "text/plain; charset=utf-8"

GZIP_LEVEL = 4
"""A thousand runs are 500 kB; level 4 makes them 30 kB in a third of the time of level 9."""

SMALLEST_ZIPPED = 1024
"""Bytes. Less fits into one packet as it is."""

VARY = "accept, accept-encoding"

_ETAG_BYTES = 16


class BadParameter(HTTPException):
    """A query parameter is not what it should be."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(400, detail)
        self.parameter = parameter


class Making:
    """Makes answers one at a time: with `in_thread` in a thread, so that the event loop goes on; else right here.

    One at a time, since /metrics renders in the same threads, and must never wait for those who look at the page.
    """

    def __init__(self, *, in_thread: bool) -> None:
        self._in_thread = in_thread
        self._turn = asyncio.Lock()

    async def __call__(self, make: Callable[[], Response]) -> Response:
        """What `make` makes."""
        if not self._in_thread:
            return make()
        async with self._turn:
            return await asyncio.to_thread(make)


def require(request: Request, media_type: str) -> None:
    """Raises 406 where the client cannot read a media type."""
    if choose(_all(request, "accept"), [media_type]) is None:
        kind = media_type.partition(";")[0]
        raise HTTPException(406, f"This is {kind}, which the Accept header rules out.")


def answer(request: Request, content: bytes, media_type: str, headers: Mapping[str, str], *, compression: bool) -> Response:
    """200, or 304 where the client has this already."""
    digest = hashlib.blake2s(content, digest_size=_ETAG_BYTES).hexdigest()
    common = {"etag": f'W/"{digest}"', "cache-control": "no-cache", "vary": VARY, **headers}
    if _has(request, digest):
        return Response(status_code=304, headers=common)
    if compression and len(content) > SMALLEST_ZIPPED and accepts_gzip(_all(request, "accept-encoding")):
        common["content-encoding"] = "gzip"
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)
    return said(request, 200, content, {**common, "content-type": media_type})


def said(request: Request, status: int, content: bytes, headers: Mapping[str, str]) -> Response:
    """The response to GET, and to HEAD the same without its body."""
    length = {"content-length": str(len(content))}
    return Response(b"" if request.method == "HEAD" else content, status, {**headers, **length})


def plain_text(request: Request, status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A line for people and probes."""
    return said(request, status, f"{text}\n".encode(), {"content-type": TEXT, "cache-control": "no-cache", **(headers or {})})


async def refuse(request: Request, error: Any) -> Response:
    """What is wrong, from an `HTTPException`: as problem+json (RFC 9457) from the API, else as a line of text."""
    headers = dict(error.headers or {})
    if "Allow" in headers:  # Starlette's comes out of a set, in another order each time.
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    detail = _DETAILS.get(error.status_code, error.detail) if error.detail == _phrase(error.status_code) else error.detail
    if not request.scope["path"].startswith("/api/"):
        return plain_text(request, error.status_code, detail, headers)
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": _phrase(error.status_code),
        "status": error.status_code,
        "detail": detail,
    }
    if isinstance(error, BadParameter):
        problem["parameter"] = error.parameter
    content = json.dumps(problem, ensure_ascii=False).encode()
    return said(request, error.status_code, content, {"content-type": PROBLEM, "cache-control": "no-cache", **headers})


_DETAILS = {
    404: "There is nothing at this path.",
    405: "This path does not know that method; the Allow header says which it does.",
}
"""In place of Starlette's own words."""


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


def _has(request: Request, digest: str) -> bool:
    """Whether `If-None-Match` names it, by the weak comparison: compressed or not, it is the same."""
    tags = [tag.strip() for tag in _all(request, "if-none-match").split(",")]
    return "*" in tags or any(tag.removeprefix("W/") == f'"{digest}"' for tag in tags)


def _all(request: Request, header: str) -> str:
    """A header that may be sent in several lines, as one."""
    return ", ".join(request.headers.getlist(header))
