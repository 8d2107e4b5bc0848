"""The HTTP app: `/metrics`, probes, the API and the page. The same in the training process and in a daemon."""

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hf_eco2ai.outputs.answer import Making, answer, plain_text, refuse, require, said
from hf_eco2ai.outputs.api import Api
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.limits import Limits
from hf_eco2ai.outputs.page import page
from hf_eco2ai.outputs.page_style import CONTENT_SECURITY_POLICY
from hf_eco2ai.outputs.scrape import Outcome, Scrapes
from hf_eco2ai.records import Snapshot

HTML = "text/html; charset=utf-8"


def build_app(
    snapshots: Callable[[], Sequence[Snapshot]],
    exposition: Exposition,
    *,
    compression: bool,
    version: Callable[[], object] | None = None,
    in_thread: bool = False,
    limits: Limits | None = None,
    ready: Callable[[], bool] | None = None,
    forget: Callable[[str], bool] | None = None,
    write_token: Callable[[], str] | None = None,
    observe: Callable[[Outcome, float], None] = lambda _outcome, _seconds: None,
    refused: Callable[[str, str], None] = lambda _path, _client: None,
) -> Starlette:
    """An ASGI app over whatever `snapshots` returns at the time of a request; a run's leading process comes first.

    `version` compares equal for as long as `exposition` would be rendered the same; where it is not given, for as long as the
    snapshots do. `ready` is asked by `/readyz`; where it is not given, any snapshot will do. `forget` stops serving a run that is
    over, and says whether it was there; whoever asks for that needs the `write_token`. An empty one lets nobody. Who has not got
    it goes to `refused`, by path and client.
    """
    scrapes = Scrapes(
        lambda openmetrics: exposition.render(openmetrics=openmetrics),
        compression=compression,
        version=version or (lambda: tuple(snapshots())),
        in_thread=in_thread,
        limits=limits,
        observe=observe,
    )
    making = Making(in_thread=in_thread)
    pages = _Pages(snapshots, ready or (lambda: bool(snapshots())), compression, making)
    api = Api(snapshots, compression=compression, making=making, forget=forget, write_token=write_token, refused=refused)
    app = Starlette(
        routes=[
            Route("/metrics", scrapes.metrics),
            Route("/healthz", pages.healthz),
            Route("/readyz", pages.readyz),
            Route("/", pages.page),
            *api.routes(),
        ],
        exception_handlers={HTTPException: refuse},
    )
    app.router.redirect_slashes = False
    return app


class _Pages:
    """What people and probes look at."""

    def __init__(
        self, snapshots: Callable[[], Sequence[Snapshot]], ready: Callable[[], bool], compression: bool, making: Making
    ) -> None:
        self._snapshots = snapshots
        self._ready = ready
        self._compression = compression
        self._making = making

    # Probes are answered whatever they accept: nobody restarts a server because of a header.

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        return plain_text(request, 200, "ok")

    async def readyz(self, request: Request) -> Response:
        """There is something to scrape."""
        return plain_text(request, 200, "ok") if self._ready() else plain_text(request, 503, "no reading yet")

    async def page(self, request: Request) -> Response:
        """What this is, what runs, where to go."""
        require(request, HTML)
        snapshots, chosen = self._snapshots(), request.query_params.get("run")

        def made() -> Response:
            shown = page(snapshots, chosen)
            content, headers = shown.html.encode(), {"content-security-policy": CONTENT_SECURITY_POLICY}
            if shown.found:
                return answer(request, content, HTML, headers, compression=self._compression)
            return said(request, 404, content, {**headers, "content-type": HTML, "cache-control": "no-cache"})

        return await self._making(made)
