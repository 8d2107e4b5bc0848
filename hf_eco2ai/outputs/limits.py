"""What clients may cost us."""

from dataclasses import dataclass
from typing import Literal

PEER_CERTIFICATE = "hf_eco2ai.peer_certificate"
"""Extension of a request's scope: what `ssl.SSLSocket.getpeercert()` says of the client; None without TLS or certificate."""


@dataclass(frozen=True)
class Limits:
    """How much of our memory, files and time clients may take, so that no number of bad ones keeps out a Prometheus."""

    connections: int = 512
    """Open at once. For one more, who has asked nothing for longest has to go, or who takes nothing of an answer."""
    header_seconds: float = 10.0
    """From connecting, or from the first byte of a later request, to a whole request. For a TLS handshake as well."""
    header_bytes: int = 16_384
    body_bytes: int = 65_536
    """Of a request."""
    keep_alive_seconds: float = 90.0
    """Longer than scrape intervals are, so that Prometheus need not connect anew each time; uvicorn's default is 5 s."""
    requests: int = 40
    """Scrapes answered at once. Others wait for their turn."""
    send_seconds: float = 30.0
    """A response has to be taken by then."""
    stall_seconds: float = 1.0
    """Who has taken nothing for so long makes room for whoever waits."""


RefusalReason = Literal["tls", "slow", "full", "too_large", "malformed"]


@dataclass(frozen=True)
class Refusal:
    """A client that was sent away before the app has seen its request."""

    client: str
    """Its address."""
    reason: RefusalReason
    detail: str
