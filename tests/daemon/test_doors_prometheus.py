"""A real Prometheus before the doors of a daemon: let in with the right certificate and password, kept out otherwise."""

import base64
import signal
import socket
import ssl
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cryptography import x509

from tests.daemon.process import SECONDS, Daemon, daemon, until
from tests.daemon.prometheus import job, needed, prometheus
from tests.daemon.runs import live
from tests.outputs.certificates import DAY, Authority, client_context

pytestmark = needed

RIGHT = "correct horse battery staple"
NEXT = "a new one for everybody"
WRONG = "hunter2 is wrong"
BEARER = "0badc0de0badc0de0badc0de"


class House:
    """A folder with a web config, and whoever may want to come in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.runs.mkdir()
        self.authority = Authority()
        (folder / "ca.crt").write_bytes(self.authority.certificate)
        self.authority.server().write(folder, "server")
        ours, theirs = x509.DNSName("prometheus.test"), x509.DNSName("somebody.test")
        self.authority.issue(ours, client=True).write(folder, "client")
        self.authority.issue(theirs, client=True).write(folder, "other")
        self.authority.issue(ours, client=True, since=-2 * DAY, until=-timedelta(seconds=1)).write(folder, "expired")
        self.hashed = ""
        self.config = folder / "web.yml"
        self.set_password(RIGHT)

    def set_password(self, password: str) -> None:
        """In the file that the daemon reads."""
        self.hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()
        self.write(
            "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt, "
            "client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus.test]}\n"
            f"basic_auth_users: {{prometheus: {self.hashed}}}\n"
        )

    def write(self, text: str) -> None:
        """The file, at once."""
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        new.replace(self.config)

    def certificate(self, name: str | None = "client") -> dict[str, Any]:
        """The part of a scrape config."""
        shown = {} if name is None else {"cert_file": f"{self.folder}/{name}.crt", "key_file": f"{self.folder}/{name}.key"}
        return {"scheme": "https", "tls_config": {"ca_file": f"{self.folder}/ca.crt", **shown}}

    def client(self) -> ssl.SSLContext:
        """For a client of ours with the right certificate."""
        return client_context(self.authority, (self.folder / "client.crt", self.folder / "client.key"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def password(said: str) -> dict[str, Any]:
    """The part of a scrape config."""
    return {"basic_auth": {"username": "prometheus", "password": said}}


def authorization(said: str = RIGHT) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"prometheus:{said}".encode()).decode()}


REFUSED = {
    "no_credentials": "no credentials",
    "wrong_credentials": "wrong credentials",
    "token": "malformed credentials",
    "other_name": "certificate name",
    "expired": "certificate has expired",
    "no_certificate": "no client certificate",
    "plain_http": "plain HTTP",
}
"""By job, why the daemon refuses it."""


def jobs(house: House, port: int) -> list[dict[str, Any]]:
    right = password(RIGHT)
    return [
        job("right", port, **house.certificate(), **right),
        job("no_credentials", port, **house.certificate()),
        job("wrong_credentials", port, **house.certificate(), **password(WRONG)),
        job("token", port, **house.certificate(), authorization={"credentials": BEARER}),
        job("other_name", port, **house.certificate("other"), **right),
        job("expired", port, **house.certificate("expired"), **right),
        job("no_certificate", port, **house.certificate(None), **right),
        job("plain_http", port, **right),
    ]


def refusals(serving: Daemon) -> dict[str, int]:
    """How often it has logged each reason."""
    found: dict[str, int] = {}
    for line in serving.said("request refused"):
        assert line["level"] == "warning"
        assert line["client"] == "127.0.0.1"
        why = line["detail"] if line["reason"] == "tls" else line["reason"]
        found[why] = found.get(why, 0) + 1
    return found


def test_prometheus_is_let_in_with_certificate_and_password_and_kept_out_without(house: House) -> None:
    live(house.runs, "run1", seconds=3600.0)
    with daemon(house.runs, "--web.config.file", str(house.config)) as serving:
        assert serving.url.startswith("https://")
        with prometheus(house.folder / "prometheus", jobs(house, serving.port)) as asked:
            until(lambda: all(asked.health(name) not in {"", "unknown"} for name in ("right", *REFUSED)), what=asked.targets)
            until(lambda: asked.query("hf_training_energy_kwh_total"), what=asked.targets)
            targets = asked.targets()
            # 250.3 W of the GPU and 61.7 W of the CPU for an hour.
            assert asked.query('hf_training_energy_kwh_total{run_id="run1"}') == {"right": pytest.approx(0.312)}
            assert asked.query("up") == {"right": 1.0, **dict.fromkeys(REFUSED, 0.0)}
            until(lambda: refusals(serving).keys() == set(REFUSED.values()), what=lambda: serving.text)
            seen = asked.query("count_over_time(up[1h])")
            logged = refusals(serving)
            latest = asked.query("count_over_time(up[1h])")
            for name, reason in REFUSED.items():
                assert seen[name] <= logged[reason] <= latest[name] + 1  # One may have been refused just now.
        logged = refusals(serving)
        counted = serving.get("/metrics", context=house.client(), headers=authorization()).decode()
    assert {name: target["health"] for name, target in targets.items()} == {"right": "up", **dict.fromkeys(REFUSED, "down")}
    assert "401" in targets["no_credentials"]["lastError"]
    assert "401" in targets["wrong_credentials"]["lastError"]
    assert "401" in targets["token"]["lastError"]
    assert "403" in targets["other_name"]["lastError"]
    assert all(targets[name]["lastError"] for name in REFUSED)
    in_tls = {"certificate has expired", "no client certificate", "plain HTTP"}
    for reason, count in logged.items():
        if reason not in in_tls:
            assert f'hf_exporter_refused_requests_total{{reason="{reason}"}} {float(count)}\n' in counted
    assert f'reason="tls"}} {float(sum(logged[reason] for reason in in_tls))}\n' in counted
    for secret in (RIGHT, WRONG, BEARER, house.hashed, authorization()["Authorization"].removeprefix("Basic ")):
        assert secret not in serving.text


def serial(house: House, port: int) -> object:
    """Of the certificate that the daemon shows."""
    with (
        socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
        house.client().wrap_socket(plain, server_hostname="localhost") as client,
    ):
        shown = client.getpeercert()
    assert shown is not None
    return shown["serialNumber"]


def test_what_is_replaced_while_it_runs_takes_effect_and_what_is_broken_does_not(house: House) -> None:
    live(house.runs, "run1")
    said = house.folder / "password"
    said.write_text(RIGHT)
    wanted = job("right", 0, **house.certificate(), basic_auth={"username": "prometheus", "password_file": str(said)})
    with daemon(house.runs, "--web.config.file", str(house.config)) as serving:
        wanted["static_configs"] = [{"targets": [f"127.0.0.1:{serving.port}"]}]
        with prometheus(house.folder / "prometheus", [wanted], interval="500ms") as asked:
            until(lambda: asked.health("right") == "up", what=asked.targets)
            before = serial(house, serving.port)
            house.authority.server().write(house.folder, "server")
            until(lambda: serial(house, serving.port) != before)
            house.set_password(NEXT)
            serving.process.send_signal(signal.SIGHUP)  # It would see by itself, as above.
            until(lambda: asked.health("right") == "down", what=asked.targets)
            assert "401" in asked.targets()["right"]["lastError"]
            said.write_text(NEXT)
            until(lambda: asked.health("right") == "up", what=asked.targets)
            house.write(f"basic_auth_users: {{prometheus: {WRONG}}}")
            until(lambda: "what was read before stays in force" in serving.text, what=lambda: serving.text)
            since = time.time()
            until(lambda: len(asked.samples('up{job="right"}', since)) >= 3)
            assert set(asked.samples('up{job="right"}', since)) == {1.0}
            house.set_password(RIGHT)
            serving.process.send_signal(signal.SIGHUP)
            until(lambda: asked.health("right") == "down", what=asked.targets)
    broken = [line for line in serving.log() if "stays in force" in line["msg"]]
    assert [line["level"] for line in broken] == ["warning"]
    assert broken[0]["msg"].startswith(f"{house.config}: basic_auth_users.prometheus: should be a bcrypt hash")
    assert len(serving.said("the web config has been read again")) >= 3
    for secret in (RIGHT, NEXT, WRONG, house.hashed):
        assert secret not in serving.text


class Crowd:
    """Clients that are let in and then take their time; each comes again when it is sent away."""

    def __init__(self, house: House, port: int, *, readers: int, senders: int) -> None:
        self._port = port
        self._context = house.client()
        self._reads = [True] * readers + [False] * senders
        self._clients: list[ssl.SSLSocket | None] = [None] * len(self._reads)
        self._over = threading.Event()
        self._is_full = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            for n, reads in enumerate(self._reads):
                client = self._clients[n]
                if client is None:
                    self._clients[n] = self._come(reads=reads)
                elif not _goes_on(client, reads=reads):
                    client.close()
                    self._clients[n] = None
            if None not in self._clients:
                self._is_full.set()
        for client in self._clients:
            if client is not None:
                client.close()

    def _come(self, *, reads: bool) -> ssl.SSLSocket | None:
        plain = socket.socket()
        plain.settimeout(SECONDS)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /metrics HTTP/1.1\r\nHost: here\r\nAuthorization: {authorization()['Authorization']}\r\n"
        try:
            plain.connect(("127.0.0.1", self._port))
            client = self._context.wrap_socket(plain, server_hostname="localhost")
            client.sendall((head + ("\r\n" if reads else "X-Slow: ")).encode())
        except OSError:
            plain.close()
            return None
        client.setblocking(False)
        return client

    def __enter__(self) -> None:
        self._thread.start()
        assert self._is_full.wait(SECONDS)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _goes_on(client: ssl.SSLSocket, *, reads: bool) -> bool:
    """Whether it is still served, after it has read a little, or said a letter more of its request."""
    try:
        if not reads:
            client.send(b"z")
        return bool(client.recv(256))
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return True
    except OSError:
        return False


def test_hundreds_of_slow_clients_stop_no_scrape_of_prometheus(house: House) -> None:
    for n in range(400):
        live(house.runs, f"run{n:03}")
    right = job("right", 0, **house.certificate(), **password(RIGHT))
    with daemon(house.runs, "--web.config.file", str(house.config)) as serving:
        body = serving.get("/metrics", context=house.client(), headers=authorization())
        full = sum(not line.startswith(b"#") for line in body.splitlines())
        assert len(body) > 3_000_000
        right["static_configs"] = [{"targets": [f"127.0.0.1:{serving.port}"]}]
        with (
            prometheus(house.folder / "prometheus", [right], interval="2s") as asked,
            Crowd(house, serving.port, readers=200, senders=100),
        ):
            since = time.time()
            until(lambda: len(asked.samples("up", since)) >= 6)
            assert set(asked.samples("up", since)) == {1.0}
            assert min(asked.samples("scrape_samples_scraped", since)) >= full
            aborted = 'hf_exporter_scrape_duration_seconds_count{outcome="aborted"}'
            assert asked.query(aborted)["right"] >= 200 - 40  # Those for whom there was no place any more.
