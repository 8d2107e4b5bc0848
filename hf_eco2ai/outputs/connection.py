"""One HTTP connection, which costs no more than `Limits` allow. uvicorn waits for ever for a client that says nothing."""

import asyncio
import http
import socket
import ssl
import sys
from contextlib import suppress
from typing import Any

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hf_eco2ai.outputs.connections import Connections
from hf_eco2ai.outputs.limits import PEER_CERTIFICATE, Refusal, RefusalReason

WRITE_BUFFER = 32_768
"""Bytes that wait for the client above which the app has to wait too; a chunk of an exposition is twice that."""

SOCKET_BUFFER = 262_144
"""For the same in the kernel, which would take 4 MB from us for each client that does not read. Enough for 10 MB/s at 25 ms."""

_TOO_LONG = 431

LINGER_SECONDS = 1.0
"""Who is refused has so long to stop talking. Closed at once, the kernel would throw away what we have said."""

ABORT = "hf_eco2ai.abort"
"""Scope extension: a function that ends the connection at once."""
IS_LOST = "hf_eco2ai.is_lost"
"""Scope extension: a function that says whether the client is gone. To be asked between pieces; each could cost a warning."""


class Connection(H11Protocol):  # type: ignore[misc] # uvicorn is seen as untyped
    """uvicorn's, with limits. The app sees a request when it is whole, so that no app has to wait for a slow client.

    The TLS context is asked for with each connection, so that a new certificate needs neither a restart nor a new socket.
    """

    app: Any

    def __init__(self, connections: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.access_log = False
        self.idle_since: float | None = self.loop.time()
        """Since when nothing is being answered."""
        self.stalled_since: float | None = None
        """Since when the client takes nothing of what waits for it."""
        self._connections = connections
        self._limits = connections.limits
        self._app, self.app = self.app, self._answer
        self._socket_transport: asyncio.Transport | None = None  # Under TLS, `transport` is another.
        self._before_tls = b""
        self._securing: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._between_requests = False
        self._refused = False

    @property
    def is_busy(self) -> bool:
        """Whether the client is owed an answer, or a part of one."""
        return self.idle_since is None or not self._is_flushed()

    def is_lost(self) -> bool:
        """Whether what is said from now on reaches nobody; `connection_lost` is a round of the event loop later."""
        return self._socket_transport is None or self._socket_transport.is_closing()

    def abort(self) -> None:
        """End it at once, whatever is still to be sent."""
        self._relax()
        self._connections.open.discard(self)
        if self._socket_transport is not None:
            self._socket_transport.abort()

    def refuse_silently(self, reason: RefusalReason, detail: str) -> None:
        """Send the client away without a word; it would not listen."""
        self._say_refused(reason, detail)
        self.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin, or refuse where there is no room."""
        self._socket_transport = transport
        if not self._connections.admit(self):
            self._say_refused("full", f"{self._limits.connections} connections are being answered")
            transport.write(_refusal(503, "All connections are in use: try again in a second.", "Retry-After: 1\r\n"))
            transport.close()
            return
        self._expect(self._limits.header_seconds)
        transport.set_write_buffer_limits(WRITE_BUFFER)
        with suppress(OSError):  # The client has left already.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        context = self._connections.tls()
        if context is None:
            super().connection_made(transport)
        else:
            self._securing = self.loop.create_task(self._secure(transport, context))

    async def _secure(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await self.loop.start_tls(transport, self, context, server_side=True)
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                from hf_eco2ai.outputs.tls import refusal_reason  # noqa: PLC0415 - pydantic's models, only where there is TLS

                self._say_refused("tls", refusal_reason(error))
            self.abort()
            return
        if secured is None or transport.is_closing():
            self.abort()
            return
        secured.set_write_buffer_limits(WRITE_BUFFER)
        self._expect(self._limits.header_seconds)
        super().connection_made(secured)
        early, self._before_tls = self._before_tls, b""
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        if self.transport is None:
            self._before_tls += data  # Arrived together with the end of the handshake, before we were told that it has ended.
            return
        if self._refused:
            return
        self._begin_request()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, for whatever reason."""
        self._relax()
        self._unset_keepalive_if_required()
        self._connections.leave(self)
        if self._socket_transport is not None:
            # A forked child, a DataLoader's worker, has inherited the descriptor: our closing alone would not tell the client.
            with suppress(OSError):
                self._socket_transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        if self.transport is not None:
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self.stalled_since = None
        super().resume_writing()
        self._connections.look()

    # uvicorn's

    def on_response_complete(self) -> None:
        """All of an answer is on its way."""
        self.idle_since = self.loop.time()
        self._between_requests = True
        if self._connections.are_ending:
            self.transport.close()
        if self._is_resting():
            self._relax()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """No further request has come."""
        self._expect(LINGER_SECONDS)  # A TLS connection is closed only when the other side has agreed.
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What came is no HTTP, or has too long headers."""
        error = sys.exc_info()[1]  # uvicorn calls this where it has caught it, and does not say which.
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        # Not what h11 says: that quotes the line, which may hold a password, and be as long as one likes.
        too_long = f"The head of a request may have {self._limits.header_bytes} bytes, not more."
        self._refuse(status, "malformed", too_long if status == _TOO_LONG else "This is no request in HTTP/1.1.")

    # Deadlines: one runs while we wait for the client, to ask or to take its answer.

    def _expect(self, seconds: float) -> None:
        self._relax()
        self._deadline = self.loop.call_later(seconds, self._overdue)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        self._deadline = None
        if self._is_resting():
            return
        if not self._refused:
            self._say_refused("slow", "has not taken its answer" if self.idle_since is None else "has sent no whole request")
        self.abort()

    def _begin_request(self) -> None:
        if self._between_requests:
            self._between_requests = False
            self._expect(self._limits.header_seconds)

    def _is_resting(self) -> bool:
        return self._between_requests and self._is_flushed() and not self.transport.is_closing()

    def _is_flushed(self) -> bool:
        """Whether the kernel has all we have said. TLS holds nothing back while the transport below takes it."""
        return self._socket_transport is None or self._socket_transport.get_write_buffer_size() == 0

    # The app's side

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._begin_request()  # One that came together with the one before.
        cycle = self.cycle
        body = await self._whole_body(scope, receive)
        if body is None:
            return
        self._relax()
        self.idle_since = None
        scope["extensions"] = {
            PEER_CERTIFICATE: self.transport.get_extra_info("peercert") or None,
            ABORT: self.abort,
            IS_LOST: self.is_lost,
        }
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole() -> Message:
            return unread.pop() if unread else await receive()

        async def send_in_time(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._expect(self._limits.send_seconds)
            await send(message)

        with suppress(asyncio.CancelledError):  # The server ends; uvicorn would take that for a fault of the app.
            await self._app(scope, receive_whole, send_in_time)
        if self.is_lost():
            cycle.disconnected = True  # Now, not a round later, or uvicorn complains of an answer without end.

    async def _whole_body(self, scope: Scope, receive: Receive) -> bytes | None:
        """None where it is too large, or the client has gone."""
        if _head_bytes(scope) > self._limits.header_bytes:  # h11 looks only at those that come in more than one piece.
            self._refuse(431, "too_large", f"A request may have headers of {self._limits.header_bytes} bytes, not more.")
            return None
        if _content_length(scope) > self._limits.body_bytes:
            self._refuse_body()
            return None
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message["body"]
            more = message["more_body"]
            if len(body) > self._limits.body_bytes:
                self._refuse_body()
                return None
        return body

    # Refusing

    def _refuse_body(self) -> None:
        self._refuse(413, "too_large", f"A request may have a body of {self._limits.body_bytes} bytes, not more.")

    def _refuse(self, status: int, reason: RefusalReason, sentence: str) -> None:
        self._say_refused(reason, sentence)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                self.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._refused = True
        self.idle_since = self.loop.time()
        self._expect(LINGER_SECONDS)
        self.transport.write(_refusal(status, sentence))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _say_refused(self, reason: RefusalReason, detail: str) -> None:
        transport = self._socket_transport
        peer = None if transport is None else transport.get_extra_info("peername")
        self._connections.refused(Refusal(str(peer[0]) if peer else "", reason, detail))


def _refusal(status: int, sentence: str, headers: str = "") -> bytes:
    phrase, body = http.HTTPStatus(status).phrase, f"{sentence}\n".encode()
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _head_bytes(scope: Scope) -> int:
    lengths = (len(name) + len(value) for name, value in scope["headers"])
    return len(scope["raw_path"]) + len(scope["query_string"]) + sum(lengths)


def _content_length(scope: Scope) -> int:
    """What h11 has found to be a number; 0 where it is not said."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
