"""A run whose every figure can be worked out by hand: two seconds of tests/golden/recording.jsonl on a clock of our own.

GPU-aaaa's counter rises by 1200 J. GPU-bbbb has power only: (100+500)/2 + 500 = 800 J. The CPU uses 200 J, the DRAM 50.176 J.
Together 2250.176 J. Ten steps of 8 samples in the two seconds; the set-up lasts half a second.
"""

from dataclasses import replace
from pathlib import Path

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.replay import Replay
from hf_eco2ai.footprint.budget import Budget, Budgets
from hf_eco2ai.footprint.table import Table
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.records import RunIdentity, Snapshot, Tariff
from hf_eco2ai.run import RunProgress

RECORDING = Path(__file__).parents[1] / "golden" / "recording.jsonl"

IDENTITY = RunIdentity(
    run_id="0123456789ab",
    project_name="llama-finetune",
    model_name="meta-llama/Llama-3.1-8B",
    host="node1",
    experiment_name="lora",
)
TARIFF = Tariff(per_kwh=0.25, per_gpu_hour=3.6, currency="EUR")
JOULES = 1200 + 800 + 200 + 50.176


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def recorded_run() -> Snapshot:
    """The run, still running, after two seconds."""
    clock = Clock()
    context = ReaderContext(host="node1", now=clock, replay=RECORDING)
    progress = RunProgress()
    said: list[str] = []
    monitor = Monitor(
        open_readers=lambda: [Replay(RECORDING, context)],
        ledger=Ledger(IDENTITY, TARIFF, pue=1.2),
        grid=Table("DE", ""),
        tariff=TARIFF,
        pue=1.2,
        progress=progress.progress,
        measurement_interval=1.0,
        power_interval=0.1,
        now=clock,
        wall=lambda: 1_795_000_000.0 + clock.seconds,
        budgets=Budgets([Budget("carbon", 5.0)], said.append).judge,
    )
    monitor.begin("setup")
    monitor.open()
    progress.begin(global_step=0, max_steps=40, batch_samples=8, epoch_size=80, tokens=0, flops=0.0)
    progress.epoch_begin()
    clock.seconds = 100.5
    monitor.mark("train")
    for step in range(10):
        progress.step_begin(100.5 + 0.15 * step)
        progress.step_end(100.5 + 0.15 * (step + 1), step + 1)
    progress.epoch_end(1.0)
    progress.log({"loss": 2.5, "learning_rate": 1e-4, "grad_norm": 1.5, "eval_loss": 2.75})
    progress.tokens_seen(10240)
    progress.flops_done(4.5e12)
    for seconds in (101.0, 102.0):
        clock.seconds = seconds
        monitor.step()
    snapshot = monitor.snapshot
    assert snapshot is not None
    assert said == []  # 5 kg is far away.
    return replace(snapshot, tick_seconds=0.001)
