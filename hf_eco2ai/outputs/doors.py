"""Who is let through to the app: certificate name, rate limit, password; and the security headers of every response."""

import ipaddress
import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hf_eco2ai.outputs.credentials import PasswordCheck, Verdict, parse_authorization
from hf_eco2ai.outputs.limits import PEER_CERTIFICATE
from hf_eco2ai.outputs.web_config import RateLimit, WebConfig

MOST_CHARACTERS = 200
"""Of a path, or of a client's address, in the log."""

SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"cross-origin-resource-policy": b"same-origin",
}
"""On every response that does not say otherwise itself."""

Reason = Literal[
    "no credentials", "malformed credentials", "wrong credentials", "too many checks", "certificate name", "rate limit"
]

_SENTENCES: dict[Reason, tuple[int, str]] = {
    "no credentials": (401, "A name and a password are asked for (HTTP basic authentication)."),
    "malformed credentials": (401, "The Authorization header is not HTTP basic authentication."),
    "wrong credentials": (401, "The name or the password is wrong."),
    "too many checks": (503, "Too many passwords are being checked: try again in a second."),
    "certificate name": (403, "No name in the client's certificate is one that is let in."),
    "rate limit": (429, "More requests than the rate limit allows: try again later."),
}

_VERDICTS: dict[Verdict, Reason | None] = {"right": None, "wrong": "wrong credentials", "busy": "too many checks"}

_CHALLENGE = (b"www-authenticate", b'Basic realm="hf_eco2ai", charset="UTF-8"')

_NAME_KINDS = frozenset({"DNS", "IP Address", "URI", "email"})


class Refusal(NamedTuple):
    """A request that did not reach the app. What the client chose, its path, is printable and short."""

    status: int
    reason: Reason
    client: str
    """Its address; empty where that is not known."""
    path: str


class TokenBucket:
    """Lets through at most `burst` at once and one more each `interval` seconds. What it keeps is when it will be full again."""

    def __init__(self, limit: RateLimit, now: Callable[[], float]) -> None:
        self._interval = limit.interval
        self._tolerance = (limit.burst - 1) * limit.interval
        self._now = now
        self._full_at = -math.inf

    def wait(self) -> float:
        """0 where one more is let through, which then counts; otherwise the seconds until one will be."""
        now = self._now()
        early = self._full_at - self._tolerance - now
        if early > 0:
            return early
        self._full_at = max(self._full_at, now) + self._interval
        return 0.0


class Doors:
    """ASGI middleware that keeps out whom `config` keeps out, and says so to `refused`.

    `config` is asked at each request, so that a new one is in force at once. `open_paths` may be read (GET, HEAD) by anyone at
    any rate. As in the exporter-toolkit, the rate is counted before passwords are looked at. These are checked on `worker`, by
    default one thread.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Callable[[], WebConfig],
        *,
        refused: Callable[[Refusal], None],
        open_paths: frozenset[str] = frozenset({"/healthz", "/readyz"}),
        now: Callable[[], float] = time.monotonic,
        worker: Executor | None = None,
    ) -> None:
        self._app = app
        self._config = config
        self._refused = refused
        self._open_paths = open_paths
        self._now = now
        self._worker = worker or ThreadPoolExecutor(1, "hf_eco2ai-passwords")
        self._users: Mapping[str, str] = {}
        self._check: PasswordCheck | None = None
        self._limit: RateLimit | None = None
        self._bucket: TokenBucket | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise ValueError(f"there is no door for {scope['type']}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = self._config()
        send = _with_security_headers(send, config.headers)
        if scope["path"] in self._open_paths and scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        if config.allowed_sans and not _has_name(scope, config.allowed_sans):
            await self._refuse("certificate name", scope, send)
            return
        wait = self._wait(config.rate_limit)
        if wait > 0:
            await self._refuse("rate limit", scope, send, retry_after=wait)
            return
        reason = await self._judge(scope, config.users)
        if reason is None:
            await self._app(scope, receive, send)
        else:
            await self._refuse(reason, scope, send, retry_after=1.0 if reason == "too many checks" else None)

    def _wait(self, limit: RateLimit | None) -> float:
        if limit != self._limit:
            self._limit = limit
            self._bucket = None if limit is None else TokenBucket(limit, self._now)
        return 0.0 if self._bucket is None else self._bucket.wait()

    async def _judge(self, scope: Scope, users: Mapping[str, str]) -> Reason | None:
        """Why the credentials do not do; None where they do, or none are asked for."""
        if users != self._users:
            self._users, self._check = users, PasswordCheck(users, self._worker) if users else None
        if self._check is None:
            return None
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if not headers:
            return "no credentials"
        credentials = parse_authorization(headers[0]) if len(headers) == 1 else None
        if credentials is None:
            return "malformed credentials"
        return _VERDICTS[await self._check.verdict(credentials)]

    async def _refuse(self, reason: Reason, scope: Scope, send: Send, retry_after: float | None = None) -> None:
        status, sentence = _SENTENCES[reason]
        client = scope.get("client")
        self._refused(Refusal(status, reason, _printable(str(client[0])) if client else "", _printable(scope["path"])))
        body, content_type = _body(status, sentence, is_api=scope["path"].startswith("/api/"))
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append(_CHALLENGE)
        if retry_after is not None:
            headers.append((b"retry-after", b"%d" % math.ceil(retry_after)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _body(status: int, sentence: str, *, is_api: bool) -> tuple[bytes, bytes]:
    """And its content type: a problem (RFC 9457) where programs ask."""
    title = HTTPStatus(status).phrase
    if is_api:
        return json.dumps({"title": title, "status": status, "detail": sentence}).encode(), b"application/problem+json"
    return f"{title}. {sentence}\n".encode(), b"text/plain; charset=utf-8"


def _with_security_headers(send: Send, configured: tuple[tuple[str, str], ...]) -> Send:
    ours = {name.lower().encode("ascii"): value.encode("ascii") for name, value in configured}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
            said = {name.lower() for name, _ in headers}
            added = {name: value for name, value in {**SECURITY_HEADERS, **ours}.items() if name not in said and value}
            message = {**message, "headers": [*headers, *added.items()]}
        await send(message)

    return send_with_headers


def _has_name(scope: Scope, allowed: frozenset[str]) -> bool:
    """Whether the client's certificate has one of these among its subject alternative names. False without a certificate."""
    certificate: Mapping[str, Any] = scope.get("extensions", {}).get(PEER_CERTIFICATE) or {}
    names = {_name(value, kind) for kind, value in certificate.get("subjectAltName", ()) if kind in _NAME_KINDS}
    return not names.isdisjoint({*allowed, *(_name(name, "IP Address") for name in allowed)})


def _name(value: str, kind: str) -> str:
    """An address in its usual form: a certificate's `0:0:0:0:0:0:0:1` is what people write as `::1`."""
    try:
        return str(ipaddress.ip_address(value.strip())) if kind == "IP Address" else value
    except ValueError:
        return value


def _printable(text: str) -> str:
    """Cut, and with escapes for what would move the cursor, end the line or turn the writing direction."""
    cut = text[:MOST_CHARACTERS]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)[:MOST_CHARACTERS]
