"""`/metrics`: one rendering for all who ask at a time, sent in pieces, within the time that Prometheus gives."""

import asyncio
import hashlib
import math
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from hf_eco2ai.outputs.connection import ABORT, IS_LOST
from hf_eco2ai.outputs.limits import Limits
from hf_eco2ai.outputs.negotiation import accepts_gzip, choose

GZIP_LEVEL = 1
"""Measured on 5,000 runs: 49 MB become 3.5 MB in 0.10 s. Level 6 takes three times as long for an eighth less."""

CHUNK = 65_536
"""Bytes of the shared body that a connection holds for itself at a time."""

DEADLINE_SECONDS = 10.0
"""For a client that names none; Prometheus' own default."""

NETWORK_SECONDS = 0.5
"""Of what Prometheus gives, for the way there and back; at most half of it."""

MOST_SECONDS = 3600.0

Outcome = Literal["ok", "not_modified", "deadline", "busy", "aborted", "not_acceptable", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Kind(NamedTuple):
    """One of the four bodies that an exposition can have."""

    openmetrics: bool
    zipped: bool


@dataclass(frozen=True)
class Body:
    """An exposition as it is sent."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "Body":
        """With a strong ETag; the hash takes 1 ms a megabyte."""
        return cls(content, f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"')


class Bodies:
    """The exposition of now, in the kinds that have been asked for.

    A kind is rendered once for each `version`, and who asks while that is under way gets the same. With `in_thread` a worker
    thread renders, one kind at a time, and the event loop goes on answering; else the event loop does.
    """

    def __init__(self, render: Callable[[bool], bytes], version: Callable[[], object], *, in_thread: bool) -> None:
        self._render = render
        self._version = version
        self._in_thread = in_thread
        self._worker = asyncio.Lock()
        self._made: dict[Kind, Body] = {}
        self._made_for: object = None
        self._under_way: dict[Kind, asyncio.Task[Body]] = {}

    async def get(self, kind: Kind, seconds: float) -> Body:
        """The body. Raises `asyncio.TimeoutError` after so many seconds; the rendering goes on, for the next one who asks."""
        version = self._version()
        if version != self._made_for:
            self._made, self._made_for = {}, version
        if kind in self._made:
            return self._made[kind]
        task = self._under_way.get(kind)
        if task is None:
            task = self._under_way[kind] = asyncio.get_running_loop().create_task(self._make(kind, self._made))
        return await asyncio.wait_for(asyncio.shield(task), seconds)

    async def _make(self, kind: Kind, made: dict[Kind, Body]) -> Body:
        try:
            if self._in_thread:
                async with self._worker:
                    body = await asyncio.get_running_loop().run_in_executor(None, self._body, kind, made)
            else:
                body = self._body(kind, made)
            made[kind] = body
            return body
        finally:
            del self._under_way[kind]

    def _body(self, kind: Kind, made: dict[Kind, Body]) -> Body:
        plain = made.get(kind._replace(zipped=False))
        content = self._render(kind.openmetrics) if plain is None else plain.content
        return Body.of(zipped(content) if kind.zipped else content)


class Scrapes:
    """The endpoint of `/metrics`.

    `render` makes the exposition, as OpenMetrics or as text; `version` compares equal as long as it would make the same.
    `observe` gets the outcome and the seconds of each scrape.
    """

    def __init__(
        self,
        render: Callable[[bool], bytes],
        *,
        compression: bool,
        version: Callable[[], object],
        in_thread: bool,
        limits: Limits | None = None,
        observe: Callable[[Outcome, float], None] = lambda _outcome, _seconds: None,
    ) -> None:
        self.bodies = Bodies(render, version, in_thread=in_thread)
        self.places = Places(limits or Limits())
        self.compression = compression
        self.observe = observe

    async def metrics(self, request: Request) -> Response:
        """The exposition, in what the client reads of text 0.0.4 and OpenMetrics 1.0.0; 503 where that takes too long."""
        return _Scrape(self, request)


class _Scrape(Response):
    """A scrape under way. All of it happens when it is called, so that nothing can come between beginning and end."""

    media_type = "text/plain"

    def __init__(self, scrapes: Scrapes, request: Request) -> None:
        super().__init__()
        self._scrapes = scrapes
        self._asked = request.headers
        self._is_head = request.method == "HEAD"
        extensions = request.scope.get("extensions", {})
        self._is_lost: Callable[[], bool] = extensions.get(IS_LOST, lambda: False)
        self.abort: Callable[[], None] = extensions.get(ABORT, lambda: None)
        self.progress_at: float | None = None
        """When the client has last taken a piece; None before the first."""

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Wait for a place and the body, and send it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome: Outcome = "failed"
        try:
            outcome = await self._answer(scope, receive, send, loop)
        finally:
            self._scrapes.observe(outcome, loop.time() - began)

    async def _answer(self, scope: ASGIScope, receive: Receive, send: Send, loop: asyncio.AbstractEventLoop) -> Outcome:
        accepted = choose(self._asked.get("accept", ""), _OFFERS, CONTENT_TYPE_PLAIN_0_0_4)
        if accepted is None:
            await _say(406, f"There is {' and '.join(_OFFERS)}.")(scope, receive, send)
            return "not_acceptable"
        deadline = loop.time() + seconds_for(self._asked.get("x-prometheus-scrape-timeout-seconds", ""))
        places = self._scrapes.places
        try:
            await places.take(self, deadline)
        except asyncio.TimeoutError:
            await _say(503, "Too many scrapes are under way: try again in a second.", retry_after="1")(scope, receive, send)
            return "busy"
        try:
            zips = self._scrapes.compression and accepts_gzip(self._asked.get("accept-encoding", ""))
            kind = Kind(openmetrics=accepted == CONTENT_TYPE_OPENMETRICS, zipped=zips)
            try:
                body = await self._scrapes.bodies.get(kind, deadline - loop.time())
            except asyncio.TimeoutError:
                await _say(503, "The exposition was not ready in time: the next scrape gets it.")(scope, receive, send)
                return "deadline"
            return await self._send(body, kind, send, loop)
        finally:
            places.leave(self)

    async def _send(self, body: Body, kind: Kind, send: Send, loop: asyncio.AbstractEventLoop) -> Outcome:
        is_known = matches(self._asked.get("if-none-match", ""), body.etag)
        headers = _headers(body, kind, is_known=is_known)
        self.progress_at = loop.time()
        await send({"type": "http.response.start", "status": 304 if is_known else 200, "headers": headers})
        content = memoryview(b"" if is_known or self._is_head else body.content)
        for start in range(0, len(content), CHUNK):
            await send({"type": "http.response.body", "body": content[start : start + CHUNK], "more_body": True})
            self.progress_at = loop.time()
            if self._is_lost():
                return "aborted"
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "not_modified" if is_known else "ok"


class Places:
    """So many scrapes are answered at once. Others wait, first come first served, until one is done or does not move."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: set[_Scrape] = set()
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()

    async def take(self, scrape: _Scrape, deadline: float) -> None:
        """Wait for a place. Raises `asyncio.TimeoutError` at the deadline, on the event loop's clock."""
        if self._turn.locked() or len(self._taken) >= self._limits.requests:
            await asyncio.wait_for(self._wait(scrape), deadline - asyncio.get_running_loop().time())
        else:
            self._taken.add(scrape)

    def leave(self, scrape: _Scrape) -> None:
        """It is done."""
        self._taken.discard(scrape)
        self._left.set()

    async def _wait(self, scrape: _Scrape) -> None:
        async with self._turn:
            while len(self._taken) >= self._limits.requests:
                seconds = self._make_room()
                if seconds is not None:
                    self._left.clear()
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._left.wait(), seconds)
            self._taken.add(scrape)

    def _make_room(self) -> float | None:
        """End the scrape that has not moved for longest. Where that is not long, say in how many seconds it will be."""
        now = asyncio.get_running_loop().time()
        sending = [(one.progress_at, id(one), one) for one in self._taken if one.progress_at is not None]
        if not sending:
            return self._limits.stall_seconds
        progress_at, _, slowest = min(sending)
        seconds = progress_at + self._limits.stall_seconds - now
        if seconds > 0:
            return seconds
        slowest.abort()
        self.leave(slowest)
        return None


_OFFERS = (CONTENT_TYPE_OPENMETRICS, CONTENT_TYPE_PLAIN_0_0_4)


def zipped(content: bytes) -> bytes:
    """Gzip without a date, so that the same exposition has the same ETag."""
    compressor = zlib.compressobj(GZIP_LEVEL, wbits=31)
    return compressor.compress(content) + compressor.flush()


def seconds_for(header: str) -> float:
    """How long a scrape may take here, by Prometheus' header of the seconds that it waits."""
    try:
        seconds = float(header)
    except ValueError:
        return DEADLINE_SECONDS
    if not math.isfinite(seconds) or seconds <= 0:
        return DEADLINE_SECONDS
    return min(max(seconds - NETWORK_SECONDS, seconds / 2), MOST_SECONDS)


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has this body already (RFC 9110, 13.1.2)."""
    return etag in {known.strip().removeprefix("W/") for known in if_none_match.split(",")} or if_none_match.strip() == "*"


def _headers(body: Body, kind: Kind, *, is_known: bool) -> list[tuple[bytes, bytes]]:
    headers = {"etag": body.etag, "vary": "Accept, Accept-Encoding", "cache-control": "no-cache"}
    if not is_known:
        headers["content-type"] = CONTENT_TYPE_OPENMETRICS if kind.openmetrics else CONTENT_TYPE_PLAIN_0_0_4
        headers["content-length"] = str(len(body.content))
        if kind.zipped:
            headers["content-encoding"] = "gzip"
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _say(status: int, sentence: str, *, retry_after: str = "") -> Response:
    headers = {
        "vary": "Accept, Accept-Encoding",
        "cache-control": "no-cache",
        **({"retry-after": retry_after} if retry_after else {}),
    }
    return PlainTextResponse(f"{sentence}\n", status, headers)
