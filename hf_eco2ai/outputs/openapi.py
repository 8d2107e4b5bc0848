"""The OpenAPI description of the API: paths by hand, schemas from the models. Imported when it is first asked for."""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from hf_eco2ai.outputs.answer import PROBLEM, VARY
from hf_eco2ai.outputs.api import JSON, LIST_PARAMETERS, PREFIX, TOKEN_HEADER, Parameter
from hf_eco2ai.outputs.api_models import Problem, RunDetail, RunList
from hf_eco2ai.version import __version__

ABOUT = """What `hf-eco2ai` serves for programs: training runs with their energy, CO₂e and cost, and where each figure comes from.

Figures that are not known are null, never 0. `NaN` and infinities (a loss may be one) are strings, since JSON has none.
Errors are problem details (RFC 9457), those of the server's access rules included."""

_OF_THE_DOORS = {
    401: "The server has `basic_auth_users`, and the credentials are missing or wrong.",
    403: "The client's certificate does not allow this.",
    429: "More requests than the server's `rate_limit` allows.",
    503: "More requests at once than the server takes.",
}
"""What may come before a request reaches the API at all."""

_PROBLEMS = {
    400: "A query parameter is unknown, given twice, or not what it should be.",
    404: "No such run is served here.",
    406: "The Accept header rules out `application/json`.",
}


@cache
def description() -> dict[str, Any]:
    """The whole document. Not to be changed by whoever gets it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hf_eco2ai",
            "version": __version__,
            "summary": "Energy, CO₂e and cost of training runs",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "runs"}, {"name": "about"}],
        "security": [{}, {"basic": []}],
        "paths": {
            f"{PREFIX}/runs": _readable(_list()),
            f"{PREFIX}/runs/{{run_id}}": {**_readable(_detail()), "delete": _delete()},
            f"{PREFIX}/openapi.json": _readable(_about()),
        },
        "components": {
            "schemas": _schemas(),
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


class _Schemas(GenerateJsonSchema):
    """Without the titles that pydantic makes of names, which say nothing more."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Never."""
        return False


def _schemas() -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(model, "serialization") for model in (RunList, RunDetail, Problem)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


_HEADERS: dict[str, Any] = {
    "ETag": {"description": "Tells one version of the answer from another.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "Not to be taken from a cache unasked.", "schema": {"type": "string"}},
    "Vary": {"description": "What the answer depends on.", "schema": {"type": "string", "const": VARY}},
    "WWW-Authenticate": {"description": "How to show who one is.", "schema": {"type": "string"}},
    "Allow": {"description": "The methods of this path.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
}
_CACHED = ("ETag", "Cache-Control", "Vary")
_EXTRA_HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

_SECURITY: dict[str, Any] = {
    "basic": {"type": "http", "scheme": "basic", "description": "Of `basic_auth_users`, where the server has them."},
    "token": {"type": "http", "scheme": "bearer", "description": "The token of `--token-file`."},
    "tokenHeader": {
        "type": "apiKey",
        "in": "header",
        "name": TOKEN_HEADER,
        "description": "The same, where `Authorization` has to hold a password.",
    },
}


def _list() -> dict[str, Any]:
    return {
        "operationId": "listRuns",
        "tags": ["runs"],
        "summary": "Runs, the newest first",
        "parameters": [_parameter(parameter) for parameter in LIST_PARAMETERS],
        "responses": _answers("A page of runs.", {"$ref": "#/components/schemas/RunList"}, 400, 406),
    }


def _detail() -> dict[str, Any]:
    return {
        "operationId": "getRun",
        "tags": ["runs"],
        "summary": "Everything that is known of a run",
        "parameters": [_RUN_ID],
        "responses": _answers("The run.", {"$ref": "#/components/schemas/RunDetail"}, 400, 404, 406),
    }


def _about() -> dict[str, Any]:
    return {
        "operationId": "getDescription",
        "tags": ["about"],
        "summary": "This description",
        "parameters": [],
        "responses": _answers("OpenAPI 3.1.", {"type": "object"}, 400, 406),
    }


def _delete() -> dict[str, Any]:
    refusals = {
        401: "The token is missing or wrong.",
        403: "Deleting is not turned on (`--token-file`).",
        409: "The run has not ended.",
    }
    return {
        "operationId": "forgetRun",
        "tags": ["runs"],
        "summary": "Stop serving a run that is over",
        "description": "Before the server's retention ends. Its journal stays.",
        "security": [{"token": []}, {"tokenHeader": []}],
        "parameters": [_RUN_ID],
        "responses": {"204": {"description": "It is served no more."}, **_problems({**refusals, **_some(400, 404)})},
    }


def _readable(operation: dict[str, Any]) -> dict[str, Any]:
    """GET, and HEAD, whose answers are the same without a body."""
    responses = {status: {k: v for k, v in said.items() if k != "content"} for status, said in operation["responses"].items()}
    operation = {**operation, "parameters": [*operation["parameters"], _IF_NONE_MATCH]}
    head = {**operation, "operationId": f"{operation['operationId']}Head", "responses": responses}
    return {"get": operation, "head": {**head, "summary": f"{operation['summary']}: only the headers"}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags of answers that the client has, or `*`.",
    "schema": {"type": "string"},
}
_RUN_ID = {
    "name": "run_id",
    "in": "path",
    "required": True,
    "description": "Its id.",
    "schema": {"type": "string", "minLength": 1},
}


def _answers(about: str, schema: Mapping[str, Any], *problems: int) -> dict[str, Any]:
    return {
        "200": {"description": about, "headers": _headers(*_CACHED), "content": {JSON: {"schema": dict(schema)}}},
        "304": {"description": "As the client has it already (If-None-Match).", "headers": _headers(*_CACHED)},
        **_problems(_some(*problems)),
    }


def _some(*statuses: int) -> dict[int, str]:
    return {status: _PROBLEMS[status] for status in statuses}


def _problems(own: Mapping[int, str]) -> dict[str, Any]:
    """Of the API and of what stands before it, by status."""
    everything = {
        status: " ".join(said[status] for said in (own, _OF_THE_DOORS) if status in said) for status in {*own, *_OF_THE_DOORS}
    }
    return {str(status): _problem(status, everything[status]) for status in sorted(everything)}


def _problem(status: int, about: str) -> dict[str, Any]:
    extra = [_EXTRA_HEADERS[status]] if status in _EXTRA_HEADERS else []
    return {
        "description": f"{HTTPStatus(status).phrase}. {about}",
        "headers": _headers("Cache-Control", *extra),
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
