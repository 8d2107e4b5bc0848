"""The HTTP endpoint, over real sockets."""

import gzip
import logging
import multiprocessing
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from hf_eco2ai.outputs.app import build_app
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.server import Endpoint, bind_near
from hf_eco2ai.records import Failure, Snapshot
from tests.outputs.recorded import recorded_run


@contextmanager
def serving(
    port: int = 0, *snapshots: Snapshot, compression: bool = True, host: str = "127.0.0.1"
) -> Iterator[tuple[Endpoint, list[Failure]]]:
    failures: list[Failure] = []
    endpoint = Endpoint(
        bind_near(host, port, failures.append),
        lambda: build_app(lambda: snapshots, Exposition(lambda: snapshots, LabelRules()), compression=compression),
        fail=failures.append,
    )
    try:
        yield endpoint, failures
    finally:
        endpoint.stop()


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


def test_metrics_are_served_as_text_and_as_openmetrics_by_negotiation() -> None:
    with serving(0, recorded_run()) as (endpoint, _):
        status, headers, body = get(f"{endpoint.url}/metrics")
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        assert b"\nhf_training_energy_kwh_total{" in body
        _, headers, body = get(f"{endpoint.url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert headers["content-type"].split(";")[0] == "application/openmetrics-text"
        assert body.endswith(b"# EOF\n")


def test_metrics_are_gzipped_for_clients_that_ask_and_only_if_the_setting_allows() -> None:
    with serving(0, recorded_run()) as (endpoint, _):
        _, headers, body = get(f"{endpoint.url}/metrics", Accept_Encoding="gzip")
        assert headers["content-encoding"] == "gzip"
        assert gzip.decompress(body) == get(f"{endpoint.url}/metrics")[2]
    with serving(0, recorded_run(), compression=False) as (endpoint, _):
        assert "content-encoding" not in get(f"{endpoint.url}/metrics", Accept_Encoding="gzip")[1]


def test_health_is_always_well_and_readiness_waits_for_a_reading() -> None:
    with serving(0) as (endpoint, _):
        assert get(f"{endpoint.url}/healthz")[0] == 200
        assert get(f"{endpoint.url}/readyz")[0] == 503
    with serving(0, recorded_run()) as (endpoint, _):
        assert get(f"{endpoint.url}/readyz")[0] == 200


def test_the_page_names_run_method_and_source_and_loads_nothing_from_elsewhere() -> None:
    with serving(0, recorded_run()) as (endpoint, _):
        status, _, body = get(f"{endpoint.url}/")
    page = body.decode()
    assert status == 200
    for expected in (
        "llama-finetune",
        "2,250 J",
        "NVML energy counter",
        "Ember via Our World in Data",
        "2025",
        'href="/metrics"',
    ):
        assert expected in page
    assert "src=" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_heads_are_answered_and_wrong_paths_and_methods_refused() -> None:
    with serving(0, recorded_run()) as (endpoint, _):
        assert get(f"{endpoint.url}/metrics", "HEAD")[0] == 200
        assert get(f"{endpoint.url}/nowhere")[0] == 404
        assert get(f"{endpoint.url}/metrics", "POST")[0] == 405


def test_a_taken_port_is_named_with_its_holder_and_the_next_free_one_is_used(free_port: int) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        with serving(free_port, recorded_run()) as (endpoint, failures):
            assert endpoint.url is not None
            port = int(endpoint.url.rpartition(":")[2])
            assert free_port < port < free_port + 50
            assert get(f"{endpoint.url}/metrics")[0] == 200
        assert [failure.error_type for failure in failures] == ["port_taken"]
        assert str(free_port) in failures[0].message
        assert str(port) in failures[0].message
        assert f"(pid {os.getpid()})" in failures[0].message


def test_an_address_that_is_not_ours_costs_the_endpoint_and_says_which_setting() -> None:
    with serving(0, recorded_run(), host="203.0.113.1") as (endpoint, failures):
        assert endpoint.url is None
    assert [failure.error_type for failure in failures] == ["endpoint_failed"]
    assert "prometheus_host" in failures[0].message


def test_stopping_closes_the_port_and_leaves_no_thread_even_with_a_client_connected() -> None:
    before = set(threading.enumerate())
    with serving(0, recorded_run()) as (endpoint, _):
        assert endpoint.url is not None
        port = int(endpoint.url.rpartition(":")[2])
        assert get(f"{endpoint.url}/healthz")[0] == 200
        idle = socket.create_connection(("127.0.0.1", port))
        assert set(threading.enumerate()) - before
    idle.close()
    assert set(threading.enumerate()) == before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_stopping_at_once_is_no_error() -> None:
    with serving(0, recorded_run()) as (_, failures):
        pass
    assert failures == []


def _live(up: Any, leave: Any) -> None:
    up.set()
    leave.wait()


def test_a_forked_child_does_not_keep_the_port_taken() -> None:
    context = multiprocessing.get_context("fork")
    leave, up = context.Event(), context.Event()
    with serving(0, recorded_run()) as (endpoint, _):
        assert endpoint.url is not None
        port = int(endpoint.url.rpartition(":")[2])
        child = context.Process(target=_live, args=(up, leave))
        child.start()
        assert up.wait(10)
    # The child lives, we have closed: if it had kept the listening socket, a connection would still be accepted.
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    leave.set()
    child.join(10)
    assert child.exitcode == 0


def test_nothing_of_the_http_stack_is_logged_at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(0, recorded_run()) as (endpoint, _):
        get(f"{endpoint.url}/metrics")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize(
    ("header", "zipped"), [("gzip", True), ("GZIP", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("gzipfoo", False)]
)
def test_gzip_is_used_only_where_the_client_allows_it(header: str, zipped: bool) -> None:
    with serving(0, recorded_run()) as (endpoint, _):
        assert ("content-encoding" in get(f"{endpoint.url}/metrics", Accept_Encoding=header)[1]) == zipped


def test_clients_that_do_not_take_their_answer_are_cut_off_at_the_end_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = set(threading.enumerate())
    runs = [recorded_run()] * 400  # An answer of megabytes, so that the socket's buffers cannot hold it.
    many = [replace(run, identity=replace(run.identity, run_id=f"run{i}")) for i, run in enumerate(runs)]
    with serving(0, *many, compression=False) as (endpoint, failures):
        assert endpoint.url is not None
        slow = [socket.create_connection(("127.0.0.1", int(endpoint.url.rpartition(":")[2]))) for _ in range(3)]
        for client in slow:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1)
    assert set(threading.enumerate()) == before
    for client in slow:
        client.close()
    assert failures == []
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
