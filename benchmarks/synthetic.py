"""A run whose figures follow from its number and its age alone, as records and as lines of a journal.

Every line is made from records by hf_eco2ai.journal.format, as a training's own are.
"""

import math
import os
import random
import socket
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.format import Header, ProcessIdentity
from hf_eco2ai.journal.read import boot_id, pid_namespace, process_started
from hf_eco2ai.journal.write import file_name
from hf_eco2ai.records import (
    ERROR_TYPES,
    FAILED_STEP_REASONS,
    PHASES,
    BudgetStatus,
    Device,
    DeviceStatus,
    DeviceTotals,
    EndReason,
    Footprint,
    Forecast,
    GridFactor,
    HostTotals,
    Method,
    Phase,
    Progress,
    Rates,
    RunIdentity,
    RunState,
    Snapshot,
    StepHistogram,
    Tariff,
    Telemetry,
)
from hf_eco2ai.run import STEP_BUCKETS

GERMANY = GridFactor(381.0, "lifecycle", "Ember 2024", "DE", "", 2024, "CC-BY-4.0")
TARIFF = Tariff(per_kwh=0.3, per_gpu_hour=2.5, currency="EUR")
PUE = 1.2

PROJECTS = ("chat", "code", "retrieval", "speech", "vision", "translation", "ranking", "safety")
MODELS = ("meta-llama/Llama-3.1-8B", "mistralai/Mistral-7B-v0.3", "Qwen/Qwen2.5-14B", "google/gemma-2-9b", "openai/whisper-small")
SHARES: dict[Phase, float] = {"setup": 0.02, "train": 0.9, "evaluate": 0.06, "save": 0.02}
"""Of a run's time, at each moment of it."""

STEPS_TO_DO = 1_000_000
BATCH, TOKENS, FLOPS = 8, 8192, 1.5e14
"""Samples, tokens and floating point operations of a step."""


def this_process() -> ProcessIdentity:
    """The one that runs this."""
    pid = os.getpid()
    return ProcessIdentity(pid=pid, started=process_started(pid) or 0.0, boot_id=boot_id(), pid_namespace=pid_namespace())


class Draw(NamedTuple):
    """A device and what it draws on average, in W."""

    device: Device
    watts: float


@dataclass(frozen=True)
class SyntheticRun:
    """One attempt of a run. Its figures are those of its age in seconds, so they agree with each other and never fall."""

    number: int
    began_unix: float
    began_monotonic: float
    process: ProcessIdentity
    host: str = field(default_factory=socket.gethostname)
    gpus: int = 8
    slot: int = 0
    """Which of its host's GPUs are its own: so many from number `slot * gpus` on."""
    interval: float = 5.0
    attempt: int = 1
    seconds_before: float = 0.0
    """How long earlier attempts have lasted, which `inherited` is of."""
    inherited: tuple[HostTotals, ...] = ()

    @property
    def run_id(self) -> str:
        """Its identity."""
        return f"{self.number:012x}"

    @cached_property
    def identity(self) -> RunIdentity:
        """Which run it is: of one of 8 projects, with one of 5 models."""
        return RunIdentity(
            run_id=self.run_id,
            project_name=PROJECTS[self.number % len(PROJECTS)],
            model_name=MODELS[self.number % len(MODELS)],
            host=self.host,
            experiment_name=f"sweep-{self.number % 20}",
            started_unix=self.began_unix - self.seconds_before,
            attempt=self.attempt,
        )

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """GPUs between 180 and 390 W, CPU and DRAM."""
        chance = random.Random(self.number)
        gpus = (
            Device(
                host=self.host,
                uuid=f"GPU-{number:08x}-1111-2222-3333-444444444444",
                component="gpu",
                basis="measured",
                source="NVML energy counter",
                index=str(number),
                model="NVIDIA H100 80GB HBM3",
                max_watts=1400.0,
            )
            for number in range(self.slot * self.gpus, (self.slot + 1) * self.gpus)
        )
        cpu = Device(self.host, "cpu", "cpu", "modelled", "CPU model (AMD EPYC 4th Gen)", idle_watts=90.0)
        dram = Device(self.host, "dram", "dram", "modelled", "DRAM model (1536 GB)")
        return (*(Draw(gpu, chance.uniform(180, 390)) for gpu in gpus), Draw(cpu, chance.uniform(90, 250)), Draw(dram, 48.0))

    @cached_property
    def watts(self) -> float:
        """Mean power of all devices."""
        return sum(draw.watts for draw in self.draws)

    @cached_property
    def header(self) -> Header:
        """As a training writes it."""
        return Header(
            at_unix=self.began_unix,
            monotonic=self.began_monotonic,
            run=lines.run(self.identity),
            host=self.host,
            attempt=self.attempt,
            launch=f"{self.run_id}-{self.attempt}",
            process=self.process,
            ranks={"rank": 0, "world_size": self.gpus},
            journal_interval=self.interval,
            begun_monotonic=self.began_monotonic,
            devices=[lines.header_device(draw.device) for draw in self.draws],
            factor=lines.factor(GERMANY),
            tariff=lines.prices(TARIFF),
            pue=PUE,
            config={"country": "DE", "pue": PUE, "carbon_budget_kg": 500.0},
            software={"hf_eco2ai": "0.1.0", "python": "3.11.7", "torch": "2.6.0", "transformers": "4.57.0"},
            inherited=[lines.host_used(totals) for totals in self.inherited],
            attempts_before=self.attempt - 1,
        )

    def footprint(self, seconds: float) -> Footprint:
        """What it uses in so many seconds."""
        kwh = self.watts * seconds / 3.6e6
        gpu_hours = seconds / 3600 * self.gpus
        return Footprint(kwh * 3.6e6, kwh * PUE * GERMANY.grams_per_kwh, kwh * PUE * 0.3, gpu_hours * 2.5)

    def totals(self, seconds: float) -> HostTotals:
        """What its host has used after so many seconds."""
        total = self.footprint(seconds)
        return HostTotals(
            host=self.host,
            total=total,
            grams_by_factor_type=(("lifecycle", total.grams),),
            phases=tuple((phase, self.footprint(seconds * SHARES.get(phase, 0.0))) for phase in PHASES),
            phase_seconds=tuple((phase, seconds * SHARES.get(phase, 0.0)) for phase in PHASES),
            devices=tuple(DeviceTotals(d.uuid, d.component, d.basis, watts * seconds, seconds) for d, watts in self.draws),
        )

    def progress(self, seconds: float) -> Progress:
        """How far training has come: a step each 0.5 to 2.5 s, with a loss that falls."""
        duration = 0.5 + self.number * 0.618034 % 2
        steps = int((self.seconds_before + seconds) / duration)
        bucket = next(number for number, bound in enumerate(STEP_BUCKETS) if duration <= bound)
        return Progress(
            steps=steps,
            global_step=steps,
            max_steps=STEPS_TO_DO,
            samples=BATCH * steps,
            tokens=TOKENS * steps,
            tokens_by_now=float(TOKENS * steps),
            flops=FLOPS * steps,
            flops_by_now=FLOPS * steps,
            loss=1.5 + 3 / math.sqrt(1 + steps) + self.number % 97 / 1e4,
            learning_rate=1e-4 * (1 - steps / STEPS_TO_DO),
            grad_norm=1 + math.sin(steps) / 3,
            samples_per_second=BATCH / duration,
            ratio=steps / STEPS_TO_DO,
            eta_seconds=(STEPS_TO_DO - steps) * duration,
            to_do_per_done=(STEPS_TO_DO - steps) / steps if steps else None,
            step_durations=StepHistogram(
                tuple(steps if number == bucket else 0 for number in range(len(STEP_BUCKETS) + 1)), steps * duration
            ),
            failed_steps=tuple((reason, 0) for reason in FAILED_STEP_REASONS),
        )

    def snapshot(self, seconds: float, state: RunState = "running", end_reason: EndReason = "") -> Snapshot:
        """Everything there is to know of it after so many seconds."""
        totals, progress = self.totals(seconds), self.progress(seconds)
        now = tuple(self._status(draw, seconds) for draw in self.draws)
        watts = sum(status.watts or 0.0 for status in now)
        rest = progress.to_do_per_done or 0.0
        per_hour = self.footprint(3600)
        return Snapshot(
            identity=self.identity,
            state=state,
            end_reason=end_reason,
            updated_unix=self.began_unix + seconds,
            attempt=totals,
            inherited=self.inherited,
            devices=now,
            gpu_count=self.gpus,
            cpu_watts=(("modelled", self.draws[-2].watts),),
            rates=Rates(watts, watts / self.watts * per_hour.grams, per_hour.cost),
            progress=progress,
            forecast=Forecast(totals.total.joules * (1 + rest), totals.total.grams * (1 + rest), 100.0),
            factor=GERMANY,
            tariff=TARIFF,
            pue=PUE,
            efficiency_score=0.7 + self.number % 23 / 100,
            observed_ratio=1.0,
            errors=tuple((error_type, 0) for error_type in ERROR_TYPES),
            tick_seconds=0.0012 + self.number % 13 / 1e5,
            budgets=(BudgetStatus("carbon", 500.0, totals.total.kg, 210.0),),
            journal_bytes=int(seconds / self.interval) * 4600,
        )

    def _status(self, draw: Draw, seconds: float) -> DeviceStatus:
        """A wave of a tenth about its mean, as evaluations and checkpoints make one."""
        device, mean = draw
        wave = 1 + 0.1 * math.sin(seconds / 7 + mean)
        telemetry = Telemetry(device, self.began_monotonic + seconds, 90 * wave, 6.5e10 * wave, 8.5e10, 60 * wave, 700.0)
        is_gpu = device.component == "gpu"
        before = sum(d.joules for totals in self.inherited for d in totals.devices if d.uuid == device.uuid)
        method: Method = "counter" if is_gpu else "trapezoid"
        joules = before + mean * seconds
        return DeviceStatus(device, joules, seconds, (method,), mean * wave, telemetry if is_gpu else None, mean / 4)

    def line(self, seconds: float, state: RunState = "running", end_reason: EndReason = "") -> bytes:
        """What its journal says after so many seconds: an end line, unless it is running."""
        snapshot = self.snapshot(seconds, state, end_reason)
        at = self.began_monotonic + seconds
        return lines.to_bytes(lines.totals_line(snapshot, self.header, monotonic=at, end=state != "running"))

    def path(self, folder: Path) -> Path:
        """Of its journal."""
        return folder / file_name(self.run_id, self.host, self.attempt)

    def begin(self, folder: Path, seconds: float) -> None:
        """Write its header, and what there is to say after so many seconds."""
        self.path(folder).write_bytes(lines.to_bytes(self.header) + self.line(seconds))

    def append(self, folder: Path, seconds: float, state: RunState = "running", end_reason: EndReason = "") -> None:
        """Write a line, in one call."""
        fd = os.open(self.path(folder), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(fd, self.line(seconds, state, end_reason))
        finally:
            os.close(fd)
