"""An endpoint over real sockets, and clients that are slow, rude or mistaken."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hf_eco2ai.outputs.limits import Limits, Refusal
from hf_eco2ai.outputs.server import Endpoint, bind
from hf_eco2ai.records import Failure

SECONDS = 20.0
"""In which everything here happens even on a slow machine; what waits so long has failed."""


class Served:
    """An endpoint and what it has said."""

    def __init__(self, endpoint: Endpoint, port: int) -> None:
        self.endpoint = endpoint
        self.port = port
        self.failures: list[Failure] = []
        self.refusals: list[Refusal] = []

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        """A client that has connected."""
        client = socket.socket()
        client.settimeout(SECONDS)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        return client

    def reasons(self, count: int = 1) -> list[str]:
        """Why clients were refused, once there are so many."""
        until(lambda: len(self.refusals) >= count)
        return [refusal.reason for refusal in self.refusals]


@contextmanager
def serve(
    app: Callable[[], Any], limits: Limits | None = None, tls: Callable[[], ssl.SSLContext | None] = lambda: None
) -> Iterator[Served]:
    """An endpoint on a free port, which must not have failed by its end."""
    listener = bind("127.0.0.1", 0)
    failures: list[Failure] = []
    refusals: list[Refusal] = []
    port = listener.getsockname()[1]
    endpoint = Endpoint(listener, app, fail=failures.append, limits=limits, tls=tls, refused=refusals.append)
    served = Served(endpoint, port)
    served.failures, served.refusals = failures, refusals
    try:
        yield served
    finally:
        endpoint.stop()
    assert failures == []


def until(holds: Callable[[], bool]) -> None:
    """Wait until it does."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def request(path: str = "/", method: str = "GET", **headers: str) -> bytes:
    """As it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: here",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def ended(client: socket.socket) -> bool:
    """Whether the server has ended the connection, by FIN or by RST; reads what comes before."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def response(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next one, by its Content-Length."""
    came = b""
    while b"\r\n\r\n" not in came:
        more = client.recv(65536)
        assert more, came
        came += more
    head, _, body = came.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    parts = [body]
    missing = int(headers.get("content-length", "0")) - len(body)
    while missing > 0:
        parts.append(client.recv(min(missing, 1 << 20)))
        assert parts[-1]
        missing -= len(parts[-1])
    return int(first.split()[1]), headers, b"".join(parts)
