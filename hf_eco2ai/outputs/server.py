"""Serves the app from a thread of the training process, and leaves nothing behind."""

import asyncio
import errno
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Sequence

import psutil

from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.records import Failure, Snapshot

logger = logging.getLogger("hf_eco2ai")

PORTS_TO_TRY = 50
"""So many runs may live on one host before a port must be set by hand."""

STOP_SECONDS = 1.0

KEEP_ALIVE_SECONDS = 90
"""Longer than scrape intervals are, so that Prometheus need not connect anew each time; uvicorn's default is 5 s."""

ANSWER_SECONDS = 0.05
"""A scrape that is under way when the run ends has so long to be answered; it takes 5 ms."""

_open_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked DataLoader worker inherits the listening socket and would keep the port taken after we are gone."""
    for listener in list(_open_sockets):
        listener.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class Endpoint:
    """The HTTP endpoint of one run: binds at once, serves from its own thread.

    Where the port is taken it tries the next ones, and says which it got and by whom the first is taken. `url` is None where
    none could be had; training goes on without an endpoint. `fail` gets what went wrong.
    """

    def __init__(
        self,
        host: str,
        port: int,
        snapshots: Callable[[], Sequence[Snapshot]],
        rules: LabelRules,
        *,
        compression: bool,
        fail: Callable[[Failure], None],
    ) -> None:
        self._snapshots = snapshots
        self._rules = rules
        self._compression = compression
        self._fail = fail
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested: asyncio.Event | None = None
        self._stopping = False
        self._socket = self._bind(host, port)
        self.url = None if self._socket is None else _url(self._socket)
        self._thread = threading.Thread(target=self._serve, args=(self._socket,), name="hf_eco2ai-endpoint", daemon=True)
        if self._socket is not None:
            _open_sockets.add(self._socket)
            self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered, close the port and end the thread. Waits a second at most."""
        self._stopping = True
        if self._loop is not None and self._stop_requested is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop_requested.set)
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _bind(self, host: str, port: int) -> socket.socket | None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            what = f"prometheus_host: {host!r} is not an address of this machine ({error}). The run is measured without /metrics."
            self._fail(Failure("endpoint_failed", f"resolve {host}", what))
            return None
        candidates = [port] if port == 0 else [p for p in range(port, port + PORTS_TO_TRY) if p <= 65535]  # noqa: PLR2004
        for candidate in candidates:
            listener = socket.socket(family, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address[0], candidate, *address[2:]))
                listener.listen()
            except OSError as error:
                listener.close()
                if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                    what = (
                        f"prometheus_host: cannot listen on {host}:{candidate} ({error}). The run is measured without /metrics."
                    )
                    self._fail(Failure("endpoint_failed", f"bind {host}", what))
                    return None
                continue
            if port not in {0, candidate}:
                self._say_port_taken(port, candidate)
            return listener
        self._say_port_taken(port, None)
        return None

    def _say_port_taken(self, port: int, instead: int | None) -> None:
        holder = _holder(port)
        taken = f"port {port} is taken{' by ' + holder if holder else ''}"
        if instead is None:
            what = f"{taken}, and so are those after it: no /metrics for this run. Set prometheus_port to a free one."
        else:
            what = f"{taken}: /metrics of this run is on port {instead}. Set prometheus_port to choose another."
        self._fail(Failure("port_taken", f"port {port}", what[0].upper() + what[1:]))

    def _serve(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve_until_stopped(listener))
        except Exception as error:  # noqa: BLE001 - the HTTP stack is foreign, and it must not take training with it
            what = f"The /metrics endpoint broke: {error!r}. The run is still measured."
            self._fail(Failure("endpoint_failed", f"endpoint {type(error).__name__}", what))
        finally:
            listener.close()

    async def _serve_until_stopped(self, listener: socket.socket) -> None:
        # The HTTP stack is imported here, in the endpoint's own thread, so that training does not wait for it.
        import uvicorn  # noqa: PLC0415

        from hf_eco2ai.outputs.app import build_app  # noqa: PLC0415

        self._loop, self._stop_requested = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping:
            return
        app = build_app(self._snapshots, self._rules, compression=self._compression)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        stop_requested, loop = self._stop_requested, self._loop

        async def wait_for_stop() -> None:
            # In place of uvicorn's own loop, which wakes ten times a second to look whether it should end.
            await stop_requested.wait()
            # asyncio leaks a connection that it accepts in the very moment of closing, so first stop accepting, then close.
            loop.remove_reader(listener.fileno())
            await asyncio.sleep(ANSWER_SECONDS)
            # Whoever has not taken his answer by now would hold up the end of training.
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

        server.main_loop = wait_for_stop
        quiet = _Quiet()
        logging.getLogger("uvicorn.error").addFilter(quiet)
        try:
            await server.serve(sockets=[listener])
        finally:
            logging.getLogger("uvicorn.error").removeFilter(quiet)


class _Quiet(logging.Filter):
    """Keeps uvicorn's notices about our endpoint to itself, and lets those about the application's own uvicorn through."""

    def __init__(self) -> None:
        super().__init__()
        self._thread_id = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let the record through."""
        return record.thread != self._thread_id or record.levelno >= logging.ERROR


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _holder(port: int) -> str:
    """The process that listens on a port, where we may know it; empty otherwise."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""
