"""A stack without containers, on the real servers, as `hf-eco2ai stack up --native` starts it."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from hf_eco2ai.stack.secrets import Secrets
from tests.daemon.process import ROOT, SECONDS
from tests.daemon.prometheus import Prometheus

HF_ECO2AI = ("-c", "from hf_eco2ai.cli import main; main()")
"""Arguments of Python that are the command `hf-eco2ai`."""

SERVERS = ("exporter", "prometheus", "alertmanager", "node")

installed = pytest.mark.skipif(
    not all(map(shutil.which, ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"))),
    reason="apt-get install prometheus prometheus-alertmanager prometheus-node-exporter",
)


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def copied(folder: Path) -> Path:
    """This repository's stack folder, to be changed by a test."""
    for part in ("prometheus", "alerting", "dashboards"):
        shutil.copytree(ROOT / part, folder / part)
    for part in ("docker-compose.yml", "Dockerfile"):
        shutil.copy(ROOT / part, folder / part)
    return folder


@dataclass(frozen=True)
class Native:
    """A stack folder, a data folder, and commands about them."""

    root: Path
    path: str = ""
    """What is looked through for programs before the usual PATH; with a `:` at the end the usual one is left out."""
    ports: Mapping[str, int] = field(default_factory=lambda: dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True)))

    @property
    def folder(self) -> Path:
        return self.root / "stack"

    @property
    def data(self) -> Path:
        """Where it is unless something else is said."""
        return self.root / ".local" / "share" / "hf-eco2ai" / "stack"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def environ(self) -> dict[str, str]:
        """Of a user who has set nothing."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("HF_ECO2AI_", "XDG_"))}
        usual = "" if self.path.endswith(":") else os.environ["PATH"]
        path = os.pathsep.join(filter(None, (self.path.rstrip(":"), usual)))
        return {**mine, "PYTHONPATH": str(ROOT), "HOME": str(self.root), "PATH": path}

    def say(self, *arguments: str, here: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """A command that is over."""
        command = [sys.executable, *HF_ECO2AI, "stack", *arguments]
        return subprocess.run(
            command, cwd=here or self.root, env=self.environ(), capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def up(self, *options: str, ports: bool = True) -> "subprocess.CompletedProcess[str]":
        """With a port of its own for each server."""
        return self.say(*self.command(*options, ports=ports))

    def command(self, *options: str, ports: bool = True) -> tuple[str, ...]:
        """What `up` says."""
        chosen = [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))] if ports else []
        more = ("--dir", str(self.folder), "--runs-dir", str(self.runs), "--scrape-interval", "1s")
        return ("up", "--native", *more, *chosen, *options)

    def state(self) -> dict[str, Any]:
        """What it has noted of its servers, by name."""
        state = json.loads((self.data / "state.json").read_text())
        return {server["name"]: server for server in state["servers"]}

    def processes(self) -> list[psutil.Process]:
        """All of this machine that have to do with the data folder, or have a number that it has noted or are their children."""
        found = {process for process in psutil.process_iter() if self._names_us(process)}
        for server in self.state().values() if (self.data / "state.json").exists() else ():
            if server["process"] and psutil.pid_exists(server["process"]["pid"]):
                noted = psutil.Process(server["process"]["pid"])
                found |= {noted, *noted.children(recursive=True)}
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def _names_us(self, process: psutil.Process) -> bool:
        try:
            return any(str(self.data) in word for word in process.cmdline())
        except psutil.Error:
            return False

    def prometheus(self) -> Prometheus:
        """Asked over its API."""
        return Prometheus(f"http://127.0.0.1:{self.ports['prometheus']}", self.data / "logs" / "prometheus.log")


@contextmanager
def native(root: Path, **more: Any) -> Iterator[Native]:
    """One that nothing is left of."""
    made = Native(root, **more)
    made.runs.mkdir(parents=True)
    copied(made.folder)
    try:
        yield made
    finally:
        if made.data.exists():
            made.say("down")
        for left in made.processes():
            left.kill()


@dataclass(frozen=True)
class Hook:
    """A webhook that takes what Alertmanager sends."""

    port: int
    messages: list[dict[str, Any]]

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Of that name, as they came."""
        return [alert for message in self.messages for alert in message["alerts"] if alert["labels"]["alertname"] == name]


@contextmanager
def webhook(secrets: Path) -> Iterator[Hook]:
    """One on loopback, whose address is the secret of a stack folder."""
    messages: list[dict[str, Any]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Secrets(secrets).put("webhook_url", f"http://127.0.0.1:{server.server_address[1]}/hook")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield Hook(server.server_address[1], messages)
        server.shutdown()
        thread.join()
