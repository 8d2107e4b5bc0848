"""The open connections of one server, and which of them has to go where there are too many."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from hf_eco2ai.outputs.limits import Limits, Refusal

if TYPE_CHECKING:
    from hf_eco2ai.outputs.connection import Connection


class Connections:
    """All of one server. `tls` gives the context for a new one, None for plain HTTP; `refused` hears who was sent away."""

    def __init__(self, limits: Limits, tls: Callable[[], ssl.SSLContext | None], refused: Callable[[Refusal], None]) -> None:
        self.limits = limits
        self.tls = tls
        self.refused = refused
        self.open: set[Connection] = set()
        self.are_ending = False
        self._answered = asyncio.Event()

    def admit(self, newcomer: "Connection") -> bool:
        """Whether there is room for it, if need be after another one had to go."""
        if len(self.open) >= self.limits.connections and not self._make_room(newcomer.loop.time()):
            return False
        self.open.add(newcomer)
        return True

    def leave(self, connection: "Connection") -> None:
        """It is closed."""
        self.open.discard(connection)
        self.look()

    def look(self) -> None:
        """Something has changed that `answered` may wait for."""
        if self.are_ending and not any(connection.is_busy for connection in self.open):
            self._answered.set()

    async def answered(self, seconds: float) -> None:
        """Wait until nobody is owed an answer, `seconds` at most. From now on a connection ends with its answer."""
        self.are_ending = True
        self.look()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._answered.wait(), seconds)

    def abort(self) -> None:
        """End all."""
        for connection in list(self.open):
            connection.abort()

    def _make_room(self, now: float) -> bool:
        idle = [(one.idle_since, id(one), one) for one in self.open if one.idle_since is not None]
        stalled = [(one.stalled_since, id(one), one) for one in self.open if one.stalled_since is not None]
        stalled = [entry for entry in stalled if now - entry[0] >= self.limits.stall_seconds]
        if not (idle or stalled):
            return False
        _, _, longest = min(idle or stalled)
        longest.refuse_silently("full", f"{self.limits.connections} connections are open")
        return True
