"""The files in prometheus/: promtool takes them all, and what they promise holds on real servers."""

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hf_eco2ai.stack import documents
from tests.daemon.process import SECONDS, daemon, until
from tests.daemon.prometheus import Prometheus, job, prometheus
from tests.daemon.runs import live

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "prometheus"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yml") if "rules" not in path.parts)
REMOTE = sorted((FOLDER / "remote-write").glob("*.yml"))

CURRENT = {
    "hf_training_energy_kwh_total": 1.5,
    "hf_training_step_duration_seconds_bucket": 4,
    "hf_training_debug_gradient": 7,
    "go_threads": 9,
}
"""What the stand-in for an exporter shows."""


class Exporter(http.server.BaseHTTPRequestHandler):
    """Shows the above."""

    def do_GET(self) -> None:
        text = "".join(f'{name}{{project_name="demo",run_id="0123456789ab"}} {value}\n' for name, value in CURRENT.items())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def exporter() -> Iterator[int]:
    """Its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextmanager
def configured(folder: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus with more in its configuration than jobs."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log)
    asked = Prometheus(f"http://127.0.0.1:{port}", folder / "log")
    try:
        until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/-/ready"), what=asked.log)
        assert server.poll() is None, asked.log()
        yield asked
    finally:
        server.terminate()
        server.wait(SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=SECONDS).close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def fast(config: Any, port: int, *, interval: str = "1s") -> Any:
    """An example at the pace of a test, with the only target of its first job at a port of this machine."""
    config["global"] = {**config.get("global", {}), "scrape_interval": interval, "scrape_timeout": interval}
    config["global"].pop("evaluation_interval", None)
    for made in config["scrape_configs"]:
        for name in ("scrape_interval", "scrape_timeout", "file_sd_configs"):
            made.pop(name, None)
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    return config


def address(server: Prometheus) -> str:
    """host:port."""
    return server._url.partition("://")[2]


def found(server: Prometheus, selector: str) -> list[dict[str, str]]:
    """Series that a query gives."""
    return [row["metric"] for row in server.ask("/api/v1/query", query=selector)["result"]]


def test_there_are_the_examples_that_the_guide_asks_for() -> None:
    assert FILES == [
        "federation.yml",
        "prometheus.yml",
        "relabel-debug.yml",
        "remote-write/mimir.yml",
        "remote-write/thanos.yml",
        "remote-write/victoriametrics.yml",
    ]


@pytest.mark.parametrize("name", FILES)
def test_promtool_takes_every_file(name: str) -> None:
    done = subprocess.run(["promtool", "check", "config", name], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout


def test_the_jobs_are_those_of_the_stack_and_none_names_a_machine() -> None:
    config = documents.read(FOLDER / "prometheus.yml")
    jobs = {made["job_name"]: made for made in config["scrape_configs"]}
    assert list(jobs) == ["hf-eco2ai", "hf-eco2ai-runs", "node", "dcgm", "prometheus", "alertmanager"]
    assert config["global"]["scrape_interval"] == "15s"
    assert not any("static_configs" in made or "scrape_interval" in made for made in jobs.values())
    for name in jobs.keys() - {"hf-eco2ai-runs"}:
        assert jobs[name]["file_sd_configs"] == [{"files": [f"targets/{name}.json"]}]
    assert jobs["hf-eco2ai-runs"]["file_sd_configs"][0]["files"] == ["targets/runs/*.target.json"]


def test_a_scrape_of_the_daemon_may_be_larger_than_the_alert_on_cardinality_says() -> None:
    thresholds = documents.read(ROOT / "alerting" / "thresholds.yml")
    (made,) = [made for made in documents.read(FOLDER / "prometheus.yml")["scrape_configs"] if made["job_name"] == "hf-eco2ai"]
    assert made["sample_limit"] > thresholds["series_of_target"]


def test_the_limits_of_a_scrape_let_a_run_with_the_longest_labels_in(tmp_path: Path) -> None:
    """128 characters of four bytes each, which is what the exporter lets through."""
    (tmp_path / "runs").mkdir()
    longest = "\N{SLICE OF PIZZA}" * 128
    live(tmp_path / "runs", "pizza", project_name=longest, gpus=8)
    config = documents.read(FOLDER / "prometheus.yml")
    with daemon(tmp_path / "runs") as serving:
        jobs = fast(config, serving.port)["scrape_configs"][:1]
        with prometheus(tmp_path / "prometheus", jobs) as server:
            until(lambda: server.health("hf-eco2ai") not in {"", "unknown"}, what=server.targets)
            assert server.targets()["hf-eco2ai"]["lastError"] == ""
            until(lambda: found(server, f'hf_training_running{{project_name="{longest}"}}'))


def test_federation_keeps_the_clusters_apart_and_their_labels(tmp_path: Path, exporter: int) -> None:
    recorded = {
        "groups": [
            {"name": "r", "rules": [{"record": "project:hf_training_energy_kwh:sum", "expr": "hf_training_energy_kwh_total"}]}
        ]
    }
    (tmp_path / "rules.yml").write_text(json.dumps(recorded))
    cluster = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.yml")],
        "scrape_configs": [job("hf-eco2ai", exporter)],
    }

    def named(name: str) -> dict[str, Any]:
        return {**cluster, "global": {**cluster["global"], "external_labels": {"cluster": name}}}  # type: ignore[dict-item]

    federation = documents.read(FOLDER / "federation.yml")
    with configured(tmp_path / "a", named("berlin")) as a, configured(tmp_path / "b", named("oslo")) as b:
        config = fast(federation, 0)
        config["scrape_configs"][0]["static_configs"] = [{"targets": [address(a), address(b)]}]
        with configured(tmp_path / "above", config) as above:
            for series in ("hf_training_energy_kwh_total", "project:hf_training_energy_kwh:sum", "up"):
                selector = series + '{job="hf-eco2ai",cluster!=""}'
                until(lambda asked=selector: len(found(above, asked)) == 2, what=above.log)  # type: ignore[misc]
                assert {row["cluster"] for row in found(above, selector)} == {"berlin", "oslo"}
                assert {row["instance"] for row in found(above, selector)} == {f"127.0.0.1:{exporter}"}
            assert not found(above, '{__name__=~".*_bucket|go_threads",job="hf-eco2ai"}')


def test_series_that_nobody_asks_for_are_dropped_by_the_example(tmp_path: Path, exporter: int) -> None:
    (tmp_path / "runs").mkdir()
    config = documents.read(FOLDER / "relabel-debug.yml")
    with daemon(tmp_path / "runs") as serving:
        made = fast(config, exporter)
        made["scrape_configs"][0]["static_configs"][0]["targets"].append(f"127.0.0.1:{serving.port}")
        with configured(tmp_path / "prometheus", made) as server:
            until(lambda: found(server, "hf_training_energy_kwh_total"), what=server.log)
            until(lambda: found(server, "hf_exporter_scrape_duration_seconds_count"), what=server.log)
            assert found(server, "go_threads")
            assert not found(server, '{__name__=~"hf_training_debug.*|hf_exporter.*_bucket"}')
            dropped = server.query("sum by (job) (scrape_samples_scraped - scrape_samples_post_metric_relabeling)")
            assert dropped["hf-eco2ai"] >= 1


@contextmanager
def victoria(folder: Path) -> Iterator[str]:
    """Its URL. It hides nothing that is younger than its usual 30 s."""
    port = free_port()
    arguments = [f"-storageDataPath={folder}/victoria", f"-httpListenAddr=127.0.0.1:{port}", "-search.latencyOffset=0s"]
    with (folder / "victoria.log").open("wb") as log:
        server = subprocess.Popen(["victoria-metrics", *arguments], stderr=log, stdout=log)
    try:
        until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/health"))
        assert server.poll() is None, (folder / "victoria.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(SECONDS)


@pytest.mark.skipif(shutil.which("victoria-metrics") is None, reason="apt-get install victoria-metrics")
def test_every_remote_write_example_brings_runs_to_victoriametrics_and_nothing_else(tmp_path: Path, exporter: int) -> None:
    """Thanos and Mimir take the same protocol; only where, and as whom, differs."""
    began = str(time.time() - 60)
    with victoria(tmp_path) as url, ExitStack() as servers:
        stored = Prometheus(url, tmp_path / "victoria.log")
        for example in REMOTE:
            servers.enter_context(configured(tmp_path / example.stem, sending(example, f"{url}/api/v1/write", exporter)))
        expected = {name for name in CURRENT if name.startswith("hf_")} | {"up"}
        for example in REMOTE:
            query = {"match[]": f'{{example="{example.stem}"}}', "start": began}

            def names(query: Mapping[str, str] = query) -> set[str]:
                return {row["__name__"] for row in stored.ask("/api/v1/series", **query)}

            until(lambda asked=names: "up" in asked() and len(asked()) >= len(expected), what=stored.log)  # type: ignore[misc]
            assert names() == expected


def sending(example: Path, url: str, exporter: int) -> Any:
    """The example, at the pace of a test, and marked."""
    config = documents.read(example)
    (remote,) = config["remote_write"]
    remote["url"] = url
    remote["queue_config"]["batch_send_deadline"] = "1s"
    own = config.get("global", {}).get("external_labels", {})
    labels = {**own, "example": example.stem}
    pace = {"scrape_interval": "1s", "scrape_timeout": "1s", "external_labels": labels}
    return {"global": pace, "remote_write": [remote], "scrape_configs": [job("hf-eco2ai", exporter)]}
