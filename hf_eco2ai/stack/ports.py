"""Ports of 127.0.0.1 for the servers."""

import socket
from collections.abc import Collection

from hf_eco2ai.errors import TakenError

LOOPBACK = "127.0.0.1"
_TRIES = 50
"""As many as a run tries for its own endpoint (outputs/server.py); several people's stacks may be on one login node."""


def choose(name: str, usual: int, asked: int | None, others: Collection[int]) -> int:
    """The port that is asked for; otherwise the usual one or, where that is taken, the next free one.

    Raises:
        TakenError: the one that is asked for is taken, or there is none to be had.

    """
    if asked is not None:
        if asked in others or not is_free(asked):
            raise TakenError(f"Port {asked} is taken: choose another with --{name}-port, or leave it out for the next free one.")
        return asked
    for port in range(usual, min(usual + _TRIES, 1 << 16)):
        if port not in others and is_free(port):
            return port
    raise TakenError(f"Port {usual} and the {_TRIES} after it are taken: choose a free one with --{name}-port.")


def is_free(port: int) -> bool:
    """Whether a server may listen there now. What a server that has just ended has left behind there does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError:
            return False
    return True
