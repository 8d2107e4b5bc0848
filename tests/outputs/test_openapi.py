"""The OpenAPI description against what is served: schemathesis tries what it can think of, with all its checks."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

import bcrypt
import pytest
import schemathesis
from openapi_spec_validator import validate
from schemathesis import engine
from schemathesis.engine import events
from starlette.types import ASGIApp

from hf_eco2ai.outputs import api
from hf_eco2ai.outputs.doors import Doors
from hf_eco2ai.outputs.web_config import RateLimit, WebConfig
from hf_eco2ai.records import BudgetStatus, Footprint, Snapshot
from tests.journal import make
from tests.outputs.asked import app_of, app_over, ask

EXAMPLES = 25
"""For each operation and each way of trying it."""

TOKEN = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"prom:secret").decode()}
USERS = {"prom": bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()}


class Tried(NamedTuple):
    """What schemathesis found, and the operations and statuses that it got to see."""

    findings: list[str]
    seen: set[tuple[str, str, int]]


def tried(app: ASGIApp, headers: Mapping[str, str], **parameters: str) -> Tried:
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=dict(headers))
    schema.config.generation.update(max_examples=EXAMPLES, deterministic=True)
    schema.config.update(headers=dict(headers), parameters=dict(parameters))
    findings: list[str] = []
    seen: set[tuple[str, str, int]] = set()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            findings.append(repr(vars(event)))
        if isinstance(event, events.ScenarioFinished):
            findings += _findings(event)
            seen |= _seen(event)
    return Tried(findings, seen)


def _findings(event: events.ScenarioFinished) -> list[str]:
    checks = (check for checks in event.recorder.checks.values() for check in checks)
    return [f"{c.failure_info.failure} {c.failure_info.code_sample}" for c in checks if c.failure_info is not None]


def _seen(event: events.ScenarioFinished) -> set[tuple[str, str, int]]:
    cases = {id_: event.recorder.cases[id_].value for id_ in event.recorder.interactions}
    answers = {id_: interaction.response for id_, interaction in event.recorder.interactions.items()}
    return {(case.method, case.path, answer.status_code) for id_, case in cases.items() if (answer := answers[id_]) is not None}


def served(**more: Any) -> ASGIApp:
    """An app over ten runs, of which half go on, and the others can be forgotten."""
    runs = {f"r{n}": make.snapshot(100.0, run=make.identity(f"r{n}"), state="running" if n % 2 else "ended") for n in range(10)}
    return app_over(
        lambda: tuple(runs.values()), compression=True, forget=lambda run_id: runs.pop(run_id, None) is not None, **more
    )


def behind_doors(**settings: Any) -> ASGIApp:
    config = WebConfig(users=USERS, **settings)
    return Doors(served(write_token=lambda: TOKEN), lambda: config, refused=lambda _: None)


RUN = "/api/v1/runs/{run_id}"

SITUATIONS: dict[str, tuple[Callable[[], ASGIApp], Mapping[str, str], set[tuple[str, str, int]]]] = {
    "without a token": (
        served,
        {},
        {
            ("GET", "/api/v1/runs", 200),
            ("GET", "/api/v1/runs", 304),
            ("GET", "/api/v1/runs", 400),
            ("GET", RUN, 200),
            ("GET", RUN, 404),
            ("HEAD", "/api/v1/openapi.json", 200),
            ("DELETE", RUN, 403),
            ("POST", RUN, 405),
        },
    ),
    "with the token": (
        lambda: served(write_token=lambda: TOKEN),
        BEARER,
        {("DELETE", RUN, status) for status in (204, 401, 404, 409)},
    ),
    "with a password": (
        behind_doors,
        {**BASIC, api.TOKEN_HEADER: TOKEN},
        {("GET", RUN, 200), ("DELETE", RUN, 204), ("DELETE", RUN, 409)},
    ),
    "more than the rate limit": (
        lambda: behind_doors(rate_limit=RateLimit(interval=0.01, burst=3)),
        BASIC,
        {("GET", "/api/v1/runs", 200), ("GET", "/api/v1/runs", 429)},
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_schemathesis_finds_nothing(situation: str) -> None:
    app, headers, expected = SITUATIONS[situation]
    found = tried(app(), headers)
    assert found.findings == []
    assert expected <= found.seen


def hostile() -> list[Snapshot]:
    """Names that want to break out, and figures that no sensor has shown."""
    nan, infinite = float("nan"), float("inf")
    name = '"}<script>\u202e\ud800\x00/..%2F'
    strange = make.identity(f"strange{name}", name, project_name=name, started_unix=infinite)
    impossible = make.snapshot(10.0, run=make.identity("impossible", name, started_unix=nan))
    return [
        make.snapshot(10.0, run=strange, state="lost"),
        replace(
            impossible,
            attempt=replace(impossible.attempt, total=Footprint(nan, infinite, -infinite, nan)),
            progress=impossible.progress._replace(loss=nan, ratio=infinite, steps=10**400),
            budgets=(BudgetStatus("carbon", 0.0, nan),),
        ),
    ]


@pytest.mark.parametrize("run_id", [snapshot.identity.run_id for snapshot in hostile()], ids=["strange", "impossible"])
def test_schemathesis_finds_nothing_in_runs_of_forged_journals(run_id: str) -> None:
    link = quote(run_id.encode("utf-8", "backslashreplace").decode(), safe="")
    found = tried(app_of(*hostile()), {}, **{"path.run_id": link})
    assert found.findings == []
    assert {("GET", "/api/v1/runs", 200), ("GET", RUN, 200)} <= found.seen


def test_the_description_is_valid_openapi_and_what_is_served() -> None:
    response = ask(app_of(), "/api/v1/openapi.json")
    assert response.json() == api.openapi()
    assert response.json()["openapi"] == "3.1.0"
    validate(api.openapi())


def test_every_field_that_is_not_named_for_itself_says_what_it_means() -> None:
    """Fields of the big models; units such as `joules` are their own explanation elsewhere."""
    for model in ("RunSummary", "RunDetail", "HostUsed"):
        named = api.openapi()["components"]["schemas"][model]["properties"]
        unsaid = [name for name, schema in named.items() if "description" not in schema and "$ref" not in str(schema)]
        assert set(unsaid) <= {"run_id", "project_name", "model_name", "experiment_name"}


def test_nothing_of_the_description_can_hold_a_token() -> None:
    assert TOKEN not in ask(served(write_token=lambda: TOKEN), "/api/v1/openapi.json").text
