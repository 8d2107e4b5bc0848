"""A real Prometheus."""

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.process import SECONDS, until

needed = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (apt-get install prometheus)")


class Prometheus:
    """Asked over its API."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log

    def ask(self, path: str, **query: str) -> Any:
        """What is in its answer."""
        with urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(query)}", timeout=SECONDS) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> dict[str, float]:
        """An instant vector, by job."""
        result = self.ask("/api/v1/query", query=expression)["result"]
        return {row["metric"].get("job", ""): float(row["value"][1]) for row in result}

    def samples(self, selector: str, since: float) -> list[float]:
        """What one series has been since then, in Unix seconds, a value for each scrape."""
        (row,) = self.ask("/api/v1/query", query=f"{selector}[1h]")["result"] or [{"values": []}]
        return [float(value) for at, value in row["values"] if at >= since]

    def targets(self) -> dict[str, dict[str, Any]]:
        """What its page of targets shows, by job."""
        return {target["labels"]["job"]: target for target in self.ask("/api/v1/targets")["activeTargets"]}

    def health(self, job: str) -> str:
        """`up`, `down` or `unknown`; empty for a job without targets."""
        target = self.targets().get(job)
        return "" if target is None else str(target["health"])

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def prometheus(
    folder: Path, jobs: Sequence[dict[str, Any]], *, interval: str = "1s", rules: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """One that has these scrape configs and evaluates these rule files as often, and is ready."""
    folder.mkdir(exist_ok=True)
    every = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    config = {"global": every, "rule_files": list(rules), "scrape_configs": list(jobs)}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["prometheus", *arguments], stderr=log, stdout=log)
    asked = Prometheus(f"http://127.0.0.1:{port}", folder / "log")
    try:
        until(lambda: server.poll() is not None or _is_ready(port), what=asked.log)
        assert server.poll() is None, asked.log()
        yield asked
    finally:
        server.terminate()
        server.wait(SECONDS)


def job(name: str, port: int, **more: Any) -> dict[str, Any]:
    """A scrape config."""
    return {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **more}


def _is_ready(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=SECONDS).close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True
