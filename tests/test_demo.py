"""The demo as a newcomer runs it, with a real Prometheus scraping it meanwhile."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.daemon.process import until
from tests.outputs.test_exposition import CONTRACT, NETWORK_ONLY

ROOT = Path(__file__).parents[1]

GPU_ONLY = {name for name, labels in CONTRACT.items() if "gpu_id" in labels} | {"hf_training_compute_cost_usd"}


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Until the server answers; an event that never comes fails after a minute."""
    pause = threading.Event()
    for _ in range(600):
        assert process.poll() is None, "Prometheus ended"
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except (urllib.error.URLError, ConnectionError):
            pause.wait(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")


@contextmanager
def prometheus(folder: Path, port: int, target: int) -> Iterator[str]:
    """A real server that scrapes the target every second."""
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: demo, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/-/ready", server)
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            server.terminate()
            server.wait(30)


def demo(folder: Path, port: int, *arguments: str, steps: int = 120, **environment: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples" / "train_tiny_gpt2.py"),
            "--steps",
            str(steps),
            "--output",
            str(folder),
            *arguments,
        ],
        env={**os.environ, "HF_ECO2AI_PROMETHEUS_PORT": str(port), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return " ".join(done.stdout.split())  # It is broken to the terminal's width where a terminal is announced.


def scraped(api: str, since: float) -> dict[str, list[dict[str, str]]]:
    """Every series that Prometheus has stored, by name."""
    query = urllib.parse.urlencode({"match[]": '{__name__=~"hf_training_.+"}', "start": since, "end": time.time() + 60})
    series: dict[str, list[dict[str, str]]] = {}
    for labels in ask(f"{api}/series?{query}")["data"]:
        series.setdefault(labels["__name__"], []).append(labels)
    return series


def test_prometheus_gets_every_family_of_the_guide_from_the_demo_with_simulated_gpus(
    tmp_path: Path, free_ports: list[int]
) -> None:
    began = time.time()
    with prometheus(tmp_path, free_ports[0], free_ports[1]) as api:
        said = demo(
            tmp_path,
            free_ports[1],
            "--simulated-gpus",
            "2",
            HF_ECO2AI_CARBON_BUDGET_KG="1",
            HF_ECO2AI_COUNTRY="us",
            HF_ECO2AI_REGION="CA",
        )
        series = scraped(api, began)
        reasons = {target["lastError"] for target in ask(f"{api}/targets")["data"]["activeTargets"]}
    for name, labels in CONTRACT.items():
        if name != NETWORK_ONLY:
            assert name in series, f"{name} was never scraped"
            assert all(labels <= row.keys() for row in series[name]), name
    assert all("refused" in reason or reason == "" for reason in reasons), "the exposition itself was refused"
    assert {row["gpu_model"] for row in series["hf_training_gpu_power_watts"]} == {"Simulated GPU"}
    assert {row["basis"] for row in series["hf_training_run_info"]} == {"simulated"}
    assert f"metrics at http://127.0.0.1:{free_ports[1]}/metrics" in said
    assert "[simulated]" in said
    assert "SIMULATED GPUs, not a measurement" in said


def test_prometheus_gets_every_family_that_applies_from_the_demo_without_a_gpu(tmp_path: Path, free_ports: list[int]) -> None:
    began = time.time()
    with prometheus(tmp_path, free_ports[0], free_ports[1]) as api:
        # Also where the stack is asked for, and nothing of it is installed.
        said = demo(tmp_path, free_ports[1], "--stack", HF_ECO2AI_CARBON_BUDGET_KG="1", PATH=str(tmp_path))
        series = scraped(api, began)
    missing = {name for name in CONTRACT if name not in series}
    assert missing == GPU_ONLY | {NETWORK_ONLY}
    assert "apt-get install prometheus prometheus-alertmanager" in said
    assert "ASSUMED: no country is set" in said
    assert "2024" in said
    assert re.search(r"CPU +[\d.,]+ J +modelled|CPU +[\d.,]+ J +measured", said)


@pytest.mark.skipif(shutil.which("prometheus-alertmanager") is None, reason="apt-get install prometheus-alertmanager")
def test_a_newcomer_is_shown_the_targets_and_alerts_of_his_own_run_and_how_to_end_it_all(tmp_path: Path, free_port: int) -> None:
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-c", "from hf_eco2ai.cli import main; main()", "stack"]

    def told(word: str) -> str:
        return subprocess.run([*command, word], env={**os.environ, **home}, capture_output=True, text=True, check=False).stdout

    try:
        said = demo(tmp_path, free_port, "--stack", steps=20, HF_ECO2AI_CARBON_BUDGET_KG="0.000001", **home)
        until(lambda: re.search(r"targets: (\d) of \1 up", told("status")), what=lambda: told("status"))
        until(lambda: re.search(r"CarbonBudgetExceeded +critical +firing +project_name=demo", told("status")))
    finally:
        ended = told("down")
    assert f"exporter http://localhost:{free_port} the runs" in said
    assert "What the monitoring stack has seen of it" in said
    assert "`hf-eco2ai stack down` ends it" in said
    assert "port_taken" not in said
    assert ended.startswith("Ended: exporter, prometheus, alertmanager")
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(process.info["cmdline"] or ())
    ]
