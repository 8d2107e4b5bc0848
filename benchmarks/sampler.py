"""What the sampler's thread costs."""

import http.client
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.cpu_model import CpuModel
from hf_eco2ai.devices.dram_model import DramModel
from hf_eco2ai.devices.simulated import Simulated
from hf_eco2ai.footprint.table import Table
from hf_eco2ai.journal.resume import fresh
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.live import LiveRun
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.records import RunIdentity, Tariff
from hf_eco2ai.run import RunProgress

Row = tuple[str, float, str, float]

GPUS = 8
SECONDS = 30.0
TICKS = 100_000


class Clock:
    """Moves by a second whenever it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:  # noqa: D102
        return self.seconds


def make_monitor(now: object = time.monotonic, interval: float = 1.0) -> Monitor:
    """Eight simulated GPUs, the CPU and DRAM models, prices and a budget: everything on."""
    assert callable(now)
    context = ReaderContext(host="bench", now=now, simulated_gpus=GPUS)
    tariff = Tariff(0.3, 2.5)
    progress = RunProgress()
    progress.begin(global_step=0, max_steps=10**9, batch_samples=8, epoch_size=None, tokens=0, flops=0.0)
    return Monitor(
        open_readers=lambda: [Simulated(GPUS, context), CpuModel(context), DramModel(context)],
        ledger=Ledger(RunIdentity("run", "project", "model", "bench"), tariff, 1.2),
        grid=Table("DE", ""),
        tariff=tariff,
        pue=1.2,
        progress=progress.progress,
        measurement_interval=interval,
        power_interval=0.1,
        now=now,
    )


def tick() -> Iterator[Row]:
    """Time of a tick beyond that of its drivers, which is that of reading the simulated GPUs."""
    clock = Clock()
    monitor = make_monitor(clock)
    monitor.begin("train")
    monitor.open()
    whole, drivers = [], []
    for _ in range(2000):
        clock.seconds += 1
        before = time.perf_counter()
        monitor.step()
        between = time.perf_counter()
        for reader in monitor._readers:  # noqa: SLF001
            reader.read()
        whole.append(between - before)
        drivers.append(time.perf_counter() - between)
    yield (
        f"tick, {GPUS} simulated GPUs, beyond the drivers, median",
        1e3 * statistics.median(a - b for a, b in zip(whole, drivers, strict=True)),
        "ms",
        0.5,
    )


def share_of_a_core() -> Iterator[Row]:
    """CPU time of our threads over half a minute in which the main thread trains: sampler, journal, and a scrape every 15 s."""
    _train_until(time.monotonic() + 1)
    with tempfile.TemporaryDirectory() as folder:
        config = CarbonConfig(
            country="DE",
            simulated_gpus=GPUS,
            electricity_price_per_kwh=0.3,
            gpu_price_per_hour=2.5,
            pue=1.2,
            carbon_budget_kg=5,
            runs_dir=Path(folder),
            prometheus_port=0,
            console_interval=0,
        )
        context = wiring.reader_context(config, Environment.read())
        run = LiveRun(config, fresh(time.time()), wiring.grid(config), context, model_name="bench", trainer="bench")
        run.progress.begin(global_step=0, max_steps=10**9, batch_samples=8, epoch_size=None, tokens=0, flops=0.0)
        run.start("train")
        connection = http.client.HTTPConnection(str(run.metrics_url).removeprefix("http://").removesuffix("/metrics"))
        _scrape(connection)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("hf_eco2ai")]
        clocks = [time.pthread_getcpuclockid(thread.ident) for thread in threads if thread.ident]
        before, began = sum(map(time.clock_gettime, clocks)), time.monotonic()
        for _ in range(2):
            _train_until(time.monotonic() + SECONDS / 2)
            _scrape(connection)
        used, elapsed = sum(map(time.clock_gettime, clocks)) - before, time.monotonic() - began
        run.close("ended")
        connection.close()
    what = f"share of one core, {GPUS} GPUs, every 1 s, while training, scraped every 15 s, with its journal"
    yield what, 100 * used / elapsed, "%", 0.1


def _train_until(end: float) -> None:
    """Steps of a small network on one thread."""
    import torch

    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 256))
    optimizer, batch = torch.optim.AdamW(network.parameters()), torch.randn(64, 256)
    while time.monotonic() < end:
        optimizer.zero_grad()
        ((network(batch) - batch) ** 2).mean().backward()
        optimizer.step()


def _scrape(connection: http.client.HTTPConnection) -> None:
    """As Prometheus does: over one kept-alive connection, gzipped."""
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    connection.getresponse().read()


def growth() -> Iterator[Row]:
    """Resident memory that 100,000 ticks add, after the first thousand."""
    clock = Clock()
    monitor = make_monitor(clock)
    monitor.begin("train")
    monitor.open()
    for number in range(TICKS):
        clock.seconds += 1
        if number % 3 == 0:
            monitor.mark("evaluate" if number % 2 else "train")
        monitor.step()
        if number == TICKS // 100:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    yield f"peak memory added by {TICKS:,} ticks", grown / 1024, "MB", 1.0
