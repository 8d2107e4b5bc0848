"""Telling systemd how a service is (sd_notify(3)). Without systemd nothing is said."""

import socket
from contextlib import suppress


class Supervisor:
    """Sends states to the socket that systemd names in NOTIFY_SOCKET; empty: to nobody.

    `watchdog_seconds` is how often systemd wants a sign of life; None where it does not.
    """

    def __init__(self, address: str, watchdog_seconds: float | None = None) -> None:
        # A name in the abstract namespace, which begins with a zero byte, is written with an @.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds
        self._next_sign = 0.0

    def ready(self, status: str) -> None:
        """The service does its work now."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def alive(self, now: float) -> None:
        """The service goes round. Said three times within the watchdog's patience, since the machine may be slow."""
        if self._watchdog_seconds is not None and now >= self._next_sign:
            self._next_sign = now + self._watchdog_seconds / 3
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notified:
            notified.connect(self._address)
            notified.send(state.encode())


def _line(status: str) -> str:
    return " ".join(status.split())
