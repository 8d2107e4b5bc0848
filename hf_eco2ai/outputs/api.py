"""The JSON API under `/api/v1`: which runs there are, everything that is known of one, and an end to serving it.

`openapi.py` describes it. Whatever needs pydantic's models is imported when it is first asked for, so that a training process
that only Prometheus looks at never pays for them.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.outputs import text
from hf_eco2ai.outputs.answer import BadParameter, Making, answer, require
from hf_eco2ai.outputs.shown import ShownRun, shown_runs
from hf_eco2ai.records import RUN_STATES, Snapshot

JSON = "application/json"
PREFIX = "/api/v1"
TOKEN_HEADER = "X-Hf-Eco2ai-Token"  # noqa: S105 - its name, not a token
"""For clients whose `Authorization` has to hold the password of `basic_auth_users`."""

MOST_RUNS = 1000
DEFAULT_RUNS = 100
LARGEST_OFFSET = 1_000_000_000

LONGEST_NAMED = 80
"""Columns of what a client sent that are repeated to it."""


class Parameter(NamedTuple):
    """A query parameter: what it means, what it may be, and how it is read (None: it is not that)."""

    name: str
    description: str
    schema: Mapping[str, Any]
    expected: str
    read: Callable[[str], Any]


def _whole(least: int, most: int) -> Callable[[str], int | None]:
    def read(said: str) -> int | None:
        number = int(said) if re.fullmatch(r"[0-9]{1,10}", said) else -1
        return number if least <= number <= most else None

    return read


LIST_PARAMETERS = (
    Parameter("project", "Only runs of this project.", {"type": "string"}, "the name of a project", str),
    Parameter(
        "state",
        "Only runs in this state.",
        {"type": "string", "enum": list(RUN_STATES)},
        f"one of {', '.join(RUN_STATES)}",
        lambda said: said if said in RUN_STATES else None,
    ),
    Parameter(
        "limit",
        "So many runs at most.",
        {"type": "integer", "minimum": 1, "maximum": MOST_RUNS, "default": DEFAULT_RUNS},
        f"a whole number from 1 to {MOST_RUNS}",
        _whole(1, MOST_RUNS),
    ),
    Parameter(
        "offset",
        "Without so many of the newest runs.",
        {"type": "integer", "minimum": 0, "maximum": LARGEST_OFFSET, "default": 0},
        f"a whole number from 0 to {LARGEST_OFFSET}",
        _whole(0, LARGEST_OFFSET),
    ),
)


class _Anything(Convertor[str]):
    """What is left of a path. Starlette's own `path` knows no line breaks, and an id in a forged journal may have some."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("anything", _Anything())


class Api:
    """The routes. `forget` and `write_token` as `build_app` has them."""

    def __init__(
        self,
        snapshots: Callable[[], Sequence[Snapshot]],
        *,
        compression: bool,
        making: Making,
        forget: Callable[[str], bool] | None,
        write_token: Callable[[], str] | None,
        refused: Callable[[str, str], None] = lambda _path, _client: None,
    ) -> None:
        self._snapshots = snapshots
        self._compression = compression
        self._making = making
        self._forget = forget
        self._write_token = write_token
        self._refused = refused

    def routes(self) -> list[Route]:
        """For the app. An id may hold slashes, so whatever follows is one."""
        return [
            Route(f"{PREFIX}/openapi.json", self.openapi),
            Route(f"{PREFIX}/runs", self.runs),
            Route(f"{PREFIX}/runs/{{run_id:anything}}", self.run, methods=["GET", "DELETE"]),
        ]

    async def openapi(self, request: Request) -> Response:
        """The description of this API."""
        return await self._json(request, (), lambda _: json.dumps(openapi()).encode())

    async def runs(self, request: Request) -> Response:
        """Those that fit the query, the newest first."""
        snapshots = self._snapshots()
        return await self._json(request, LIST_PARAMETERS, lambda query: _listed(snapshots, query))

    async def run(self, request: Request) -> Response:
        """One run, shown or forgotten."""
        run_id = request.path_params["run_id"]
        if request.method == "DELETE":
            return self._delete(request, run_id)
        snapshots = self._snapshots()
        return await self._json(request, (), lambda _: _detailed(find(snapshots, run_id), run_id))

    async def _json(
        self, request: Request, parameters: Sequence[Parameter], make: Callable[[Mapping[str, Any]], bytes]
    ) -> Response:
        require(request, JSON)
        query = read_query(request, parameters)

        return await self._making(lambda: answer(request, make(query), JSON, {}, compression=self._compression))

    def _delete(self, request: Request, run_id: str) -> Response:
        forget = self._allowed(request)
        read_query(request, ())
        run = find(self._snapshots(), run_id)
        if run is None:
            raise _unknown(run_id)
        if not run.is_over:
            raise HTTPException(409, "The run has not ended. Only a run that is over can be forgotten.")
        if not forget(run.lead.identity.run_id):
            raise _unknown(run_id)
        return Response(status_code=204)

    def _allowed(self, request: Request) -> Callable[[str], bool]:
        """What forgets a run, for whoever has the token."""
        client = request.client.host if request.client is not None else ""
        path = text.cut(request.scope["path"], LONGEST_NAMED)
        try:
            token = "" if self._write_token is None else self._write_token()
        except ConfigError as error:  # It names a file of the server, which is not for everybody to know.
            raise HTTPException(503, "The server cannot read its token file now.") from error
        if self._forget is None or not token:
            self._refused(path, client)
            raise HTTPException(403, "Nothing can be deleted here. `hf-eco2ai serve --token-file FILE` would allow it.")
        if not any(_same(given, token) for given in _given(request)):
            self._refused(path, client)
            what = f"Deleting needs the token of --token-file, as `Authorization: Bearer TOKEN` or in {TOKEN_HEADER}."
            raise HTTPException(401, what, {"WWW-Authenticate": 'Bearer realm="hf_eco2ai"'})
        return self._forget


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 description, as it is served."""
    from hf_eco2ai.outputs.openapi import description  # noqa: PLC0415 - as above

    return description()


def find(snapshots: Sequence[Snapshot], run_id: str) -> ShownRun | None:
    """The run of that id, as it stands in a link."""
    found = tuple(s for s in snapshots if text.encodable(s.identity.run_id) == run_id)
    return ShownRun(found) if found else None


def read_query(request: Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The parameters that were given. Raises 400 where one is unknown, given twice, or not what it should be."""
    known = {parameter.name: parameter for parameter in parameters}
    query: dict[str, Any] = {}
    for name, said in request.query_params.multi_items():
        shown = text.begun(name, LONGEST_NAMED)
        if name not in known:
            which = f"only {', '.join(known)}" if known else "none"
            raise BadParameter(shown, f"There is no parameter {shown!r} here, {which}.")
        if name in query:
            raise BadParameter(shown, f"{name} is given twice.")
        query[name] = known[name].read(said)
        if query[name] is None:
            raise BadParameter(shown, f"{name} must be {known[name].expected}.")
    return query


def _listed(snapshots: Sequence[Snapshot], query: Mapping[str, Any]) -> bytes:
    from hf_eco2ai.outputs.details import run_list  # noqa: PLC0415 - as above

    runs = [run for run in shown_runs(snapshots) if _fits(run, query)]
    first = query.get("offset", 0)
    page = runs[first : first + query.get("limit", DEFAULT_RUNS)]
    return _bytes(run_list(page, len(runs)).model_dump_json())


def _fits(run: ShownRun, query: Mapping[str, Any]) -> bool:
    project = text.encodable(run.lead.identity.project_name)
    return bool(query.get("project", project) == project and query.get("state", run.state) == run.state)


def _detailed(run: ShownRun | None, run_id: str) -> bytes:
    from hf_eco2ai.outputs.details import run_detail  # noqa: PLC0415 - as above

    if run is None:
        raise _unknown(run_id)
    return _bytes(run_detail(run).model_dump_json())


def _bytes(content: str) -> bytes:
    """With escapes also for what JSON allows and a terminal obeys: people read this with curl."""
    if content.isprintable():
        return content.encode()
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in content).encode()


def _unknown(run_id: str) -> HTTPException:
    return HTTPException(404, f"No run {text.begun(run_id, LONGEST_NAMED)!r} is served here; {PREFIX}/runs lists those that are.")


def _given(request: Request) -> list[str]:
    """Tokens that a client shows."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    bearer = [credentials.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, *request.headers.getlist(TOKEN_HEADER)]


def _same(given: str, token: str) -> bool:
    """In a time that tells nothing of either. Headers come as Latin-1, whatever they are."""
    digests = (hashlib.sha256(said).digest() for said in (given.encode("latin-1"), token.encode()))
    return bool(hmac.compare_digest(*digests))
