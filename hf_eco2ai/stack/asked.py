"""Servers on this machine, asked over HTTP. No proxy is asked, whatever the environment says."""

import http.client
import json
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

SECONDS = 5.0
"""So long is waited for an answer from this machine."""


def get(url: str, seconds: float = SECONDS) -> tuple[int, bytes] | None:
    """Status and body; None where nobody answers in HTTP."""
    parts = urlsplit(url)
    try:
        with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)) as connection:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
            answer = connection.getresponse()
            return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None


def answers(url: str, seconds: float = SECONDS) -> bool:
    """Whether it is there, and well."""
    answer = get(url, seconds)
    return answer is not None and answer[0] == http.client.OK


def ask(url: str) -> Any:
    """`data` of an answer of Prometheus' API; None where there is none."""
    answer = get(url)
    if answer is None or answer[0] != http.client.OK:
        return None
    try:
        return json.loads(answer[1])["data"]
    except (ValueError, KeyError, TypeError):
        return None
