"""A node under compressed time: its runs write, are killed, are begun again, and their journals are deleted, all on one clock."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.synthetic import SyntheticRun
from hf_eco2ai.complaints import Complaints
from hf_eco2ai.journal.follow import Follower
from hf_eco2ai.journal.format import ProcessIdentity
from hf_eco2ai.journal.read import Here
from hf_eco2ai.outputs.app import build_app
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.folding import Folded, OfAll, OfThoseServed
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.self_metrics import SelfMetrics, Watched
from hf_eco2ai.records import RUN_STATES, EndReason, RunState, Snapshot

HOUR, DAY = 3600.0, 86_400.0
TICK = 4 * HOUR
LIFE_TICKS = 2
"""A run's last line comes so long after its first; what is killed, to be begun again, is killed half-way."""
PRUNED_AFTER = 3 * DAY
RETENTION = TICK
SLOTS = 8
"""GPUs of the node."""

EPOCH = 1_795_000_000.0
UPTIME = 10_000.0
HOST, BOOT, NAMESPACE = "node1", "11111111-2222-3333-4444-555555555555", "pid:[4026531836]"


class Node:
    """A machine on a clock of its own. Its runs write, and their files are of the time on that clock."""

    def __init__(self, folder: Path, runs_a_tick: int) -> None:
        self.folder = folder
        self._runs_a_tick = runs_a_tick
        self.seconds = 0.0
        self.begun = 0
        self._pids = itertools.count(1000)
        self._alive: dict[int, float] = {}
        self._live: list[SyntheticRun] = []
        self._files: list[tuple[float, Path]] = []
        folder.mkdir()

    def here(self) -> Here:
        """As a process on it knows it."""
        return Here(HOST, BOOT, NAMESPACE, self._alive.get)

    def wall(self) -> float:
        return EPOCH + self.seconds

    def now(self) -> float:
        return UPTIME + self.seconds

    def tick(self) -> None:
        """Four hours go by: runs begin, go on, end, are killed, are begun again, and old journals are deleted."""
        self.seconds += TICK
        for run in list(self._live):
            self._go_on(run, round((self.wall() - run.began_unix) / TICK))
        for _ in range(self._runs_a_tick):
            self.begun += 1
            run = SyntheticRun(self.begun, self.wall(), self.now(), self._process(), HOST, gpus=1, slot=self.begun % SLOTS)
            self._begin(run)
        while self._files and self._files[0][0] < self.seconds - PRUNED_AFTER:
            self._files.pop(0)[1].unlink()
        os.utime(self.folder, (self.wall(), self.wall()))

    def _process(self) -> ProcessIdentity:
        pid = next(self._pids)
        self._alive[pid] = self.now()
        return ProcessIdentity(pid=pid, started=self.now(), boot_id=BOOT, pid_namespace=NAMESPACE)

    def _begin(self, run: SyntheticRun) -> None:
        self._live.append(run)
        run.begin(self.folder, 0.0)
        self._touch(run)
        self._files.append((self.seconds, run.path(self.folder)))

    def _go_on(self, run: SyntheticRun, ticks: int) -> None:
        """Of four runs one is completed, one fails, one is killed, and one is killed and begun again."""
        end: dict[int, tuple[RunState, EndReason]] = {0: ("ended", "completed"), 1: ("failed", "out_of_memory")}
        kind = run.number % 4
        if kind == 3 and run.attempt == 1 and ticks == LIFE_TICKS // 2:
            self._stop(run)
            self._begin(self._resumed(run, ticks * TICK))
            return
        state, reason = end.get(kind if run.attempt == 1 else 0, ("running", ""))
        is_last = ticks == LIFE_TICKS
        run.append(self.folder, ticks * TICK, state if is_last else "running", reason if is_last else "")
        self._touch(run)
        if is_last:
            self._stop(run)

    def _resumed(self, run: SyntheticRun, seconds: float) -> SyntheticRun:
        return replace(
            run,
            began_unix=self.wall(),
            began_monotonic=self.now(),
            process=self._process(),
            attempt=run.attempt + 1,
            seconds_before=seconds,
            inherited=(run.totals(seconds),),
        )

    def _stop(self, run: SyntheticRun) -> None:
        self._live.remove(run)
        del self._alive[run.process.pid]

    def _touch(self, run: SyntheticRun) -> None:
        os.utime(run.path(self.folder), (self.wall(), self.wall()))


class Served:
    """What a daemon is made of, over a node's folder, on the node's clock, asked without a network."""

    def __init__(self, node: Node, loop: asyncio.AbstractEventLoop, *, run_label: bool) -> None:
        self._loop = loop
        rules = LabelRules(run_label=run_label)
        self.complaints = Complaints(now=node.now)
        self.follower = Follower(
            node.folder, node.here(), retention=RETENTION, refuse=self.complaints.line, wall=node.wall, now=node.now
        )
        self.kept: dict[str, Any] = {}
        self.self_metrics = SelfMetrics(self._watched, rules)
        folded: Folded = OfThoseServed() if run_label else OfAll({}, self._keep, node.now)
        self.exposition = Exposition(self._snapshots, rules, self.self_metrics.registry, folded=folded)
        app = build_app(
            self._snapshots,
            self.exposition,
            compression=True,
            version=lambda: (self._snapshots(), int(node.now())),
            observe=self.self_metrics.scraped,
        )
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    def _snapshots(self) -> tuple[Snapshot, ...]:
        return self.follower.snapshots

    def _keep(self, kept: dict[str, Any]) -> None:
        self.kept = kept

    def _watched(self) -> Watched:
        return Watched(
            journals=self.follower.journals,
            runs=dict.fromkeys(RUN_STATES, 0),
            left_out=self.follower.left_out,
            series=self.exposition.series,
            lines_read=self.follower.lines_read,
            refused=dict(self.complaints.lines),
            failures={},
            read_unix=self.follower.read_unix,
            look_unix=0.0,
            look_seconds=0.0,
        )

    def get(self, path: str) -> str:
        """What is answered."""
        response = self._loop.run_until_complete(self._client.get(path))
        assert response.status_code == 200, path
        return response.text

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())


@contextmanager
def serving(node: Node, *, run_label: bool) -> Iterator[Served]:
    with closing(asyncio.new_event_loop()) as loop, closing(Served(node, loop, run_label=run_label)) as served:
        yield served
