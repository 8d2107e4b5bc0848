"""Some days of a small cluster, as daemons would have served them, in a Prometheus that did not have to wait for them.

The figures are those of benchmarks.synthetic, the lines are made by our own exposition, and promtool writes them as blocks.
Of the last hours there is everything, of the days before only what adds up.
"""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.synthetic import SyntheticRun, this_process
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.node_metrics import NodeMetrics
from hf_eco2ai.outputs.self_metrics import SelfMetrics, Watched
from hf_eco2ai.records import BudgetStatus, DeviceStatus, EndReason, Forecast, NodeDevice, NodeSnapshot, Rates, RunState, Snapshot

DAYS = 10
HOURS = 6.0
STEP = 15
"""Seconds between two scrapes, as in prometheus/prometheus.yml."""

SPARSE_STEP = 240
"""The same before the last hours: a query finds no value that is older than 5 minutes."""

RETENTION_HOURS = 6.0
"""So long a run that is over is served here."""

GPUS = 4
HOSTS = ("gpu-node-1", "gpu-node-2")
DAEMON = 'instance="{host}:9108",job="hf-eco2ai"'

_SAMPLE = re.compile(r"^(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


@dataclass(frozen=True)
class Pictured:
    """A run of the cluster. Its project and model follow from its number, as in benchmarks.synthetic."""

    number: int
    host: str
    began: float
    """Hours before the end of the history."""
    takes: float
    """Hours from its begin to its last step."""
    slot: int = 0
    fails_after: float = math.inf
    """Hours."""
    efficiency: float = 0.82
    budget_kg: float = 5.0


FLEET = (
    Pictured(0, HOSTS[0], 5.9, 8.0, budget_kg=6.5),
    Pictured(8, HOSTS[1], 5.5, 3.0, efficiency=0.74),
    Pictured(1, HOSTS[0], 4.4, 6.5, slot=1, efficiency=0.31, budget_kg=2.6),
    Pictured(3, HOSTS[1], 4.0, 5.0, slot=1, fails_after=1.6, efficiency=0.66),
    Pictured(4, HOSTS[1], 2.2, 4.0, slot=1, efficiency=0.88),
    *(
        Pictured(16 + day * 3 + turn, HOSTS[turn % 2], 24.0 * day + 9 * turn + 7, 5.0 + (7 * day + turn) % 6)
        for day in range(DAYS)
        for turn in range(2)
    ),
)

_ADDS_UP = re.compile(r"hf_training_(?:co2_kg|energy_kwh|samples)_total|hf_training_(?:estimated_cost_usd|run_info|running)\b")

_MACHINE = """\
node_uname_info{{nodename="{host}",{target}}} 1 {at:.3f}
node_cpu_seconds_total{{cpu="0",mode="idle",{target}}} {idle:.3f} {at:.3f}
node_cpu_seconds_total{{cpu="0",mode="user",{target}}} {user:.3f} {at:.3f}
node_memory_MemTotal_bytes{{{target}}} 549755813888 {at:.3f}
node_memory_MemAvailable_bytes{{{target}}} {available:.0f} {at:.3f}
"""
"""What node-exporter would say of a host, as far as dashboards ask."""


def backfill(data: Path, until: float) -> None:
    """Blocks of the history that ends then, in Unix seconds, into a folder that Prometheus will read."""
    _blocks(data, (line for host in HOSTS for line in days(host, until)))
    _blocks(data, (line for host in HOSTS for line in hours(host, until)))


def _blocks(data: Path, samples: Iterable[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".om", encoding="utf-8") as file:
        file.writelines(samples)
        file.write("# EOF\n")
        file.flush()
        # Of every block it reads the whole file.
        command = [
            "promtool",
            "tsdb",
            "create-blocks-from",
            f"--max-block-duration={DAYS * 24}h",
            "openmetrics",
            file.name,
            str(data),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def days(host: str, until: float) -> Iterator[str]:
    """What adds up, of the days before the last hours."""
    machine, target = Machine(host, until), DAEMON.format(host=host)
    for number in range(int((DAYS * 86400 - HOURS * 3600) / SPARSE_STEP)):
        at = until - DAYS * 86400 + number * SPARSE_STEP
        yield from (stamped(line, target, at) for line in machine.served(at) if _ADDS_UP.match(line))


def hours(host: str, until: float) -> Iterator[str]:
    """What a host's daemon served in the last hours, scrape by scrape, as Prometheus keeps it."""
    machine, target = Machine(host, until), DAEMON.format(host=host)
    for number in range(int(HOURS * 3600 / STEP)):
        at = until - HOURS * 3600 + (number + 1) * STEP
        yield from scrape(machine, target, at)
        yield machine.node_exporter(f'instance="{host}:9100",job="node"', at)


def scrape(machine: "Machine", target: str, at: float) -> Iterator[str]:
    """All that it serves then, and what Prometheus adds."""
    text = machine.served(at)
    yield f"up{{{target}}} 1 {at:.3f}\n"
    yield f"scrape_samples_post_metric_relabeling{{{target}}} {sum(line[0] != '#' for line in text)} {at:.3f}\n"
    yield f"scrape_duration_seconds{{{target}}} {0.009 + 0.001 * math.sin(at):.6f} {at:.3f}\n"
    yield from filter(None, (stamped(line, target, at) for line in text))


def stamped(line: str, target: str, at: float) -> str:
    """A sample with its target's labels and its time; nothing for what is no sample."""
    sample = _SAMPLE.match(line)
    if sample is None:
        return ""
    labels = f"{sample['labels']},{target}" if sample["labels"] else target
    return f"{sample['name']}{{{labels}}} {sample['value']} {at:.3f}\n"


class Machine:
    """A host with its daemon and its runs."""

    def __init__(self, host: str, until: float) -> None:
        self._host = host
        self._until = until
        self._now = until
        self._runs = [(one, synthetic(one, until)) for one in FLEET if one.host == host]
        rules = LabelRules()
        own = SelfMetrics(self._watched, rules)
        own.registry.register(NodeMetrics(self._node, rules))
        self._exposition = Exposition(self._snapshots, rules, own.registry)
        self._own = own

    def served(self, at: float) -> list[str]:
        """Lines of the exposition at that time."""
        self._now = at
        self._own.scraped("ok", 0.009)
        return self._exposition.render().decode().splitlines()

    def node_exporter(self, target: str, at: float) -> str:
        """The machine at that time."""
        busy = 0.2 * sum(snapshot.state == "running" for snapshot in self._snapshots())
        user = (0.2 + 0.15 * HOSTS.index(self._host)) * at + 200 * math.sin(at / 3000)
        return _MACHINE.format(host=self._host, target=target, at=at, idle=at - user, user=user, available=5.5e11 * (0.9 - busy))

    def _snapshots(self) -> tuple[Snapshot, ...]:
        ages = ((one, run, (self._now - run.began_unix) / 3600) for one, run in self._runs)
        return tuple(snapshot(one, run, self._now) for one, run, age in ages if 0 <= age < one.takes + RETENTION_HOURS)

    def _watched(self) -> Watched:
        states = [snapshot.state for snapshot in self._snapshots()]
        return Watched(
            journals=len(states),
            runs={state: states.count(state) for state in ("running", "ended", "failed", "lost")},
            left_out=0,
            series=self._exposition.series,
            lines_read=int(self._now - self._until + HOURS * 3600) // 5,
            refused={"unreadable": 0},
            failures={},
            read_unix={self._host: self._now - 2.0},
            look_unix=self._now - 1.0,
            look_seconds=0.004,
        )

    def _node(self) -> NodeSnapshot:
        seconds = self._now - self._until + HOURS * 3600
        devices = {draw.device.uuid: draw for _, run in self._runs for draw in run.draws}
        used = tuple(
            NodeDevice(draw.device, draw.watts * seconds, 0.08 * draw.watts * seconds, seconds, draw.watts)
            for draw in devices.values()
        )
        return NodeSnapshot(self._host, self._now, used)


def synthetic(one: Pictured, until: float) -> SyntheticRun:
    """The run, with this process as its own."""
    began = until - one.began * 3600
    return SyntheticRun(one.number, began, 0.0, this_process(), host=one.host, gpus=GPUS, slot=one.slot)


def snapshot(one: Pictured, run: SyntheticRun, now: float) -> Snapshot:
    """What there is to know of it at that time. It is as wasteful, as far and as near its budget as the fleet says."""
    age = min(now - run.began_unix, 3600 * min(one.takes, one.fails_after))
    state, end = ending(one, (now - run.began_unix) / 3600)
    made = run.snapshot(age, state, end)
    done = min(1.0, age / (one.takes * 3600))
    rest = (1 - done) / done if done > 0.02 else None
    total = made.attempt.total
    forecast = None
    if rest is not None and state == "running":
        cost = None if total.cost is None else total.cost * (1 + rest)
        forecast = Forecast(total.joules * (1 + rest), total.grams * (1 + rest), cost)
    predicted = None if forecast is None else forecast.grams / 1000
    progress = made.progress._replace(
        ratio=done,
        to_do_per_done=rest,
        eta_seconds=None if forecast is None else age * (rest or 0.0),
        samples_per_second=made.progress.samples_per_second if state == "running" else None,
        max_steps=max(1, int(made.progress.steps / done)) if done else 1,
        epochs=int(done * 3),
        eval_loss=None if made.progress.loss is None or age < 600 else made.progress.loss + 0.12,
    )
    made = replace(
        made,
        updated_unix=now,
        progress=progress,
        forecast=forecast,
        efficiency_score=one.efficiency,
        observed_ratio=0.998,
        budgets=(BudgetStatus("carbon", one.budget_kg, total.kg, predicted),),
    )
    return lively(made, run, one.efficiency, age) if state == "running" else silent(made)


def lively(made: Snapshot, run: SyntheticRun, efficiency: float, age: float) -> Snapshot:
    """What it draws now, which its rates agree with."""
    devices = tuple(status(device, age, efficiency) for device in made.devices)
    watts, hour = sum(device.watts or 0.0 for device in devices), run.footprint(3600)
    return replace(made, devices=devices, rates=Rates(watts, watts / run.watts * hour.grams, hour.cost))


def silent(made: Snapshot) -> Snapshot:
    """Of a run that is over nothing is said of the present."""
    devices = tuple(device._replace(watts=None, telemetry=None) for device in made.devices)
    return replace(made, devices=devices, rates=None, cpu_watts=())


def status(device: DeviceStatus, age: float, efficiency: float) -> DeviceStatus:
    """With waves that are long enough to be seen between scrapes, and dips for evaluations."""
    phase = sum(device.device.uuid.encode())
    wave = 1 + 0.02 * math.sin(age / 500 + phase) - (0.3 if age % 5400 < 240 else 0.0)
    telemetry = device.telemetry
    if telemetry is not None:
        use = min(99.0, round(100 * efficiency * 1.1 * wave))
        memory, celsius = 6.2e10 + 2e9 * (phase % 5), 58 * wave + phase % 7
        telemetry = telemetry._replace(utilization_percent=use, memory_used_bytes=memory, temperature_celsius=celsius)
    watts = device.joules / device.observed_seconds if device.observed_seconds else 0.0
    return device._replace(watts=watts * wave, telemetry=telemetry)


def ending(one: Pictured, hours: float) -> tuple[RunState, EndReason]:
    """The state that it is in, so many hours after it began."""
    if hours >= one.fails_after:
        return "failed", "exception"
    return ("ended", "completed") if hours >= one.takes else ("running", "")
