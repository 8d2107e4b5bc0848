"""Nothing grows with the number of runs that have been: a month in a few seconds, and a real daemon whose runs come and go."""

import gc
import http.client
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.synthetic import SyntheticRun, this_process
from hf_eco2ai.journal.follow import OVER_SECONDS
from hf_eco2ai.outputs.folding import REMEMBERED_RUNS
from tests.daemon.process import SECONDS, Daemon, daemon, until
from tests.daemon.simulated import DAY, TICK, Node, serving

DAYS = 30
TICKS_A_DAY = int(DAY / TICK)
WARM_UP_DAYS = 16
"""Journals have been pruned by then and, where runs are together, more have left than are remembered one by one."""
RUNS_A_TICK = {True: 4, False: 12}
"""By `run_label`."""

BLOCKS_A_RUN = 8
"""Of Python's small blocks of memory, what a run that has been may leave behind: its identity as a cleaned label value, of which
a bounded number is remembered. A header, a line, a snapshot or what is rendered of a run is hundreds."""

BATCH = 10
"""Runs that come and go together in the second soak."""
WARM_UP_SECONDS = OVER_SECONDS + 2
"""By then it has been noticed that the journals of the first runs are gone."""
SOAK_SECONDS = 8.0
FEWEST_RUNS = 100
MEGABYTES = 8.0
"""That a daemon may grow in the latter: memory is in fragments. What is known of 500 runs of 8 GPUs would be 30."""


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def blocks() -> int:
    """In use, of those that Python's own allocator hands out: nearly every object is in one. Costs nothing, as tracing would."""
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.parametrize("run_label", [True, False], ids=["each run by itself", "runs together"])
def test_a_month_of_runs_leaves_nothing_behind(run_label: bool, tmp_path: Path) -> None:
    runs_a_day = RUNS_A_TICK[run_label] * TICKS_A_DAY
    assert run_label or (WARM_UP_DAYS - 1) * runs_a_day > REMEMBERED_RUNS
    node = Node(tmp_path / "runs", RUNS_A_TICK[run_label])
    days: list[tuple[int, int, int]] = []
    with serving(node, run_label=run_label) as served:
        for _ in range(DAYS):
            most_series = 0
            for _ in range(TICKS_A_DAY):
                node.tick()
                served.follower.look()
                lines = served.get("/metrics").splitlines()
                most_series = max(most_series, sum(not line.startswith("#") for line in lines))
            served.get("/")
            served.get("/api/v1/runs")
            days.append((most_series, open_files(os.getpid()), blocks()))
        present = {snapshot.identity.run_id for snapshot in served.follower.snapshots}
    warm, later = days[WARM_UP_DAYS - 1], days[WARM_UP_DAYS:]
    assert max(series for series, _, _ in later) == warm[0]
    assert {files for _, files, _ in later} == {warm[1]}
    assert later[-1][2] - warm[2] < BLOCKS_A_RUN * runs_a_day * len(later)
    assert node.begun == runs_a_day * DAYS
    assert sum(served.complaints.lines.values()) == 0
    assert len(served.kept.get("runs", ())) in ({0} if run_label else {REMEMBERED_RUNS + len(present)})


class Size(NamedTuple):
    """Of a daemon that serves no run."""

    megabytes: float
    """Resident."""
    files: int
    series: int


class Crowd:
    """Runs of this process that come and go, and a Prometheus that looks at each of them."""

    def __init__(self, folder: Path, served: Daemon) -> None:
        self._folder = folder
        self._pid = served.process.pid
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
        self._numbers = itertools.count()
        self.been = 0

    def come_and_go(self, seconds: float) -> None:
        """Batch by batch, for so long: they begin, are scraped, end, are scraped, and their journals are deleted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            runs = [self._run(number) for number in itertools.islice(self._numbers, BATCH)]
            for run in runs:
                run.begin(self._folder, 1.0)
            self._wait_for(f'hf_exporter_runs{{state="running"}} {float(BATCH)}')
            for run in runs:
                run.append(self._folder, 2.0, "ended", "completed")
            self._wait_for('hf_exporter_runs{state="running"} 0.0')
            for run in runs:
                run.path(self._folder).unlink()
            self.been += BATCH
        self._wait_for('hf_exporter_runs{state="ended"} 0.0')

    def size(self) -> Size:
        """What the daemon takes now."""
        status = Path(f"/proc/{self._pid}/status").read_text(encoding="ascii")
        resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
        series = sum(not line.startswith("#") for line in self._scrape().splitlines())
        return Size(resident / 1024, open_files(self._pid), series)

    def close(self) -> None:
        self._connection.close()

    def _run(self, number: int) -> SyntheticRun:
        return SyntheticRun(number, time.time() - 1, time.monotonic() - 1, this_process())

    def _wait_for(self, line: str) -> None:
        os.kill(self._pid, signal.SIGHUP)
        until(lambda: line in self._scrape().splitlines())

    def _scrape(self) -> str:
        self._connection.request("GET", "/metrics")
        return self._connection.getresponse().read().decode()


@contextmanager
def crowd(folder: Path) -> Iterator[Crowd]:
    folder.mkdir()
    with daemon(folder, "--retention", "1s") as served:
        runs = Crowd(folder, served)
        try:
            yield runs
        finally:
            runs.close()


def test_a_daemon_is_as_small_after_many_short_runs_as_after_a_few(tmp_path: Path) -> None:
    with crowd(tmp_path / "runs") as runs:
        runs.come_and_go(WARM_UP_SECONDS)
        warm, been = runs.size(), runs.been
        runs.come_and_go(SOAK_SECONDS)
        size = runs.size()
    assert runs.been - been >= FEWEST_RUNS
    assert size.megabytes - warm.megabytes < MEGABYTES
    assert (size.files, size.series) == (warm.files, warm.series)
