"""Connections and their limits, TLS, and the port, over real sockets."""

import logging
import multiprocessing
import os
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.outputs.limits import PEER_CERTIFICATE, Limits
from hf_eco2ai.outputs.server import bind
from tests.outputs.certificates import Authority, client_context
from tests.outputs.serving import SECONDS, Served, ended, request, response, serve, until

LARGE = b"x" * 20_000_000
"""More than the kernel takes from a server whose client does not read."""


def app() -> Starlette:
    """What can be asked here."""

    async def say(request: Request) -> Response:
        return PlainTextResponse("here\n")

    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    async def large(request: Request) -> Response:
        return PlainTextResponse(LARGE)

    async def who(request: Request) -> Response:
        return PlainTextResponse(repr(request.scope["extensions"][PEER_CERTIFICATE]))

    return Starlette(routes=[Route("/", say), Route("/echo", echo, methods=["POST"]), Route("/large", large), Route("/who", who)])


class Held:
    """An app that answers when it may."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.may_answer = threading.Event()

    def app(self) -> Starlette:
        """The app; blocks no event loop."""
        return Starlette(routes=[Route("/", self.answer)])  # Starlette calls what is no coroutine in a thread.

    def answer(self, request: Request) -> Response:
        """Wait, then answer."""
        self.asked.release()
        assert self.may_answer.wait(SECONDS)
        return PlainTextResponse("at last\n")

    def wait_until_asked(self, times: int = 1) -> None:
        """Until so many further requests have come."""
        for _ in range(times):
            assert self.asked.acquire(timeout=SECONDS)


def answers(client: socket.socket) -> bool:
    """Whether a request on this connection is answered."""
    client.sendall(request())
    return response(client)[2] == b"here\n"


# Slow clients


def test_a_client_that_connects_and_says_nothing_is_sent_away() -> None:
    with serve(app, Limits(header_seconds=0.1)) as served, served.connect() as client:
        assert ended(client)
        assert served.reasons() == ["slow"]


def test_a_client_that_says_its_headers_letter_by_letter_is_sent_away() -> None:
    with serve(app, Limits(header_seconds=0.3)) as served, served.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(2000):
            if select.select([client], [], [], 0.01)[0]:
                break
            client.sendall(b"x")
        assert ended(client)
        assert served.reasons() == ["slow"]


def test_a_later_request_on_a_connection_has_to_be_said_in_time_too() -> None:
    with serve(app, Limits(header_seconds=0.2)) as served, served.connect() as client:
        assert answers(client)
        client.sendall(b"GET / HT")
        assert ended(client)
        assert served.reasons() == ["slow"]


def test_a_body_has_to_come_in_time_too() -> None:
    with serve(app, Limits(header_seconds=0.2)) as served, served.connect() as client:
        client.sendall(request("/echo", "POST", Content_Length="10") + b"short")
        assert ended(client)
        assert served.reasons() == ["slow"]


def test_a_connection_that_rests_between_scrapes_is_kept_for_longer_than_a_request_may_take() -> None:
    with serve(app, Limits(header_seconds=0.05)) as served, served.connect() as client:
        assert answers(client)
        assert select.select([client], [], [], 0.3)[0] == []
        assert answers(client)


def test_a_connection_that_rests_for_too_long_is_closed_without_a_word() -> None:
    with serve(app, Limits(keep_alive_seconds=0.1)) as served, served.connect() as client:
        assert answers(client)
        assert ended(client)
        assert served.refusals == []


def test_a_client_that_does_not_take_its_answer_is_sent_away() -> None:
    with serve(app, Limits(send_seconds=0.2)) as served, served.connect(receive_buffer=4096) as client:
        client.sendall(request("/large"))
        assert served.reasons() == ["slow"]
        assert ended(client)


def test_a_client_that_leaves_in_the_middle_of_anything_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    with serve(app) as served:
        for said in (b"", b"GET", request("/echo", "POST", Content_Length="10") + b"short", request("/large")):
            client = served.connect(receive_buffer=4096)
            client.sendall(said)
            client.close()
        with served.connect() as client:
            assert answers(client)
    assert caplog.records == []


# Too many clients


def test_for_one_too_many_the_connection_that_has_rested_longest_has_to_go() -> None:
    with serve(app, Limits(connections=3)) as served:
        first, second, third = (served.connect() for _ in range(3))
        assert answers(first)
        assert answers(second)
        assert answers(third)
        assert answers(first)  # Now the second one has rested longest.
        with served.connect() as newcomer:
            assert answers(newcomer)
        assert ended(second)
        assert answers(first)
        assert answers(third)
        assert served.reasons() == ["full"]
        for client in (first, second, third):
            client.close()


def test_where_all_are_being_answered_one_too_many_is_told_so() -> None:
    held = Held()
    with serve(held.app, Limits(connections=2)) as served:
        busy = [served.connect() for _ in range(2)]
        for client in busy:
            client.sendall(request())
        held.wait_until_asked(2)
        with served.connect() as newcomer:
            status, headers, _ = response(newcomer)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert ended(newcomer)
        held.may_answer.set()
        for client in busy:
            assert response(client)[2] == b"at last\n"
            client.close()
        with served.connect() as later:
            later.sendall(request())
            assert response(later)[0] == 200


def test_who_takes_nothing_of_an_answer_makes_room_for_one_who_may() -> None:
    with serve(app, Limits(connections=2, stall_seconds=0.1)) as served:
        slow = [served.connect(receive_buffer=4096) for _ in range(2)]
        for client in slow:
            client.sendall(request("/large"))
            assert client.recv(1)
        status = 503
        while status == 503:  # Until one of them has stalled.
            with served.connect() as newcomer:
                try:
                    newcomer.sendall(request())
                    status = response(newcomer)[0]
                except ConnectionError:
                    continue
        assert status == 200
        for client in slow:
            client.close()


# Too much, and nonsense


def test_headers_and_bodies_beyond_the_limits_are_refused_with_the_right_status() -> None:
    chunked = request("/echo", "POST", Transfer_Encoding="chunked") + b"400\r\n" + b"x" * 1024 + b"\r\n" + b"1\r\nx\r\n"
    for said, status, reason in (
        (request(X="x" * 5000), 431, "too_large"),
        (request("/" + "x" * 5000), 431, "too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, 431, "malformed"),
        (request("/echo", "POST", Content_Length="1025"), 413, "too_large"),
        (request("/", Content_Length="1025"), 413, "too_large"),
        (request("/echo", "POST", Content_Length="9" * 4000), 400, "malformed"),
        (chunked, 413, "too_large"),
        (b"What?\r\n\r\n", 400, "malformed"),
        (request("/echo", "HEAD", Transfer_Encoding="chunked") + b"?\r\n", 400, "malformed"),
    ):
        with serve(app, Limits(header_bytes=4096, body_bytes=1024)) as served, served.connect() as client:
            client.sendall(said)
            assert response(client)[0] == status
            assert ended(client)
            assert served.reasons() == [reason]


def test_what_is_no_request_is_not_repeated_since_a_password_may_be_in_it() -> None:
    for said in (
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Basic c2VjcmV0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Token\t: c2VjcmV0\r\n\r\n",
        b"GET /?token=c2VjcmV0 and more HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: c2VjcmV0" + b"\0" * 60_000 + b"\r\n\r\n",
    ):
        with serve(app) as served, served.connect() as client:
            client.sendall(said)
            status, _, body = response(client)
            assert status in {400, 431}
            assert b"c2VjcmV0" not in body
            assert ended(client)
            assert served.reasons() in (["malformed"], ["too_large"])
            assert "c2VjcmV0" not in str(served.refusals)
            assert len(body) < 200


def test_a_client_that_uploads_megabytes_hears_why_it_is_refused() -> None:
    with serve(app) as served, served.connect() as client:
        client.sendall(request("/echo", "POST", Content_Length="10000000") + b"x" * 10_000_000)
        assert response(client)[0] == 413


def test_a_body_within_the_limit_reaches_the_app_whole_however_it_comes() -> None:
    body = bytes(range(256)) * 4
    with serve(app, Limits(body_bytes=1024)) as served, served.connect() as client:
        client.sendall(request("/echo", "POST", Content_Length="1024"))
        client.sendall(body[:500])
        client.sendall(body[500:])
        assert response(client)[2] == body
        client.sendall(request("/echo", "POST", Transfer_Encoding="chunked") + b"3\r\nabc\r\n")
        client.sendall(b"2\r\nde\r\n0\r\n\r\n")
        assert response(client)[2] == b"abcde"


def test_requests_that_come_together_are_answered_in_their_order() -> None:
    posted = request("/echo", "POST", Content_Length="3") + b"one"
    with serve(app) as served, served.connect() as client:
        client.sendall(posted + request("/nowhere", Connection="close"))
        came = b""
        while more := client.recv(65536):
            came += more
    assert came.index(b"\r\n\r\none") < came.index(b"HTTP/1.1 404")


def test_nonsense_is_no_matter_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve(app) as served:
        for said in (
            b"\x00\xff\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # How TLS begins.
            request("/large") + b"What?\r\n\r\n",
            request(Upgrade="websocket", Connection="upgrade"),
            request("/echo", "POST", Transfer_Encoding="chunked") + b"no number\r\n",
        ):
            with served.connect() as client:
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                assert ended(client)
    assert caplog.records == []


# TLS


class Shown:
    """A server's certificate, of an authority of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.authority = Authority(name)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*self.authority.server().write(folder, name))

    def trusted_by(self, served: Served, certificate: tuple[Path, Path] | None = None) -> ssl.SSLSocket:
        """A client that accepts this one only, and may have a certificate of its own."""
        return client_context(self.authority, certificate).wrap_socket(served.connect(), server_hostname="localhost")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return Shown(tmp_path_factory.mktemp("first"), "first")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return Shown(tmp_path_factory.mktemp("second"), "second")


def test_a_new_certificate_is_shown_to_new_clients_and_disturbs_no_old_one(first: Shown, second: Shown) -> None:
    shown: list[ssl.SSLContext | None] = [first.context]
    with serve(app, tls=lambda: shown[-1]) as served, first.trusted_by(served) as old:
        assert served.endpoint.url == f"https://127.0.0.1:{served.port}"
        assert answers(old)
        shown.append(second.context)
        with second.trusted_by(served) as new:
            assert answers(new)
        with pytest.raises(ssl.SSLCertVerificationError):
            first.trusted_by(served)
        assert answers(old)
        shown.append(None)
        assert served.endpoint.url == f"http://127.0.0.1:{served.port}"
        with served.connect() as plain:
            assert answers(plain)
        assert answers(old)
        shown.append(first.context)
        with first.trusted_by(served) as again:
            assert answers(again)


def test_a_client_without_tls_is_refused_where_there_is_tls(first: Shown, caplog: pytest.LogCaptureFixture) -> None:
    with serve(app, tls=lambda: first.context) as served:
        with served.connect() as client:
            client.sendall(request())
            assert ended(client)
        assert served.reasons() == ["tls"]
        assert served.refusals[0].detail == "plain HTTP"
        assert served.refusals[0].client == "127.0.0.1"
    assert caplog.records == []


def test_handshakes_that_do_not_end_count_as_connections(first: Shown) -> None:
    with serve(app, Limits(connections=3), tls=lambda: first.context) as served:
        silent = [served.connect() for _ in range(4)]
        assert ended(silent[0])
        with first.trusted_by(served) as client:
            assert answers(client)
        for one in silent:
            one.close()


def test_a_handshake_has_to_end_in_time(first: Shown) -> None:
    with serve(app, Limits(header_seconds=0.1), tls=lambda: first.context) as served, served.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        assert ended(client)
        assert served.reasons() == ["slow"]


def test_a_large_answer_passes_through_tls(first: Shown) -> None:
    with serve(app, tls=lambda: first.context) as served, first.trusted_by(served) as client:
        client.sendall(request("/large"))
        assert response(client)[2] == LARGE
        assert answers(client)


def test_a_client_that_does_not_take_its_answer_through_tls_is_sent_away(first: Shown) -> None:
    with serve(app, Limits(send_seconds=0.2), tls=lambda: first.context) as served, first.trusted_by(served) as client:
        client.sendall(request("/large"))
        assert served.reasons() == ["slow"]


def test_a_client_that_does_not_agree_to_the_end_of_tls_is_cut_off(first: Shown) -> None:
    with serve(app, Limits(keep_alive_seconds=0.1), tls=lambda: first.context) as served, first.trusted_by(served) as client:
        assert answers(client)
        plain = socket.socket(fileno=client.detach())
        with plain:
            plain.settimeout(SECONDS)
            assert ended(plain)


def test_the_app_learns_who_the_client_is_by_its_certificate(tmp_path: Path, first: Shown, second: Shown) -> None:
    asking = Shown(tmp_path, "asking")
    asking.context.load_verify_locations(cadata=first.authority.certificate.decode())
    asking.context.verify_mode = ssl.CERT_OPTIONAL
    known = first.authority.issue(client=True).write(tmp_path, "known")
    unknown = second.authority.issue(client=True).write(tmp_path, "unknown")
    with serve(app, tls=lambda: asking.context) as served:
        with asking.trusted_by(served, known) as client:
            client.sendall(request("/who"))
            assert b"(('commonName', 'first'),)" in response(client)[2]
        with asking.trusted_by(served) as client:
            client.sendall(request("/who"))
            assert response(client)[2] == b"None"
        with asking.trusted_by(served, unknown) as client:
            assert ended(client)  # In TLS 1.3 it learns that only when it reads.
        assert served.reasons() == ["tls"]


# Ending


def test_an_answer_that_is_under_way_at_the_end_is_given_in_the_time_that_is_granted() -> None:
    held = Held()
    with serve(held.app) as served, served.connect() as client:
        client.sendall(request())
        held.wait_until_asked()
        stopping = threading.Thread(target=served.endpoint.stop, args=(SECONDS,))
        stopping.start()
        until(lambda: refuses_connections(served.port))
        held.may_answer.set()
        assert response(client)[2] == b"at last\n"
        assert ended(client)
        stopping.join(SECONDS)
        assert not stopping.is_alive()


def refuses_connections(port: int) -> bool:
    """Nobody accepts any more, so the kernel's queue fills; what is in there is closed at the end."""
    with socket.socket() as probe:
        probe.settimeout(0.05)
        return probe.connect_ex(("127.0.0.1", port)) != 0 or _is_ignored(probe)


def _is_ignored(probe: socket.socket) -> bool:
    try:
        probe.sendall(b"What?\r\n\r\n")
        return not probe.recv(1)
    except (TimeoutError, ConnectionError):
        return True


def _live(up: Any, leave: Any) -> None:
    up.set()
    leave.wait()


def test_a_client_hears_of_the_end_though_a_forked_child_has_inherited_its_connection() -> None:
    context = multiprocessing.get_context("fork")
    leave, up = context.Event(), context.Event()
    with serve(app) as served, served.connect() as client:
        assert answers(client)
        child = context.Process(target=_live, args=(up, leave))
        child.start()
        assert up.wait(SECONDS)
        served.endpoint.stop()
        assert ended(client)
        leave.set()
        child.join(SECONDS)


# The port


def test_a_taken_port_an_address_of_others_and_a_port_of_roots_are_one_clear_sentence_each(free_port: int) -> None:
    with bind("127.0.0.1", free_port), pytest.raises(ConfigError) as raised:
        bind("127.0.0.1", free_port)
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    expected = f"Port {free_port} is taken by {name} (pid {os.getpid()}): stop that, or choose another with --port."
    assert str(raised.value) == expected
    for host in ("203.0.113.1", "no.such.host.invalid", "x" * 64 + ".org"):
        with pytest.raises(ConfigError, match=f"^'{host}' is not an address of this machine .*--host.$"):
            bind(host, free_port)


def test_a_port_that_only_root_may_open_is_said_to_be_one() -> None:
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first_free <= 1:
        pytest.skip("any user may open any port here")
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=r"^Port 1 may not be opened by this user: choose one above 1023 with --port\.$"):
            bind("127.0.0.1", 1)
    finally:
        if was_root:
            os.seteuid(0)


def test_a_free_port_is_listened_at() -> None:
    with bind("localhost", 0) as listener, socket.create_connection(listener.getsockname()[:2]) as client:
        assert client.getpeername()[:2] == listener.getsockname()[:2]
