"""`/metrics` under load and in haste, over real sockets."""

import gzip
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hf_eco2ai.outputs.limits import Limits
from hf_eco2ai.outputs.scrape import DEADLINE_SECONDS, OUTCOMES, Scrapes, matches, seconds_for, zipped
from tests.outputs.serving import SECONDS, Served, ended, request, response, serve, until

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
OPENMETRICS, TEXT = b"# in OpenMetrics\n# EOF\n", b"# in text\n"

LARGE = bytes(range(256)) * 20_000
"""5 MB."""


class Rendering:
    """Counts how often it is done, and waits where it is told to."""

    def __init__(self, openmetrics: bytes = OPENMETRICS, text: bytes = TEXT) -> None:
        self.bodies = {True: openmetrics, False: text}
        self.count = 0
        self.version: object = 0
        self.asked = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def render(self, openmetrics: bool) -> bytes:
        """The exposition."""
        self.count += 1
        assert self.may_go_on.wait(SECONDS)
        return self.bodies[openmetrics]

    def version_now(self) -> object:
        """Asked once by each scrape that has got a place."""
        self.asked.release()
        return self.version

    def wait_until_asked(self, times: int) -> None:
        """Until so many further scrapes have got a place."""
        for _ in range(times):
            assert self.asked.acquire(timeout=SECONDS)


@contextmanager
def scraping(
    rendering: Rendering, limits: Limits | None = None, *, compression: bool = True, in_thread: bool = True
) -> Iterator[tuple[Served, list[str]]]:
    """An app with nothing but `/metrics` and `/healthz`, and the outcomes of scrapes."""
    outcomes: list[str] = []

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def app() -> Starlette:
        scrapes = Scrapes(
            rendering.render,
            compression=compression,
            version=rendering.version_now,
            in_thread=in_thread,
            limits=limits,
            observe=lambda outcome, _: outcomes.append(outcome),
        )
        return Starlette(routes=[Route("/metrics", scrapes.metrics), Route("/healthz", healthz)])

    with serve(app, limits) as served:
        yield served, outcomes
    assert set(outcomes) <= set(OUTCOMES)


def scrape(served: Served, method: str = "GET", path: str = "/metrics", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One scrape on a connection of its own."""
    with served.connect() as client:
        client.sendall(request(path, method, Connection="close", **headers))
        if method != "HEAD":
            return response(client)
        came = b""
        while more := client.recv(65536):
            came += more
        head, _, body = came.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        parsed = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in parsed}, body


@pytest.mark.parametrize(
    ("accept", "body"),
    [
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_2_42, OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        (BROWSER, TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5", TEXT),
    ],
    ids=["Prometheus 3", "Prometheus 2.42", "OpenMetrics", "browser", "anything", "text", "text first"],
)
@pytest.mark.parametrize("in_thread", [True, False])
def test_each_client_gets_the_format_that_it_likes_best(accept: str, body: bytes, in_thread: bool) -> None:
    with scraping(Rendering(), in_thread=in_thread) as (served, outcomes):
        status, headers, came = scrape(served, Accept=accept)
        assert (status, came) == (200, body)
        type_of = {OPENMETRICS: choose_encoder("application/openmetrics-text")[1], TEXT: choose_encoder("")[1]}
        assert headers["content-type"] == type_of[body]
        assert headers["vary"] == "Accept, Accept-Encoding"
        assert headers["cache-control"] == "no-cache"
        until(lambda: outcomes == ["ok"])


def test_a_client_that_reads_neither_format_is_told_which_there_are() -> None:
    with scraping(Rendering()) as (served, outcomes):
        status, _, said = scrape(served, Accept="application/json")
        assert status == 406
        assert b"application/openmetrics-text; version=1.0.0" in said
        assert b"text/plain; version=0.0.4" in said
        until(lambda: outcomes == ["not_acceptable"])


def test_gzip_holds_the_same_exposition_and_is_sent_only_where_it_is_allowed() -> None:
    rendering = Rendering(openmetrics=LARGE)
    with scraping(rendering) as (served, _):
        _, headers, body = scrape(served, Accept=PROMETHEUS_3, Accept_Encoding="gzip")
        assert headers["content-encoding"] == "gzip"
        assert len(body) < len(LARGE) // 10
        assert gzip.decompress(body) == LARGE
        assert "content-encoding" not in scrape(served, Accept=PROMETHEUS_3, Accept_Encoding="gzip;q=0")[1]
    with scraping(rendering, compression=False) as (served, _):
        assert "content-encoding" not in scrape(served, Accept_Encoding="gzip")[1]


def test_a_body_is_rendered_once_for_each_version_however_many_ask() -> None:
    rendering = Rendering()
    with scraping(rendering) as (served, _):
        for _ in range(3):
            for encoding in ("identity", "gzip"):
                scrape(served, Accept_Encoding=encoding)
        assert rendering.count == 1  # Gzip is made of what is there.
        scrape(served, Accept=PROMETHEUS_3)
        assert rendering.count == 2
        rendering.version = 1
        scrape(served)
        scrape(served)
        assert rendering.count == 3


def test_scrapes_that_come_while_one_is_rendered_share_it() -> None:
    rendering = Rendering()
    rendering.may_go_on.clear()
    with scraping(rendering) as (served, outcomes), ThreadPoolExecutor(10) as clients:
        answers = [clients.submit(scrape, served) for _ in range(10)]
        rendering.wait_until_asked(10)
        rendering.may_go_on.set()
        assert [answer.result(SECONDS)[2] for answer in answers] == [TEXT] * 10
        assert rendering.count == 1
        until(lambda: outcomes == ["ok"] * 10)


def test_a_scrape_ends_before_prometheus_gives_up_and_the_next_one_gets_what_was_rendered_meanwhile() -> None:
    rendering = Rendering()
    rendering.may_go_on.clear()
    with scraping(rendering) as (served, outcomes):
        status, _, said = scrape(served, X_Prometheus_Scrape_Timeout_Seconds="0.2")
        assert (status, said.count(b".")) == (503, 1)
        assert scrape(served, path="/healthz")[2] == b"ok\n"
        rendering.may_go_on.set()
        assert scrape(served, X_Prometheus_Scrape_Timeout_Seconds="10")[2] == TEXT
        assert rendering.count == 1
        until(lambda: outcomes == ["deadline", "ok"])


def test_the_deadline_leaves_time_for_the_network_and_nonsense_is_no_deadline() -> None:
    assert seconds_for("10") == 9.5
    assert seconds_for("0.6") == 0.3
    assert seconds_for("1e9") == 3600
    for nonsense in ("", "soon", "0", "-5", "nan", "inf", "1e999", "١٠s"):
        assert seconds_for(nonsense) == DEADLINE_SECONDS


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_who_has_this_exposition_already_is_not_sent_it_again(encoding: str) -> None:
    rendering = Rendering()
    with scraping(rendering) as (served, outcomes):
        _, headers, _ = scrape(served, Accept_Encoding=encoding)
        status, again, body = scrape(served, Accept_Encoding=encoding, If_None_Match=f'"other", {headers["etag"]}')
        assert (status, again["etag"], body) == (304, headers["etag"], b"")
        assert "content-length" not in again
        rendering.version, rendering.bodies[False] = 1, b"# changed\n"
        assert scrape(served, Accept_Encoding=encoding, If_None_Match=headers["etag"])[0] == 200
        until(lambda: outcomes == ["ok", "not_modified", "ok"])


def test_each_format_and_coding_has_an_etag_of_its_own_and_the_same_one_for_the_same_bytes() -> None:
    with scraping(Rendering()) as (served, _):
        asked = [(accept, encoding) for accept in ("text/plain", PROMETHEUS_3) for encoding in ("identity", "gzip")]
        tags = [scrape(served, Accept=accept, Accept_Encoding=encoding)[1]["etag"] for accept, encoding in asked]
        assert len(set(tags)) == 4
    with scraping(Rendering()) as (served, _):
        assert scrape(served, Accept="text/plain", Accept_Encoding="gzip")[1]["etag"] == tags[1]
    assert matches("*", '"a"')
    assert matches('W/"a"', '"a"')
    assert not matches('"b"', '"a"')
    assert not matches("", '"a"')


def test_a_head_has_the_headers_of_a_get_and_no_body() -> None:
    with scraping(Rendering(text=LARGE)) as (served, _):
        _, of_get, _ = scrape(served)
        status, of_head, body = scrape(served, "HEAD")
        assert (status, body) == (200, b"")
        assert of_head == of_get
        assert of_head["content-length"] == str(len(LARGE))


def test_a_rendering_that_fails_costs_this_scrape_and_not_the_next(caplog: pytest.LogCaptureFixture) -> None:
    rendering = Rendering()
    good = rendering.bodies.pop(False)
    with scraping(rendering) as (served, outcomes):
        assert scrape(served)[0] == 500
        rendering.bodies[False] = good
        assert scrape(served)[2] == TEXT
        until(lambda: outcomes == ["failed", "ok"])
    assert "KeyError" in caplog.text


# Bad clients


def test_two_hundred_slow_readers_stop_no_scrape_and_cost_no_copy_of_the_exposition_each() -> None:
    rendering = Rendering(text=LARGE)
    with scraping(rendering, Limits(stall_seconds=0.1)) as (served, outcomes), ExitStack() as until_closed:
        scrape(served)
        tracemalloc.start()
        try:
            for _ in range(200):
                client = until_closed.enter_context(served.connect(receive_buffer=4096))
                client.sendall(request("/metrics"))
            rendering.wait_until_asked(40)  # All places are taken.
            for _ in range(20):
                status, _, body = scrape(served, X_Prometheus_Scrape_Timeout_Seconds="20")
                assert status == 200
                assert zlib.crc32(body) == zlib.crc32(LARGE)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        until(lambda: outcomes.count("ok") == 21)
        assert peak < 10 * len(LARGE)  # 40 places of 150 kB, and three copies that the good client makes. Not 200.
        until(lambda: outcomes.count("aborted") >= 160)


def test_where_all_places_are_taken_and_move_a_scrape_is_told_to_come_again() -> None:
    rendering = Rendering()
    rendering.may_go_on.clear()
    with scraping(rendering, Limits(requests=2)) as (served, outcomes), ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(scrape, served) for _ in range(2)]
        rendering.wait_until_asked(2)
        status, headers, _ = scrape(served, X_Prometheus_Scrape_Timeout_Seconds="0.2")
        assert (status, headers["retry-after"]) == (503, "1")
        until(lambda: outcomes == ["busy"])
        rendering.may_go_on.set()
        assert [answer.result(SECONDS)[0] for answer in waiting] == [200, 200]
        assert scrape(served)[0] == 200


def test_a_scrape_waits_for_a_place_as_long_as_it_has_time() -> None:
    rendering = Rendering()
    rendering.may_go_on.clear()
    with scraping(rendering, Limits(requests=1)) as (served, outcomes), ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(scrape, served) for _ in range(3)]
        rendering.wait_until_asked(1)
        rendering.may_go_on.set()
        assert [answer.result(SECONDS)[0] for answer in answers] == [200] * 3
        until(lambda: outcomes == ["ok"] * 3)


def test_a_reader_that_takes_its_time_is_left_alone_while_nobody_waits() -> None:
    with scraping(Rendering(text=LARGE), Limits(stall_seconds=0.01)) as (served, outcomes):
        with served.connect(receive_buffer=4096) as client:
            client.sendall(request("/metrics"))
            for _ in range(20):
                assert scrape(served, path="/healthz")[0] == 200
            assert response(client)[2] == LARGE
        until(lambda: outcomes == ["ok"])


def test_a_reader_that_leaves_in_the_middle_gives_its_place_back_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with scraping(Rendering(text=LARGE), Limits(requests=1, stall_seconds=SECONDS)) as (served, outcomes):
        with served.connect(receive_buffer=4096) as client:
            client.sendall(request("/metrics"))
            assert client.recv(1)
        until(lambda: outcomes == ["aborted"])
        assert scrape(served)[0] == 200
    assert caplog.records == []


def test_an_answer_that_is_not_taken_in_time_is_given_up() -> None:
    with scraping(Rendering(text=LARGE), Limits(send_seconds=0.1)) as (served, outcomes), served.connect() as client:
        client.sendall(request("/metrics"))
        until(lambda: outcomes == ["aborted"])
        assert ended(client)


def test_the_same_exposition_is_zipped_to_the_same_bytes() -> None:
    assert zipped(LARGE) == zipped(bytes(LARGE))
    assert gzip.decompress(zipped(b"")) == b""
