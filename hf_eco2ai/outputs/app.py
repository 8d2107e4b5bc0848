"""The HTTP app: `/metrics`, `/healthz`, `/readyz` and a small page. The same app in the training process and in a daemon."""

import gzip
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from hf_eco2ai.outputs.exposition import Body, Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.page import page
from hf_eco2ai.records import Snapshot

GZIP_LEVEL = 4
"""A scrape of 8 GPUs is 30 kB; level 4 makes it 3 kB in a third of the time of level 9."""

MOST_RENDERED = 8
"""Different `Accept` headers for which one snapshot's exposition is kept."""


def build_app(snapshots: Callable[[], Sequence[Snapshot]], rules: LabelRules, *, compression: bool) -> Starlette:
    """An ASGI app over whatever `snapshots` returns at the time of a request."""
    endpoint = _Endpoint(snapshots, Exposition(snapshots, rules), compression)
    return Starlette(
        routes=[
            Route("/metrics", endpoint.metrics),
            Route("/healthz", endpoint.healthz),
            Route("/readyz", endpoint.readyz),
            Route("/", endpoint.page),
        ]
    )


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip (RFC 9110, 12.5.3): named, and not with a quality of 0."""
    for part in header.lower().split(","):
        name, _, parameters = part.strip().partition(";")
        if name.strip() == "gzip":
            quality = parameters.replace(" ", "").removeprefix("q=")
            return quality not in {"0", "0.", "0.0", "0.00", "0.000"}
    return False


class _Endpoint:
    def __init__(self, snapshots: Callable[[], Sequence[Snapshot]], exposition: Exposition, compression: bool) -> None:
        self._snapshots = snapshots
        self._exposition = exposition
        self._compression = compression
        self._rendered_for: tuple[Snapshot, ...] = ()
        self._rendered: dict[tuple[str, bool], Body] = {}

    async def metrics(self, request: Request) -> Response:
        """The exposition. Rendered once per snapshot, so that a tenth scrape in a second costs next to nothing."""
        accept = request.headers.get("accept", "")
        zipped = self._compression and accepts_gzip(request.headers.get("accept-encoding", ""))
        snapshots = tuple(self._snapshots())
        if snapshots != self._rendered_for:
            self._rendered_for = snapshots
            self._rendered = {}
        body = self._rendered.get((accept, zipped))
        if body is None:
            body = self._exposition.body(accept)
            if zipped:
                body = Body(gzip.compress(body.content, GZIP_LEVEL), body.content_type)
            if len(self._rendered) >= MOST_RENDERED:
                self._rendered.clear()
            self._rendered[accept, zipped] = body
        headers = {"vary": "accept, accept-encoding", "content-type": body.content_type}
        if zipped:
            headers["content-encoding"] = "gzip"
        return Response(body.content, headers=headers)

    async def healthz(self, _request: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        """There is something to scrape."""
        if self._snapshots():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("no reading yet\n", status_code=503)

    async def page(self, _request: Request) -> Response:
        """What this is, what runs, where to go."""
        return HTMLResponse(page(self._snapshots()))
