"""Stand-ins on loopback for what takes alerts: Slack, PagerDuty, Discord, a webhook, and a mail server."""

import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PAGERDUTY_KEY = "0123456789abcdef0123456789abcdef"
SMTP_USER, SMTP_PASSWORD = "eco2ai", "a password for mail"
HTTP = ("slack", "pagerduty", "discord", "webhook")
ALL = (*HTTP, "email")

_ANSWERS = {
    "slack": (HTTPStatus.OK, "ok"),
    "discord": (HTTPStatus.NO_CONTENT, ""),
    "webhook": (HTTPStatus.OK, ""),
}
"""As those services answer what they take."""


class Receivers:
    """What each of them has got."""

    def __init__(self) -> None:
        self.port = 0
        self.smtp_port = 0
        self._lock = Lock()
        self._got: dict[str, list[Any]] = {name: [] for name in ALL}
        self._refusing: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def url(self, name: str) -> str:
        """Of a stand-in that speaks HTTP."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def got(self, name: str, word: str = "") -> list[Any]:
        """Taken messages in which a word is, the oldest first: JSON, or mails."""
        with self._lock:
            return [message for message in self._got[name] if word in written(message)]

    def clear(self) -> None:
        """Forget what came."""
        with self._lock:
            for messages in self._got.values():
                messages.clear()

    def refuse(self, times: int) -> None:
        """Each of them answers the next so many attempts with 503, or 451 to mail."""
        with self._lock:
            self._refused.clear()
            self._refusing.update(dict.fromkeys(self._got, times))

    def refused(self, name: str) -> int:
        """Attempts that were."""
        with self._lock:
            return self._refused[name]

    def refuses(self, name: str) -> bool:
        """Whether this attempt is refused."""
        with self._lock:
            refuses = self._refusing[name] > 0
            self._refusing[name] -= refuses
            self._refused[name] += refuses
            return refuses

    def take(self, name: str, message: Any) -> None:
        """Keep it."""
        with self._lock:
            self._got[name].append(message)


class _Mail:
    """aiosmtpd's handler. 0.25 loses a mail that is refused after its body, so it is refused before."""

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers

    async def handle_RCPT(self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: Any) -> str:  # noqa: N802
        if not session.authenticated:
            return "530 who are you?"
        if not envelope.rcpt_tos and self._receivers.refuses("email"):
            return "451 busy"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        message["X-Recipients"] = ", ".join(envelope.rcpt_tos)
        self._receivers.take("email", message)
        return "250 OK"


def _authenticated(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (SMTP_USER.encode(), SMTP_PASSWORD.encode())
    return AuthResult(success=known, handled=False)  # Or a wrong one gets no answer at all.


def _request_handler(receivers: Receivers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = self.path.removeprefix("/")
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if receivers.refuses(name):
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "busy")
                return
            receivers.take(name, message)
            self._answer(*(_ANSWERS.get(name) or _events(message)))

        def _answer(self, status: HTTPStatus, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing on the screen."""

    return Handler


def _events(message: dict[str, Any]) -> tuple[HTTPStatus, str]:
    """PagerDuty's Events API v2."""
    if message["routing_key"] != PAGERDUTY_KEY:
        return HTTPStatus.BAD_REQUEST, '{"status": "invalid event"}'
    answer = {"status": "success", "message": "Event processed", "dedup_key": message["dedup_key"]}
    return HTTPStatus.ACCEPTED, json.dumps(answer)


@contextmanager
def receivers() -> Iterator[Receivers]:
    """All five, listening."""
    made = Receivers()
    web = ThreadingHTTPServer(("127.0.0.1", 0), _request_handler(made))
    serving = Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
    mail = Controller(
        _Mail(made),
        hostname="127.0.0.1",
        port=_free_port(),  # Where it is told 0, it looks for itself on 0.
        authenticator=_authenticated,
        auth_require_tls=False,
        auth_exclude_mechanism=["LOGIN"],  # Alertmanager knows other prompts than aiosmtpd's.
    )
    serving.start()
    mail.start()
    try:
        made.port = web.server_address[1]
        made.smtp_port = mail.port
        yield made
    finally:
        mail.stop()
        web.shutdown()
        web.server_close()
        serving.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def written(message: Any) -> str:
    """A message as one text."""
    if isinstance(message, EmailMessage):
        return f"{message['Subject']}\n{part(message, 'plain')}\n{part(message, 'html')}"
    return json.dumps(message, ensure_ascii=False)


def part(mail: EmailMessage, kind: str) -> str:
    """A part of a mail, `plain` or `html`."""
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")
