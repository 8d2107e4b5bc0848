"""SIGKILL of the daemon in the middle of everything. What counts goes on where it stood."""

import http.client
import itertools
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hf_eco2ai.journal.format import to_bytes
from hf_eco2ai.outputs.metrics import METRICS
from tests.daemon.process import OURSELVES, ROOT, SECONDS, Daemon, start, until
from tests.daemon.runs import begun, used
from tests.journal.make import put

RETENTION_SECONDS = 4
KILLS = 11

SIMULATED = ["--set", "simulated_gpus=3", "--set", "measurement_interval=0.1"]
NODE = ("hf_node_energy_joules_total", "hf_node_unattributed_energy_joules_total")
ENERGY = "hf_training_energy_kwh_total"

Counters = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A folder that is written to meanwhile."""
    folder = tmp_path / "runs"
    folder.mkdir()
    writer = start(OURSELVES, ["-m", "tests.daemon.writer", str(folder)], stdout=subprocess.PIPE, cwd=ROOT)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"all have begun\n"
        yield folder
        assert writer.poll() is None
        writer.kill()


def counters(text: str) -> Counters:
    """What only grows: counters, histograms, and counts without a type."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        if family.name.startswith(("hf_training_", "hf_node_")) and family.type in {"counter", "histogram", "unknown"}
        for sample in family.samples
    }


class Scraper:
    """Scrapes without a pause, whoever is there."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.scrapes: list[tuple[float, Counters]] = []
        """Those that were complete, with the instants at which they were asked for."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            asked = time.monotonic()
            try:
                self.scrapes.append((asked, counters(self._scrape())))
            except (OSError, http.client.HTTPException):
                continue

    def _scrape(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            assert response.status == 200
            return response.read().decode()
        finally:
            connection.close()

    def newest(self, since: float) -> Counters:
        """The last one that was asked for since then; empty where there is none."""
        return next((shown for at, shown in reversed(self.scrapes) if at > since), {})

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def killed_again_and_again(runs: Path, port: int, seed: int, *options: str) -> list[list[Counters]]:
    """What was scraped in each of its lives, the first of which lasts until the node has told of GPUs that nobody uses."""
    moments, never = random.Random(seed), threading.Event()
    more = [
        "--retention",
        f"{RETENTION_SECONDS}s",
        "--state-dir",
        str(runs.parent / f"state{seed}"),
        "--node",
        *SIMULATED,
        *options,
    ]
    lives: list[float] = []
    scraper = Scraper(port)
    try:
        for life in range(KILLS):
            lives.append(time.monotonic())
            daemon = Daemon(runs, *more, port=port)
            if life in {0, KILLS - 1}:
                until(lambda: all(value(scraper.newest(lives[-1]), name) > 1.0 for name in NODE))
            elif life % 3:  # Else it may be killed before it has said anything.
                until(lambda: scraper.newest(lives[-1]))
            never.wait(moments.uniform(0.0, 0.8))
            assert daemon.process.poll() is None, daemon.text
            daemon.kill()
            assert {line["level"] for line in daemon.log()} <= {"info"}, daemon.text
    finally:
        scraper.stop()
    return [[shown for at, shown in scraper.scrapes if a < at <= b] for a, b in itertools.pairwise([*lives, time.monotonic()])]


def falls(lives: list[list[Counters]]) -> Iterator[str]:
    """Every counter that stands lower than it has stood."""
    before: Counters = {}
    for number, life in enumerate(lives):
        for shown in life:
            yield from (
                f"life {number}: {one} falls from {before[one]} to {value}"
                for one, value in shown.items()
                if value < before.get(one, 0.0)
            )
            before.update(shown)


def value(shown: Counters, name: str, **labels: str) -> float:
    """The sum of the series of that name with these labels."""
    wanted = set(labels.items())
    return sum(value for (series, own), value in shown.items() if series == name and wanted <= own)


def test_no_counter_falls_when_the_daemon_is_killed_at_any_moment(runs: Path, free_ports: list[int]) -> None:
    with ThreadPoolExecutor(2) as pool:
        by_run = pool.submit(killed_again_and_again, runs, free_ports[0], 1)
        together = pool.submit(killed_again_and_again, runs, free_ports[1], 2, "--set", "run_label=false")
    for lives in (by_run.result(), together.result()):
        assert sum(bool(life) for life in lives) >= KILLS / 2
        first, last = next(life[0] for life in lives if life), lives[-1][-1]
        for name in (ENERGY, "hf_training_step_count", "hf_training_step_duration_seconds_count"):
            assert value(last, name) > value(first, name)
        assert value(last, NODE[0], device="SIMULATED-0") > value(first, NODE[0], device="SIMULATED-0")
        assert value(last, NODE[1], device="SIMULATED-0") == 0.0  # A run has used it all the time.
    # What a run's own process counts begins again with each attempt, whoever serves it.
    begins_again = {metric.name for metric in METRICS if metric.scope == "host"}
    assert [fall for fall in falls(by_run.result()) if not any(name in fall for name in begins_again)] == []
    assert list(falls(together.result())) == []
    # Runs whose retention has passed are gone where they had a name, and still count where they had none.
    assert not any(("run_id", "short0") in own for _, own in by_run.result()[-1][-1])
    present = [{one for one in life[-1] if one[0].startswith("hf_training_")} for life in together.result() if life]
    present = [shown for shown in present if shown]  # One that was killed before its first look has said nothing of runs.
    assert len(present) >= KILLS / 2
    assert all(before <= after for before, after in itertools.pairwise(present))


def test_a_large_folder_shows_no_run_before_it_has_been_read_after_a_restart(tmp_path: Path, free_port: int) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    begun_runs = [begun(f"run{n:03}") for n in range(500)]
    journals = [(begin, put(runs, [begin, used(begin, 10.0)])) for begin in begun_runs]
    options = ["--set", "run_label=false", "--state-dir", str(tmp_path / "state")]
    first = Daemon(runs, *options, port=free_port).ready()
    shown = [counters(first.get("/metrics").decode())]
    for begin, path in journals:
        with path.open("ab") as file:
            file.write(to_bytes(used(begin, 20.0)))
    until(lambda: value(counters(first.get("/metrics").decode()), ENERGY) == pytest.approx(500 * 312 * 20 / 3.6e6))
    shown.append(counters(first.get("/metrics").decode()))
    first.kill()
    scraper = Scraper(free_port)
    second = Daemon(runs, *options, port=free_port).ready()
    until(lambda: scraper.scrapes and value(scraper.scrapes[-1][1], ENERGY) > 0)
    scraper.stop()
    assert second.stop() == 0
    assert list(falls([[*shown, *(scrape for _, scrape in scraper.scrapes)]])) == []
