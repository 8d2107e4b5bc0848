"""HTTP basic authentication (RFC 7617) against bcrypt hashes, outside of the event loop and not more often than needed."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

MOST_WAITING = 16
"""Different credentials that may wait for their check; at bcrypt's cost of 10 that is a second."""

MOST_REMEMBERED = 1024
"""Verdicts of each kind that are kept. Wrong ones have their own place, so that guessing does not push out the right ones."""

MOST_BYTES = 72
"""bcrypt looks at no more of a password; older versions cut it silently."""

Verdict = Literal["right", "wrong", "busy"]


@dataclass(frozen=True)
class Credentials:
    """As a client has sent them."""

    user: bytes
    password: bytes = field(repr=False)


def parse_authorization(header: bytes) -> Credentials | None:
    """What an `Authorization` header says; None where it is not well-formed basic authentication."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(b" "), validate=True)
    except binascii.Error:
        return None
    user, colon, password = decoded.partition(b":")
    return Credentials(user, password) if colon else None


class PasswordCheck:
    """Says whether credentials are right. One check at a time on `worker`; a verdict is remembered under a keyed digest."""

    def __init__(self, users: Mapping[str, str], worker: Executor) -> None:
        self._hashes = {name.encode(): hashed.encode() for name, hashed in users.items()}
        self._decoys = sorted(self._hashes.values())
        self._worker = worker
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: dict[bytes, asyncio.Future[bool]] = {}

    async def verdict(self, credentials: Credentials) -> Verdict:
        """`busy` where too many others wait already. Who asks for the same at the same time shares one check."""
        if len(credentials.password) > MOST_BYTES:
            return "wrong"
        digest = self._digest(b"%d:" % len(credentials.user) + credentials.user + credentials.password)
        if digest in self._right:
            self._right.move_to_end(digest)
            return "right"
        if digest in self._wrong:
            self._wrong.move_to_end(digest)
            return "wrong"
        if digest not in self._waiting:
            if len(self._waiting) >= MOST_WAITING:
                return "busy"
            self._begin(digest, credentials)
        await asyncio.shield(self._waiting[digest])  # One who leaves does not end it for the others.
        return "right" if digest in self._right else "wrong"

    def _begin(self, digest: bytes, credentials: Credentials) -> None:
        known = self._hashes.get(credentials.user)
        hashed = self._decoy(credentials.user) if known is None else known
        check = asyncio.get_running_loop().run_in_executor(self._worker, _matches, credentials.password, hashed)
        self._waiting[digest] = check
        check.add_done_callback(partial(self._remember, digest, known is not None))

    def _remember(self, digest: bytes, is_known: bool, check: "asyncio.Future[bool]") -> None:
        del self._waiting[digest]
        if check.cancelled() or check.exception() is not None:
            return
        verdicts = self._right if is_known and check.result() else self._wrong
        verdicts[digest] = None
        if len(verdicts) > MOST_REMEMBERED:
            verdicts.popitem(last=False)

    def _decoy(self, user: bytes) -> bytes:
        """A hash for a user whom we do not know, always the same, so that the time a check takes tells nobody who is known."""
        return self._decoys[int.from_bytes(self._digest(user)[:8], "big") % len(self._decoys)]

    def _digest(self, content: bytes) -> bytes:
        return hmac.new(self._key, content, hashlib.sha256).digest()


def _matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # noqa: PLC0415 - only who has users in a web config has bcrypt

    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:  # Some versions take no NUL.
        return False
