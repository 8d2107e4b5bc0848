"""The whole way of an alert, on real servers: an exporter, Prometheus, Alertmanager, and stand-ins for those who are told."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.render import Place, render
from hf_eco2ai.stack.rules import alert_files
from tests.daemon.process import SECONDS, until
from tests.daemon.prometheus import Prometheus
from tests.stack.alertmanager import Alertmanager, alertmanager, told
from tests.stack.committed import THRESHOLDS
from tests.stack.native import free_ports
from tests.stack.receivers import ALL, Receivers, receivers

SHORT = ("budget_kept_for=3s", "exporter_down_for=1s", "stale_for=1s")
"""Thresholds instead of those that wait for minutes or an hour."""


class Exporter:
    """One that shows what it is told to show."""

    def __init__(self) -> None:
        self.text = ""
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(exporter.text.encode())

            def log_message(self, *_: Any) -> None:
                """Nothing on the screen."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def shows(self, project: str, run: str, used_ratio: float, limit_kg: float) -> None:
        """A run that has used so much of its carbon budget."""
        labels = f'project_name="{project}",run_id="{run}"'
        self.text = (
            f'hf_training_run_info{{{labels},model_name="meta-llama/Llama-3.1-8B",host="node1"}} 1\n'
            f'hf_training_budget_used_ratio{{{labels},budget="carbon",scope="run",period="none"}} {used_ratio}\n'
            f"hf_training_carbon_budget_kg{{{labels}}} {limit_kg}\n"
        )

    def stop(self) -> None:
        """It answers no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


@dataclass(frozen=True)
class Stack:
    """All of it."""

    prometheus: Prometheus
    alertmanager: Alertmanager
    receivers: Receivers

    def wait(self, count: int, word: str, names: Sequence[str] = ALL) -> None:
        """Until these channels have so many messages in which a word is."""

        def said() -> object:
            active = self.prometheus.ask("/api/v1/alerts")["alerts"]
            return {name: len(self.receivers.got(name, word)) for name in names}, active, self.alertmanager.log

        until(lambda: all(len(self.receivers.got(name, word)) >= count for name in names), what=said)


@contextmanager
def stack(root: Path, exporters: Sequence[str]) -> Iterator[Stack]:
    """Rendered from this repository's files, with short thresholds; everything is looked at once a second."""
    with receivers() as listening:
        folder, out = told(listening, root / "stack"), root / "out"
        links = Channels.read(folder / "alerting" / "channels.yml").links
        for name, text in alert_files(THRESHOLDS.changed(SHORT), links).items():
            (folder / "alerting" / "rules" / name).write_text(text, encoding="utf-8")

        def rendered(**targets: Sequence[str]) -> None:
            everything = {"hf-eco2ai": exporters, **targets}
            render(folder, out, Place(everything, f"{out}/alertmanager", scrape_interval="1s"))

        rendered()
        with alertmanager(out / "alertmanager") as told_by:
            rendered(alertmanager=[told_by.url.removeprefix("http://")])
            with _prometheus(out / "prometheus") as asked:
                yield Stack(asked, told_by, listening)


@contextmanager
def _prometheus(folder: Path) -> Iterator[Prometheus]:
    (port,) = free_ports(1)
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.external-url=http://localhost:9090",
    ]
    asked = Prometheus(f"http://127.0.0.1:{port}", folder / "log")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([shutil.which("prometheus") or "prometheus", *arguments], stderr=log, stdout=log)
    try:
        until(lambda: server.poll() is not None or "Server is ready" in asked.log(), what=asked.log)
        assert server.poll() is None, asked.log()
        yield asked
    finally:
        server.terminate()
        server.wait(SECONDS)
