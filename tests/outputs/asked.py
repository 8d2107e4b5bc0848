"""Requests to an app without a server between."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from starlette.types import ASGIApp

from hf_eco2ai.outputs.app import build_app
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.records import Snapshot


def app_of(*snapshots: Snapshot, compression: bool = False, **more: Any) -> ASGIApp:
    """The app over these."""
    return app_over(lambda: snapshots, compression=compression, **more)


def app_over(snapshots: Callable[[], Sequence[Snapshot]], *, compression: bool = False, **more: Any) -> ASGIApp:
    """The app over what that returns."""
    return build_app(snapshots, Exposition(snapshots, LabelRules()), compression=compression, **more)


def ask(app: ASGIApp, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """A response. Underscores in the names of headers are dashes; without them nothing is said of what is accepted."""
    return asyncio.run(
        _ask(app, path, method, {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()})
    )


async def _ask(app: ASGIApp, path: str, method: str, headers: dict[bytes, bytes]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        client.headers.clear()
        return await client.request(method, path, headers=list(headers.items()))
