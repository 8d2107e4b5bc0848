"""A real Alertmanager that tells the stand-ins, by the configuration that we make."""

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hf_eco2ai.stack import documents
from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.secrets import Secrets
from tests.daemon.process import SECONDS, until
from tests.stack.committed import ROOT
from tests.stack.native import copied
from tests.stack.receivers import PAGERDUTY_KEY, SMTP_PASSWORD, SMTP_USER, Receivers

needed = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None, reason="apt-get install prometheus-alertmanager, which brings amtool"
)

EXTERNAL_URL = "http://localhost:9093"
"""In links, as `stack up` sets it, whatever the port of the test."""

QUICK = {"group_wait": "1500ms", "group_interval": "1s", "repeat_interval": "1h"}
"""Between two evaluations, which are a second apart: see alerting/channels.yml."""

TO = ("alice@example.org", "bob@example.org")

Alert = Mapping[str, Any]


@dataclass(frozen=True)
class Alertmanager:
    """Asked over its API."""

    url: str
    log_file: Path

    def ask(self, path: str, **query: str) -> Any:
        """What is in its answer."""
        with urllib.request.urlopen(f"{self.url}/api/v2{path}?{urllib.parse.urlencode(query)}", timeout=SECONDS) as response:
            return json.load(response)

    def post(self, *alerts: Alert) -> None:
        """As Prometheus does."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=SECONDS).close()

    def state(self, alertname: str, **labels: str) -> str:
        """`active`, or `suppressed` by an inhibition or a silence; empty where there is no such alert."""
        wanted = {"alertname": alertname, **labels}
        found = [alert for alert in self.ask("/alerts") if wanted.items() <= alert["labels"].items()]
        assert len(found) <= 1, found
        return str(found[0]["status"]["state"]) if found else ""

    @property
    def log(self) -> str:
        """What it has said."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")


def settings(**changes: Any) -> Channels:
    """This repository's channels.yml with some lines of some sections changed."""
    found = documents.read(ROOT / "alerting" / "channels.yml")
    for name, change in changes.items():
        found[name] = {**found[name], **change}
    return Channels.model_validate(found)


def told(receivers: Receivers, folder: Path) -> Path:
    """A stack folder like this repository's, whose channels lead to the stand-ins and wait little."""
    secrets = Secrets(copied(folder) / "secrets")
    for name in ("slack", "discord", "webhook"):
        secrets.put(f"{name}_url", receivers.url(name))
    secrets.put("pagerduty_key", PAGERDUTY_KEY)
    secrets.put("smtp_password", SMTP_PASSWORD)
    server = {"smarthost": f"127.0.0.1:{receivers.smtp_port}", "username": SMTP_USER, "require_tls": False}
    channels = settings(
        timing=dict.fromkeys(("critical", "warning", "info"), QUICK),
        email={"to": list(TO), "sender": "eco2ai@example.org", **server},
        pagerduty={"url": receivers.url("pagerduty")},
    )
    (folder / "alerting" / "channels.yml").write_text(documents.written(channels.model_dump(mode="json")), encoding="utf-8")
    return folder


def amtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Its command line."""
    return subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False, timeout=SECONDS)


@contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    """One that is ready, and reads what is rendered in this folder.

    Without the empty cluster address it would open a port on all interfaces.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    arguments = [
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/data",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    arguments += [f"--web.external-url={EXTERNAL_URL}", "--cluster.listen-address="]
    asked = Alertmanager(url, folder / "alertmanager.log")
    with asked.log_file.open("wb") as log:
        server = subprocess.Popen(["prometheus-alertmanager", *arguments], stderr=log, stdout=log)
    try:
        until(lambda: server.poll() is not None or _is_ready(url), what=lambda: asked.log)
        assert server.poll() is None, asked.log
        yield asked
    finally:
        server.terminate()
        server.wait(SECONDS)


def _is_ready(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/-/ready", timeout=SECONDS).close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def names(alerts: Sequence[Alert]) -> list[str]:
    """Of the alerts in a message to the webhook."""
    return sorted(alert["labels"]["alertname"] for alert in alerts)
