"""A real Trainer, with and without a daemon that serves the folder of its journal."""

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from hf_eco2ai import Eco2AICallback, Snapshot
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from tests.daemon.process import OURSELVES, Daemon, daemon, series, start, until
from tests.daemon.prometheus import needed, prometheus
from tests.trainer.tiny import At, config, trainer

pytestmark = pytest.mark.trainer

MONITOR = ["-c", "from hf_eco2ai.cli import main; main()", "monitor", "--quiet"]
QUICK = ["--set", "simulated_gpus=1", "--set", "country=DE", "--set", "prometheus_port=0"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def listening() -> list[Any]:
    """Ports that this process has opened."""
    return [one for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]


def only(shown: dict[str, float], name: str, *labels: str) -> float:
    """The one series of that name with these labels."""
    (found,) = [
        number for series, number in shown.items() if series.startswith(f"{name}{{") and all(label in series for label in labels)
    ]
    return found


def totals(snapshot: Snapshot) -> dict[str, float]:
    """What a run counts, as its own process would show it at the end."""
    shown = series(Exposition(lambda: (snapshot,), LabelRules()).render().decode())
    own = "hf_training_journal_bytes_total"  # Grows with the very line that tells it.
    return {name: number for name, number in shown.items() if "_total{" in name or "_count{" in name if not name.startswith(own)}


def test_with_a_daemon_training_opens_no_port_and_is_served_to_the_end_of_its_retention(tmp_path: Path, runs: Path) -> None:
    callback = Eco2AICallback(config(runs_dir=runs, journal_interval=1))
    before = listening()
    seen: dict[str, Any] = {}

    def look(serving: Daemon) -> None:
        snapshot = callback.snapshot
        assert snapshot is not None
        run = f"run_id='{snapshot.identity.run_id}'"
        until(lambda: any(name.startswith("hf_training_running{") and run in name for name in serving.series()))
        until(lambda: any(name.startswith("hf_training_gpu_power_watts{") for name in serving.series()))
        seen.update(run=run, url=callback.metrics_url, listening=listening(), shown=serving.series())

    with daemon(runs, "--retention", "5s") as serving:
        until(lambda: list(runs.glob("*.daemon.json")))
        url = serving.url
        trainer(tmp_path / "out", callback, At(10, lambda: look(serving))).train()
        report = callback.report
        assert report is not None
        run = seen["run"]
        until(lambda: only(serving.series(), "hf_training_running", run) == 0.0)
        after = serving.series()
        until(lambda: not any(run in name for name in serving.series()))
    assert seen["url"] == f"{url}/metrics"
    assert seen["listening"] == before
    assert only(seen["shown"], "hf_training_running", run) == 1.0
    assert not list(runs.glob("*.target.json"))
    expected = totals(report.snapshot)
    assert len(expected) > 20
    assert {name: after[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert not any(name.startswith(("hf_training_gpu_power_watts{", "hf_training_cpu_power_watts{")) for name in after)
    assert {line["level"] for line in serving.log()} == {"info"}, serving.text


def killed(runs: Path) -> Path:
    """What a run that was killed has left for Prometheus."""
    with start(OURSELVES, [*MONITOR, "--set", f"runs_dir={runs}", *QUICK, "--", "cat"], stdin=subprocess.PIPE) as process:
        until(
            lambda: list(runs.glob("*.target.json")) and any(path.read_bytes().count(b"\n") > 1 for path in runs.glob("*.ndjson"))
        )
        (left,) = runs.glob("*.target.json")
        process.kill()
    assert left.exists()
    return left


@needed
def test_without_a_daemon_prometheus_finds_the_run_by_a_file_while_it_lives(tmp_path: Path, runs: Path) -> None:
    left = killed(runs)
    callback = Eco2AICallback(config(runs_dir=runs, journal_interval=1))
    found: dict[str, Any] = {}
    jobs = [{"job_name": "trainings", "file_sd_configs": [{"files": [f"{runs}/*.target.json"]}]}]
    with prometheus(tmp_path / "prometheus", jobs) as asked:

        def look() -> None:
            snapshot = callback.snapshot
            assert snapshot is not None
            energy = f'hf_training_energy_kwh_total{{run_id="{snapshot.identity.run_id}"}}'
            until(lambda: asked.query(energy), what=asked.targets)
            until(lambda: not left.exists())
            (path,) = runs.glob("*.target.json")
            found.update(
                json.loads(path.read_text())[0], url=callback.metrics_url, joules=asked.query(energy)["trainings"] * 3.6e6
            )
            found["target"] = asked.targets()["trainings"]

        trainer(tmp_path / "out", callback, At(10, look)).train()
        assert list(runs.glob("*.target.json")) == []
    report = callback.report
    assert report is not None
    assert f"http://{found['targets'][0]}/metrics" == found["url"]
    assert found["target"]["scrapeUrl"] == found["url"]
    assert found["target"]["health"] == "up"
    assert 0 < found["joules"] <= report.snapshot.total.joules
    assert found["target"]["labels"].keys() == {"instance", "job"}


def test_what_a_killed_run_has_left_for_prometheus_is_cleared_by_the_daemon(runs: Path) -> None:
    left = killed(runs)
    with daemon(runs) as serving:
        until(lambda: not left.exists(), what=lambda: serving.text)
        until(lambda: any(name.startswith("hf_training_running{") for name in serving.series()))
        assert only(serving.series(), "hf_training_running") == 0.0
