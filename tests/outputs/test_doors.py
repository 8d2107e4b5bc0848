import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from hf_eco2ai.outputs.credentials import MOST_REMEMBERED, MOST_WAITING, Credentials, PasswordCheck, parse_authorization
from hf_eco2ai.outputs.doors import Doors, Refusal, TokenBucket
from hf_eco2ai.outputs.limits import PEER_CERTIFICATE
from hf_eco2ai.outputs.web_config import RateLimit, WebConfig

T = TypeVar("T")


def hash_of(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


USERS = {"prom": hash_of("right"), "jürgen": hash_of("pässword")}


class Held(Executor):
    """Does its work when it is told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Future[Any], Callable[[], Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        self.work.append((future, lambda: fn(*args, **kwargs), args))
        return future

    def release(self, result: bool | None = None) -> None:
        """With a result, that is it, and nothing is done."""
        for future, do, _ in self.work:
            if future.set_running_or_notify_cancel():
                future.set_result(do() if result is None else result)
        self.work.clear()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class App:
    """Says ok, with whatever headers it is told to."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self._headers = headers
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope.get("path", scope["type"]))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [*self._headers]})
            await send({"type": "http.response.body", "body": b"ok"})


class House:
    """Doors with an app behind them, a config that may change, and all refusals."""

    def __init__(self, config: WebConfig, *headers: tuple[bytes, bytes], worker: Executor | None = None) -> None:
        self.config = config
        self.time = 0.0
        self.refused: list[Refusal] = []
        self.app = App(*headers)
        self.doors = Doors(self.app, lambda: self.config, refused=self.refused.append, now=lambda: self.time, worker=worker)

    async def knock(
        self,
        path: str = "/metrics",
        *authorizations: bytes,
        method: str = "GET",
        certificate: Mapping[str, Any] | None = None,
        client: tuple[str, int] | None = ("192.0.2.7", 4711),
    ) -> Answer:
        headers = [(b"authorization", value) for value in authorizations]
        scope: Scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": client}
        scope["extensions"] = {PEER_CERTIFICATE: certificate}
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self.doors(scope, receive, send)
        start, *bodies = sent
        names = [name.decode() for name, _ in start["headers"]]
        assert len(names) == len({name.lower() for name in names})
        said = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], said, b"".join(body["body"] for body in bodies))

    def ask(self, path: str = "/metrics", *authorizations: bytes, **more: Any) -> Answer:
        return asyncio.run(self.knock(path, *authorizations, **more))


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


# Passwords


def test_who_knows_the_password_is_let_in() -> None:
    house = House(WebConfig(users=USERS))
    for header in (basic("prom", "right"), basic("jürgen", "pässword"), basic("prom", "right").replace(b"Basic ", b"bAsIc  ")):
        assert house.ask("/metrics", header).status == 200
    assert house.refused == []


@pytest.mark.parametrize(
    ("authorizations", "reason"),
    [
        ([], "no credentials"),
        ([b""], "malformed credentials"),
        ([b"Basic"], "malformed credentials"),
        ([b"Basic "], "malformed credentials"),
        ([b"Basic ???"], "malformed credentials"),
        ([b"Basic \xff\xfe"], "malformed credentials"),
        ([b"Basic " + base64.b64encode(b"no colon")], "malformed credentials"),
        ([b"Bearer " + base64.b64encode(b"prom:right")], "malformed credentials"),
        ([basic("prom", "right"), basic("prom", "right")], "malformed credentials"),
        ([basic("prom", "wrong")], "wrong credentials"),
        ([basic("prom", "")], "wrong credentials"),
        ([basic("PROM", "right")], "wrong credentials"),
        ([basic("nobody", "right")], "wrong credentials"),
        ([basic("prom", USERS["prom"])], "wrong credentials"),
        ([basic("prom", "right" + "x" * 100)], "wrong credentials"),
        ([basic("prom", "right\0")], "wrong credentials"),
        ([b"Basic " + base64.b64encode(b"j\xfcrgen:p\xe4ssword")], "wrong credentials"),  # Latin-1, and we have asked for UTF-8.
    ],
)
def test_everyone_else_is_asked_for_it(authorizations: list[bytes], reason: str) -> None:
    house = House(WebConfig(users=USERS))
    for _ in range(2):  # Also by the verdict that is remembered.
        answer = house.ask("/metrics", *authorizations)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="hf_eco2ai", charset="UTF-8"'
        assert answer.body.startswith(b"Unauthorized. ")
    assert house.refused == [Refusal(401, reason, "192.0.2.7", "/metrics")] * 2  # type: ignore[arg-type]
    assert house.app.asked == []


def test_a_password_of_more_than_72_bytes_is_wrong_even_if_its_begin_is_right() -> None:
    longest = "x" * 72
    house = House(WebConfig(users={"prom": hash_of(longest)}))
    assert house.ask("/metrics", basic("prom", longest)).status == 200
    assert house.ask("/metrics", basic("prom", longest + "x")).status == 401


def test_no_secret_is_in_what_is_told_of_a_refusal() -> None:
    house = House(WebConfig(users=USERS))
    answer = house.ask("/metrics", basic("prom", "hunter2"))
    shown = repr((house.refused, answer, parse_authorization(basic("prom", "hunter2")), house.config))
    for secret in ("hunter2", base64.b64encode(b"prom:hunter2").decode(), USERS["prom"]):
        assert secret not in shown


@given(st.binary())
def test_a_header_of_any_bytes_is_parsed_or_refused(header: bytes) -> None:
    for value in (header, b"Basic " + header, b"Basic " + base64.b64encode(header)):
        credentials = parse_authorization(value)
        assert credentials is None or isinstance(credentials, Credentials)


@given(st.binary().filter(lambda user: b":" not in user), st.binary())
def test_what_a_client_encodes_is_what_is_read(user: bytes, password: bytes) -> None:
    assert parse_authorization(b"Basic " + base64.b64encode(user + b":" + password)) == Credentials(user, password)


def verdicts(check: PasswordCheck, worker: Held, *asked: Credentials, result: bool | None = None) -> list[str]:
    """All at once; the work is done when all wait for it."""

    async def ask() -> list[str]:
        tasks = [asyncio.ensure_future(check.verdict(one)) for one in asked]
        await asyncio.sleep(0)
        worker.release(result)
        return list(await asyncio.gather(*tasks))

    return asyncio.run(ask())


def test_equal_questions_share_one_check_and_its_verdict_is_remembered() -> None:
    worker = Held()
    check = PasswordCheck(USERS, worker)
    for credentials, verdict in ((Credentials(b"prom", b"right"), "right"), (Credentials(b"prom", b"wrong"), "wrong")):

        async def ask(credentials: Credentials = credentials) -> list[str]:
            tasks = [asyncio.ensure_future(check.verdict(credentials)) for _ in range(MOST_WAITING * 3)]
            await asyncio.sleep(0)
            assert len(worker.work) == 1
            worker.release()
            return list(await asyncio.gather(*tasks))

        assert asyncio.run(ask()) == [verdict] * MOST_WAITING * 3
        assert verdicts(check, worker, credentials) == [verdict]
    assert worker.work == []


def test_beyond_a_few_different_ones_who_asks_is_told_to_come_back_while_known_ones_pass() -> None:
    worker = Held()
    house = House(WebConfig(users=USERS), worker=worker)

    async def ask() -> list[Answer]:
        first = asyncio.ensure_future(house.knock("/metrics", basic("prom", "right")))
        await asyncio.sleep(0)
        worker.release()
        await first
        guesses = [asyncio.ensure_future(house.knock("/metrics", basic("prom", str(i)))) for i in range(MOST_WAITING)]
        await asyncio.sleep(0)
        answers = [
            await house.knock("/metrics", basic("prom", "one more")),
            await house.knock("/metrics", basic("prom", "right")),
            await house.knock("/healthz"),
        ]
        worker.release()
        return answers + list(await asyncio.gather(*guesses))

    busy, known, health, *guesses = asyncio.run(ask())
    assert (busy.status, busy.headers["retry-after"]) == (503, "1")
    assert house.refused[0].reason == "too many checks"
    assert (known.status, health.status) == (200, 200)
    assert [answer.status for answer in guesses] == [401] * MOST_WAITING


def test_guesses_push_out_no_right_password() -> None:
    worker = Held()
    check = PasswordCheck(USERS, worker)
    right = Credentials(b"prom", b"right")
    assert verdicts(check, worker, right) == ["right"]
    remembered = MOST_REMEMBERED // MOST_WAITING + 1
    for i in range(remembered):
        guesses = [Credentials(b"prom", b"%d-%d" % (i, j)) for j in range(MOST_WAITING)]
        assert set(verdicts(check, worker, *guesses, result=False)) == {"wrong"}

    async def ask_again() -> tuple[str, int]:
        verdict = await check.verdict(right)
        forgotten = asyncio.ensure_future(check.verdict(Credentials(b"prom", b"0-0")))
        await asyncio.sleep(0)
        checks = len(worker.work)
        worker.release()
        await forgotten
        return verdict, checks

    assert asyncio.run(ask_again()) == ("right", 1)


def test_an_unknown_user_costs_the_check_of_a_hash_and_always_the_same_one() -> None:
    worker = Held()
    check = PasswordCheck(USERS, worker)

    async def hash_for(user: bytes, password: bytes) -> object:
        task = asyncio.ensure_future(check.verdict(Credentials(user, password)))
        await asyncio.sleep(0)
        (_, _, (_, hashed)) = worker.work[0]
        worker.release()
        assert await task == "wrong"
        return hashed

    hashes = {asyncio.run(hash_for(b"nobody", password)) for password in (b"right", b"1", "pässword".encode())}
    assert len(hashes) == 1
    assert hashes <= {hashed.encode() for hashed in USERS.values()}


def test_who_leaves_does_not_take_the_check_from_the_others() -> None:
    worker = Held()
    check = PasswordCheck(USERS, worker)

    async def ask() -> str:
        leaves, stays = (asyncio.ensure_future(check.verdict(Credentials(b"prom", b"right"))) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        worker.release()
        return await stays

    assert asyncio.run(ask()) == "right"


def test_a_changed_password_is_in_force_at_once() -> None:
    house = House(WebConfig(users=USERS))
    assert house.ask("/metrics", basic("prom", "right")).status == 200
    house.config = WebConfig(users={"prom": hash_of("new")})
    assert house.ask("/metrics", basic("prom", "right")).status == 401
    assert house.ask("/metrics", basic("prom", "new")).status == 200
    house.config = WebConfig()
    assert house.ask("/metrics").status == 200


def test_passwords_are_checked_in_one_thread_that_is_not_the_loops() -> None:
    house = House(WebConfig(users={"prom": hash_of("right")}))

    async def many() -> list[Answer]:
        return list(await asyncio.gather(*(house.knock("/metrics", basic("prom", str(i))) for i in range(10))))

    assert {answer.status for answer in asyncio.run(many())} == {401}
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("hf_eco2ai-passwords")]
    assert len({thread.name for thread in workers}) == 1


# Health


def test_health_may_be_read_by_anyone_at_any_rate_and_nothing_else_may() -> None:
    house = House(WebConfig(users=USERS, allowed_sans=frozenset({"a"}), rate_limit=RateLimit(3600, 1)))
    for path in ("/healthz", "/readyz"):
        for method in ("GET", "HEAD"):
            for _ in range(3):
                assert house.ask(path, method=method).status == 200
        for method in ("POST", "DELETE", "get"):
            assert house.ask(path, method=method).status == 403
    for path in ("/healthz/", "//healthz", "/healthz/../metrics", "/HEALTHZ", "/healthz%00", "/"):
        assert house.ask(path).status == 403


# Certificates

CERTIFICATE = {
    "subject": ((("commonName", "common.name"),),),
    "subjectAltName": (
        ("DNS", "prometheus.internal"),
        ("IP Address", "0:0:0:0:0:0:0:1"),
        ("IP Address", "192.0.2.1"),
        ("URI", "spiffe://cluster/prometheus"),
        ("email", "ops@example.org"),
        ("DirName", ((("commonName", "directory"),),)),
        ("DNS", "good.example\0.evil"),
    ),
}


@pytest.mark.parametrize(
    "name", ["prometheus.internal", "::1", "0:0::1", "192.0.2.1", "spiffe://cluster/prometheus", "ops@example.org"]
)
def test_a_certificate_with_an_allowed_name_of_any_kind_is_let_in(name: str) -> None:
    assert house_for(name, "another").ask(certificate=CERTIFICATE).status == 200


@pytest.mark.parametrize("name", ["prometheus", "common.name", "directory", "*.internal", "good.example", "PROMETHEUS.INTERNAL"])
def test_a_certificate_without_is_not(name: str) -> None:
    house = house_for(name)
    assert house.ask(certificate=CERTIFICATE).status == 403
    assert house.refused == [Refusal(403, "certificate name", "192.0.2.7", "/metrics")]


def test_without_a_certificate_no_name_is_right() -> None:
    nothing: list[dict[str, Any] | None] = [None, {}]
    for certificate in nothing:
        assert house_for("a").ask(certificate=certificate).status == 403


def house_for(*names: str) -> House:
    return House(WebConfig(allowed_sans=frozenset(names)))


# Rate

EXACT = st.integers(1, 4096).map(lambda ticks: ticks / 1024)  # Numbers that floats add without rounding.


@given(EXACT, st.integers(1, 5), st.lists(st.integers(0, 4096).map(lambda ticks: ticks / 1024), max_size=60))
def test_in_no_time_more_get_through_than_the_burst_and_one_each_interval(interval: float, burst: int, gaps: list[float]) -> None:
    time = 0.0
    passed: list[float] = []
    bucket = TokenBucket(RateLimit(interval, burst), lambda: time)
    for gap in gaps:
        time += gap
        wait = bucket.wait()
        if wait == 0:
            passed.append(time)
        else:  # Nobody waits for longer than needed either.
            assert 0 < wait <= interval
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= burst + (Fraction(end) - Fraction(begin)) / Fraction(interval)


@given(EXACT, st.integers(1, 5))
def test_who_keeps_to_the_interval_always_gets_through_and_a_rest_fills_the_bucket(interval: float, burst: int) -> None:
    time = 1000.0
    bucket = TokenBucket(RateLimit(interval, burst), lambda: time)
    for _ in range(3):
        assert [bucket.wait() == 0 for _ in range(burst + 1)] == [True] * burst + [False]
        time += bucket.wait()
        assert bucket.wait() == 0
        time += interval * burst


def test_too_many_requests_are_told_when_to_come_back() -> None:
    house = House(WebConfig(rate_limit=RateLimit(2.5, 2)))
    assert [house.ask().status for _ in range(3)] == [200, 200, 429]
    assert house.ask().headers["retry-after"] == "3"
    assert house.refused[0] == Refusal(429, "rate limit", "192.0.2.7", "/metrics")
    house.time += 2.5
    assert [house.ask().status for _ in range(2)] == [200, 429]


def test_a_config_read_anew_refills_the_bucket_only_if_the_limit_is_another() -> None:
    house = House(WebConfig(rate_limit=RateLimit(60, 1)))
    assert [house.ask().status for _ in range(2)] == [200, 429]
    house.config = WebConfig(rate_limit=RateLimit(60, 1), headers=(("X-Frame-Options", "deny"),))
    assert house.ask().status == 429
    house.config = WebConfig(rate_limit=RateLimit(60, 2))
    assert [house.ask().status for _ in range(3)] == [200, 200, 429]
    house.config = WebConfig()
    assert house.ask().status == 200


# Headers and bodies

OURS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
}


def chosen(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def test_security_headers_are_on_every_response_also_on_refusals() -> None:
    house = House(WebConfig(users=USERS))
    for answer in (house.ask(), house.ask("/healthz"), house.ask("/metrics", basic("prom", "right"))):
        assert chosen(answer.headers, OURS) == OURS
        assert "strict-transport-security" not in answer.headers


def test_the_app_may_say_otherwise_and_the_config_has_the_last_word() -> None:
    own = ((b"Content-Security-Policy", b"default-src 'self'"), (b"X-Frame-Options", b"SAMEORIGIN"), (b"ETag", b'"1"'))
    said = House(WebConfig(), *own).ask().headers
    assert (said["content-security-policy"], said["x-frame-options"]) == ("default-src 'self'", "SAMEORIGIN")
    assert (said["etag"], said["referrer-policy"]) == ('"1"', "no-referrer")
    config = WebConfig(
        headers=(("X-Frame-Options", "deny"), ("Content-Security-Policy", ""), ("Strict-Transport-Security", "max-age=60"))
    )
    said = House(config, *own).ask().headers
    assert (said["x-frame-options"], said["strict-transport-security"]) == ("deny", "max-age=60")
    assert "content-security-policy" not in said


def test_programs_get_a_problem_as_json_and_people_a_line() -> None:
    house = House(WebConfig(users=USERS))
    answer = house.ask("/api/v1/runs")
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body) == {
        "title": "Unauthorized",
        "status": 401,
        "detail": "A name and a password are asked for (HTTP basic authentication).",
    }
    assert answer.headers["content-length"] == str(len(answer.body))
    assert house.ask("/apish").headers["content-type"] == "text/plain; charset=utf-8"


def test_a_refused_head_has_a_length_and_no_body() -> None:
    answer = House(WebConfig(users=USERS)).ask(method="HEAD")
    assert (answer.status, answer.body) == (401, b"")
    assert int(answer.headers["content-length"]) > 0


@given(st.text(max_size=300), st.text(max_size=300))
def test_what_the_log_gets_is_short_and_printable(path: str, address: str) -> None:
    house = House(WebConfig(users=USERS))
    house.ask("/" + path, client=(address, 1))
    (refusal,) = house.refused
    for said in (refusal.path, refusal.client):
        assert said.isprintable()
        assert len(said) <= 200


def test_control_characters_of_a_path_are_escaped_in_the_log() -> None:
    house = House(WebConfig(users=USERS))
    house.ask("/a\r\nlevel=info \x1b[2J\u202e", client=None)
    assert house.refused == [Refusal(401, "no credentials", "", "/a\\r\\nlevel=info \\x1b[2J\\u202e")]


def test_only_http_has_a_door() -> None:
    house = House(WebConfig(users=USERS))

    async def nothing(*_: object) -> Message:
        return {}

    asyncio.run(house.doors({"type": "lifespan"}, nothing, nothing))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no door for websocket"):
        asyncio.run(house.doors({"type": "websocket"}, nothing, nothing))  # type: ignore[arg-type]
    assert house.app.asked == ["lifespan"]
