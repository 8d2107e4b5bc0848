"""Serves an app from a thread of its own: a daemon's, or that of a training process, where it leaves nothing behind."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any

import psutil

from hf_eco2ai.errors import ConfigError, TakenError
from hf_eco2ai.outputs.limits import Limits, Refusal
from hf_eco2ai.records import Failure

logger = logging.getLogger("hf_eco2ai")

PORTS_TO_TRY = 50
"""So many runs may live on one host before a port must be set by hand."""

STOP_SECONDS = 1.0

ANSWER_SECONDS = 0.05
"""A scrape that is under way when the run ends has so long to be answered; it takes 5 ms."""

BACKLOG = 128
"""Connections that the kernel keeps for us. We take as many at once, so by so many `Limits.connections` may be exceeded."""

_open_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked DataLoader worker inherits the listening socket and would keep the port taken after we are gone."""
    for listener in list(_open_sockets):
        listener.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there, for a daemon. Raises `ConfigError` that names the option to change."""
    try:
        return _listen(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holder = holder_of(port)
            taken = f"by {holder}: stop that" if holder else "by another process: stop that"
            raise TakenError(f"Port {port} is taken {taken}, or choose another with --port.") from error
        if error.errno == errno.EACCES:
            raise ConfigError(f"Port {port} may not be opened by this user: choose one above 1023 with --port.") from error
        what = f"{host!r} is not an address of this machine ({error.strerror}): choose another with --host."
        raise ConfigError(what) from error


def bind_near(host: str, port: int, fail: Callable[[Failure], None], ports_to_try: int = PORTS_TO_TRY) -> socket.socket | None:
    """A socket that listens at the port or, where that is taken, at one of the next ones; for a training.

    `fail` is told which one it is instead, and by whom the first is taken. None where there is none to be had; training goes on
    without an endpoint.
    """
    for candidate in [port] if port == 0 else range(port, min(port + ports_to_try, 65536)):
        try:
            listener = _listen(host, candidate)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                continue
            what = f"prometheus_host: cannot listen on {host}:{candidate} ({error}). The run is measured without /metrics."
            fail(Failure("endpoint_failed", f"bind {host}", what))
            return None
        if candidate != port:
            fail(
                _port_taken(
                    port, f"/metrics of this run is on port {listener.getsockname()[1]}. Set prometheus_port to choose another."
                )
            )
        return listener
    fail(_port_taken(port, "so are those after it, and this run has no /metrics. Set prometheus_port to a free one."))
    return None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except UnicodeError as error:  # A name with a part of more than 63 letters.
        raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _port_taken(port: int, instead: str) -> Failure:
    holder = holder_of(port)
    return Failure("port_taken", f"port {port}", f"Port {port} is taken{' by ' + holder if holder else ''}: {instead}")


def holder_of(port: int) -> str:
    """The process that listens on a port, where we may know it; empty otherwise."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""


class Endpoint:
    """An HTTP endpoint on a listening socket, served from its own thread, where `app` is called to make the ASGI app.

    `url` is None without a socket. `fail` gets what went wrong; `refused`, called in the endpoint's thread, who was sent away
    before the app has seen a request. `tls` is asked with each connection for the context, and has to answer from memory; None
    is plain HTTP.
    """

    def __init__(
        self,
        listener: socket.socket | None,
        app: Callable[[], Any],
        *,
        fail: Callable[[Failure], None],
        limits: Limits | None = None,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        refused: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._fail = fail
        self._limits = limits or Limits()
        self._tls = tls
        self._refused = refused
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested: asyncio.Event | None = None
        self._stopping = False
        self._grace = ANSWER_SECONDS
        self._address = None if listener is None else _address(listener)
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="hf_eco2ai-endpoint", daemon=True)
        if listener is not None:
            _open_sockets.add(listener)
            self._thread.start()

    @property
    def url(self) -> str | None:
        """Where it is served, without a slash at the end."""
        return None if self._address is None else f"{'http' if self._tls() is None else 'https'}://{self._address}"

    def stop(self, grace: float = ANSWER_SECONDS) -> None:
        """Finish what is being answered, in `grace` seconds, close the port and end the thread. Waits a second longer at most."""
        self._grace = grace
        self._stopping = True
        if self._loop is not None and self._stop_requested is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop_requested.set)
        if self._thread.is_alive():
            self._thread.join(grace + STOP_SECONDS)

    def _serve(self, listener: socket.socket) -> None:
        quiet = _Quiet()
        logging.getLogger("uvicorn.error").addFilter(quiet)
        try:
            asyncio.run(self._serve_until_stopped(listener))
        except Exception as error:  # noqa: BLE001 - the HTTP stack is foreign, and it must not take training with it
            what = f"The /metrics endpoint broke: {error!r}. What is measured is not affected."
            self._fail(Failure("endpoint_failed", f"endpoint {type(error).__name__}", what))
        finally:
            logging.getLogger("uvicorn.error").removeFilter(quiet)
            listener.close()

    async def _serve_until_stopped(self, listener: socket.socket) -> None:
        # The HTTP stack is imported here, in the endpoint's own thread, so that training does not wait for it.
        import uvicorn  # noqa: PLC0415
        from uvicorn.server import ServerState  # noqa: PLC0415

        from hf_eco2ai.outputs.connection import Connection  # noqa: PLC0415
        from hf_eco2ai.outputs.connections import Connections  # noqa: PLC0415

        loop = self._loop = asyncio.get_running_loop()
        self._stop_requested = asyncio.Event()
        if self._stopping:
            return
        # Of uvicorn we take the protocol. Its server looks ten times a second whether it should end.
        config = uvicorn.Config(
            self._app(),
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,  # Anybody on this machine could claim to come from elsewhere.
            h11_max_incomplete_event_size=self._limits.header_bytes,
            timeout_keep_alive=self._limits.keep_alive_seconds,
        )
        config.load()
        state = ServerState()
        connections = Connections(self._limits, self._tls, self._refused)

        def connect() -> asyncio.Protocol:
            connection: asyncio.Protocol = Connection(connections, config=config, server_state=state, app_state={})
            return connection

        server = await loop.create_server(connect, sock=listener, backlog=BACKLOG)
        await self._stop_requested.wait()
        # asyncio leaks a connection that it accepts in the very moment of closing, so first stop accepting, then close.
        loop.remove_reader(listener.fileno())
        await asyncio.sleep(min(self._grace, ANSWER_SECONDS))
        await connections.answered(self._grace - ANSWER_SECONDS)
        # Whoever has not taken his answer by now would hold up the end of training.
        connections.abort()
        for _ in range(3):  # TLS takes so many rounds to notice.
            await asyncio.sleep(0)
        server.close()


class _Quiet(logging.Filter):
    """Keeps uvicorn's notices about our endpoint to itself, and lets those about the application's own uvicorn through."""

    def __init__(self) -> None:
        super().__init__()
        self._thread_id = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let the record through."""
        return record.thread != self._thread_id or record.levelno >= logging.ERROR


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
