"""The pipeline once round: read, integrate, account, show. One daemon thread does it, every measurement interval."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hf_eco2ai.devices import Reader
from hf_eco2ai.energy.integrator import Integrator
from hf_eco2ai.energy.share import Shares
from hf_eco2ai.energy.timeline import Mark, Timeline
from hf_eco2ai.footprint import Grid
from hf_eco2ai.footprint.account import account
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.records import (
    BudgetStatus,
    EndReason,
    Energy,
    Failure,
    Footprint,
    Forecast,
    Phase,
    Progress,
    Reading,
    RunState,
    Sample,
    Snapshot,
    Tariff,
    Telemetry,
)

logger = logging.getLogger("hf_eco2ai")

WAIT_SECONDS = 0.5
"""How long begin and end may wait for a reading; a driver that hangs longer does not hold up training."""

MARK_SPACING_SECONDS = 0.05
"""Marks closer than this share one reading: NVML refreshes its counters about every 0.1 s, so more would tell nothing more."""

LOOK_SECONDS, LOOK_AGAIN_SECONDS = 1.0, 0.05
"""How often to look whether training is still under way, and how soon again once it seems to be gone."""

REMEMBERED_CAUSES = 1000
"""So many different causes are logged once each; beyond, failures are only counted."""


class Monitor:
    """Measures one run from `start` to `stop`.

    `open_readers` is called in the monitor's own thread, since opening a driver may take seconds. `snapshot` is replaced by one
    assignment and may be read from any thread without a lock. Once started, nothing here raises and nothing blocks longer than
    `WAIT_SECONDS`.
    """

    def __init__(
        self,
        *,
        open_readers: Callable[[], Sequence[Reader]],
        ledger: Ledger,
        grid: Grid,
        tariff: Tariff,
        pue: float,
        progress: Callable[[], Progress],
        measurement_interval: float,
        power_interval: float,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        missing_since: Callable[[float], float | None] = lambda _now: None,
        how_it_ended: Callable[[], tuple[RunState, EndReason]] = lambda: ("failed", ""),
        abandoned: Callable[[], None] = lambda: None,
        shares: Shares | None = None,
        budgets: Callable[[Footprint, Forecast | None], tuple[BudgetStatus, ...]] = lambda _total, _forecast: (),
        details: Callable[[], dict[str, Any]] = dict,
        published: Callable[[Snapshot, bool], None] = lambda _snapshot, _marked: None,
    ) -> None:
        self._open_readers = open_readers
        self._readers: Sequence[Reader] = ()
        self._integrator = Integrator.of_interval(measurement_interval)
        self._timeline = Timeline()
        self._ledger = ledger
        self._grid = grid
        self._tariff = tariff
        self._pue = pue
        self._progress = progress
        self._interval = measurement_interval
        self._power_interval = power_interval
        self._now = now
        self._wall = wall
        self._missing_since = missing_since
        self._how_it_ended = how_it_ended
        self._abandoned = abandoned
        self._shares = shares if shares is not None else Shares()
        self._budgets = budgets
        self._details = details
        self._published = published
        self._marks: deque[Mark] = deque()
        self._failures: deque[Failure] = deque()
        self._known_causes: set[str] = set()
        self._state: RunState = "running"
        self._end_reason: EndReason = ""
        self._marked = False
        self._accounted_until = 0.0
        self._next_tick = 0.0
        self._next_power = 0.0
        self._next_look = 0.0
        self._last_tick = 0.0
        self._tick_seconds = 0.0
        self._wake = threading.Event()
        self._first_reading = threading.Event()
        self._finished = threading.Event()
        self._stopping = False
        self._last_pass = False
        self._left = False
        self._thread = threading.Thread(target=self._run, name="hf_eco2ai-sampler", daemon=True)
        self.snapshot: Snapshot | None = None
        """The run as of the last tick; None before the first."""

    # Called from the Trainer's thread

    def start(self, phase: Phase = "setup", wait: float = WAIT_SECONDS) -> None:
        """Begin to measure, and wait (at most `wait` s) until the first reading has been taken."""
        self.begin(phase)
        self._thread.start()
        self._first_reading.wait(wait)

    def mark(self, phase: Phase) -> None:
        """From this instant on the run is in `phase`. Only stores the instant and wakes the sampler."""
        self._marks.append(Mark(self._now(), phase))
        self._wake.set()

    def stop(self, state: RunState = "ended", reason: EndReason = "", wait: float = WAIT_SECONDS) -> None:
        """The run ends at this instant. Waits (at most `wait` s) until the last reading has been taken."""
        if self._finished.is_set():
            return
        self._end_reason, self._state = reason, state
        self._marks.append(Mark(self._now(), None))
        self._stopping = True
        self._wake.set()
        if not self._finished.wait(wait) and self.snapshot is not None:
            self.snapshot = replace(self.snapshot, state=state, end_reason=reason)

    def fail(self, failure: Failure) -> None:
        """Log a failure once per cause, and count it."""
        self._failures.append(failure)
        if failure.cause not in self._known_causes and len(self._known_causes) < REMEMBERED_CAUSES:
            self._known_causes.add(failure.cause)
            logger.warning("%s", failure.message)

    # The sampler's thread

    def _run(self) -> None:
        try:
            self._safely(self.open)
            while not self._stopping:
                delay = self.next_due() - self._now()
                if delay > 0:
                    self._wake.wait(delay)
                self._wake.clear()
                self._safely(self.step)
            self._safely(self.close)
        finally:
            self._first_reading.set()
            self._finished.set()
            if self._left:
                self._abandoned()

    def _safely(self, action: Callable[[], None]) -> None:
        """A defect of ours must not end the measurement, let alone the training: it is logged, counted, and tried again."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - foreign drivers are called below here
            self.fail(Failure("tick_failed", f"tick {type(error).__name__}", f"A measurement failed: {error!r}. It goes on."))
            # Nothing before the next interval, whatever was due: what fails at once would otherwise be tried without pause.
            self._next_tick = self._next_power = self._next_look = self._last_tick = self._now() + self._interval

    def begin(self, phase: Phase) -> None:
        """The run's first instant is now."""
        self._accounted_until = self._next_tick = self._next_power = self._next_look = self._now()
        self._marks.append(Mark(self._accounted_until, phase))

    def open(self) -> None:
        """Open the readers and take the first reading."""
        self._readers = self._open_readers()
        self._ledger.open(device for reader in self._readers for device in reader.devices)
        self._safely(self.step)
        self._first_reading.set()

    def next_due(self) -> float:
        """The instant at which `step` has something to do."""
        due = min(self._next_tick, self._next_look)
        if self._power_only():
            due = min(due, self._next_power)
        return min(due, self._last_tick + MARK_SPACING_SECONDS) if self._marks else due

    def step(self) -> None:
        """Do what is due: a regular tick, a tick for the marks that have come in, or only power readings."""
        now = self._now()
        if now >= self._next_look:
            self._look(now)
        if now >= self._next_tick:
            self.tick(regular=True)
            self._next_tick = _after(self._next_tick, self._interval, now)
        elif self._marks and now >= self._last_tick + MARK_SPACING_SECONDS:
            self.tick()
        if self._power_only() and now >= self._next_power:
            self.tick(power_only=True)
            self._next_power = _after(self._next_power, self._power_interval, now)

    def tick(self, *, power_only: bool = False, regular: bool = False) -> None:
        """Once round the pipeline.

        A `power_only` tick reads only devices without an energy counter, and shows nothing. A `regular` one ends a measurement
        interval, over which rates are taken.
        """
        began = self._now()
        sample = _merge([reader.read_power() if power_only else reader.read() for reader in self._readers])  # 1 read
        energies, failures = self._integrator.add(sample.readings, last=self._last_pass)  # 2 integrate
        factor, gpus = self._grid.factor(), sum(self._shares.of_now(gpu, began) for gpu in self._ledger.gpus())
        for phase, seconds, joules in self._by_phase(self._shares.own(energies)):  # 3 account
            footprint = account(joules, factor, self._tariff, self._pue, gpu_seconds=seconds * gpus)
            self._ledger.add(phase, seconds, footprint, factor.factor_type)
        for failure in (*sample.failures, *failures):
            self.fail(failure)
        if not power_only:
            self._publish(sample, regular=regular)  # 4 show
            self._last_tick = self._now()
            self._tick_seconds = self._last_tick - began

    def _by_phase(self, energies: Sequence[Energy]) -> list[tuple[Phase, float, float]]:
        """Wall seconds since the last time, and joules, in each phase. Every device gets its part on the way."""
        while self._marks:
            self._timeline.add(self._marks.popleft())
            self._marked = True
        until = max(self._now(), self._accounted_until)
        seconds: dict[Phase, float] = {}
        for start, end, phase in self._timeline.cut(self._accounted_until, until):
            seconds[phase] = seconds.get(phase, 0.0) + end - start
        self._accounted_until = until
        joules: dict[Phase, float] = {}
        for energy in energies:
            for start, end, phase in self._timeline.cut(energy.start, energy.end):
                part = energy.between(start, end)
                joules[phase] = joules.get(phase, 0.0) + part
                self._ledger.add_energy(energy, part, end - start)
        return [(phase, seconds.get(phase, 0.0), joules.get(phase, 0.0)) for phase in {**seconds, **joules}]

    def _publish(self, sample: Sample, *, regular: bool) -> None:
        self._ledger.see(sample)
        if regular:
            self._ledger.regular(self._accounted_until)
        while self._failures:
            self._ledger.count(self._failures.popleft().error_type)
        self.snapshot = self._ledger.snapshot(
            state=self._state,
            end_reason=self._end_reason,
            updated_unix=self._wall(),
            progress=self._progress(),
            factor=self._grid.factor(),
            tick_seconds=self._tick_seconds,
            budgets=self._budgets,
            **self._details(),
        )
        marked, self._marked = self._marked, False
        self._published(self.snapshot, marked)

    def close(self) -> None:
        """The last reading, the last snapshot, and the drivers given back."""
        self._last_pass = True
        self._next_tick = self._now()
        self._safely(self.step)
        for reader in self._readers:
            reader.close()

    def _look(self, now: float) -> None:
        """Has training been left without a word (an exception, Ctrl-C)? Then the run ended when that was first seen."""
        since = None if self._stopping else self._missing_since(now)
        if since is None:
            # On the schedule of the ticks, so that looking costs no waking of its own.
            self._next_look = _after(self._next_look, min(self._interval, LOOK_SECONDS), now)
        elif since == now:
            self._next_look = now + LOOK_AGAIN_SECONDS
        else:
            self._marks.append(Mark(since, None))
            self._state, self._end_reason = self._how_it_ended()
            self._stopping = self._left = True

    def _power_only(self) -> bool:
        return any(reader.power_only for reader in self._readers)


def _merge(samples: Sequence[Sample]) -> Sample:
    readings: list[Reading] = []
    telemetry: list[Telemetry] = []
    failures: list[Failure] = []
    for sample in samples:
        readings += sample.readings
        telemetry += sample.telemetry
        failures += sample.failures
    return Sample(tuple(readings), tuple(telemetry), tuple(failures))


def _after(due: float, interval: float, now: float) -> float:
    """The next instant of the schedule after `now`; what was missed is not made up for."""
    missed = max(0, int((now - due) / interval))
    return due + (missed + 1) * interval
