"""Readings become joules: the only place that remembers the last reading of a device."""

import math
from collections.abc import Iterable

from hf_eco2ai.energy.plausible import judge
from hf_eco2ai.records import CounterReading, Device, Energy, ErrorType, Failure, PowerReading, Reading

STUCK_AFTER_SECONDS = 1.0
"""Ten refresh periods of an NVML counter: one that stands still that long while the device draws power is not counting."""

STUCK_ABOVE_WATTS = 1.0

COUNTER_PATIENCE_SECONDS = 5.0
"""How long a counter may be silent, at the default interval, before the power readings of that time are taken instead."""

MIN_GAP_SECONDS = 2.0


class Integrator:
    """Joules of every device between its readings.

    Where a device has a counter, the counter is the truth, and power readings wait aside for an interval in which it fails.
    Where it has none, the trapezoid over the real timestamps of its power readings is. `max_gap` (s) bounds the time over
    which power may be interpolated: beyond it nothing is known, and nothing is reported. A counter may be silent for
    `patience` (s) before power is taken instead.
    """

    def __init__(self, max_gap: float, patience: float = COUNTER_PATIENCE_SECONDS) -> None:
        self._max_gap = max_gap
        self._patience = patience
        self._devices: dict[str, _DeviceIntegrator] = {}

    @classmethod
    def of_interval(cls, seconds: float) -> "Integrator":
        """For readings that come every so many seconds: one that is missed is no gap."""
        return cls(max_gap=max(MIN_GAP_SECONDS, 1.5 * seconds), patience=max(COUNTER_PATIENCE_SECONDS, 2.5 * seconds))

    def add(self, readings: Iterable[Reading], *, last: bool = False) -> tuple[list[Energy], list[Failure]]:
        """Energies that the readings of one pass complete, and what was wrong with them.

        With the `last` pass comes what has been waiting for a counter that will not come back.
        """
        passes: dict[str, list[Reading]] = {}
        for reading in readings:
            passes.setdefault(reading.device.id, []).append(reading)
        energies: list[Energy] = []
        failures: list[Failure] = []
        for key, device_readings in passes.items():
            integrator = self._devices.get(key)
            if integrator is None:
                integrator = self._devices[key] = _DeviceIntegrator(device_readings[0].device, self._max_gap, self._patience)
            integrator.add(device_readings, energies, failures)
        if last:
            for integrator in self._devices.values():
                integrator.release(energies)
        return energies, failures


class _DeviceIntegrator:
    """State of one device: its last counter reading, its last power reading, and the energy that waits for a verdict."""

    def __init__(self, device: Device, max_gap: float, patience: float) -> None:
        self._device = device
        self._max_gap = max_gap
        self._patience = patience
        self._counter: CounterReading | None = None
        self._power: PowerReading | None = None
        self._waiting: list[Energy] = []
        self._given_until = -math.inf
        self._stuck = False

    def add(self, readings: list[Reading], energies: list[Energy], failures: list[Failure]) -> None:
        counter: CounterReading | None = None
        for reading in readings:
            if isinstance(reading, CounterReading):
                counter = reading
            else:
                self._add_power(reading, failures)
        if counter is not None:
            self._add_counter(counter, energies, failures)
        elif self._counter is None or self._silent_for_too_long():
            self._counter = None
            self.release(energies)

    def _add_power(self, now: PowerReading, failures: list[Failure]) -> None:
        before = self._power
        if before is not None and now.at < before.at:
            return  # A reading from the past; the line goes on from the newest one.
        self._power = now
        if before is None or now.at == before.at:
            return
        seconds = now.at - before.at
        if seconds <= self._max_gap:
            joules = (before.watts + now.watts) / 2 * seconds
            slope = (now.watts - before.watts) / seconds
            self._waiting.append(Energy(self._device, before.at, now.at, joules, "trapezoid", slope))
        elif self._counter is None:
            failures.append(self._failure("gap", f"no power reading for {seconds:.1f} s; that time is reported as missing"))

    def _add_counter(self, now: CounterReading, energies: list[Energy], failures: list[Failure]) -> None:
        before = self._counter
        if now.at <= (self._given_until if before is None else before.at):
            return
        if before is not None and self._may_not_be_refreshed_yet(before, now):
            return
        self._counter = now
        if before is None:
            self.release(energies, now.at)
            return
        verdict = judge(before, now)
        # The first rise after a standstill may make up for all of it, and power has stood in for that already.
        catches_up, self._stuck = self._stuck, self._is_stuck(before, now)
        problem = verdict.problem or ("counter_stuck" if self._stuck or (catches_up and self._waiting) else None)
        if verdict.joules is not None and problem is None:
            if self._given_until < before.at:
                self.release(energies, before.at)
            energies.append(Energy(self._device, before.at, now.at, verdict.joules, "counter"))
            self._given_until = now.at
            later = [energy for energy in self._waiting if energy.end > now.at]
            self._waiting = [part for part in (_part(energy, now.at, energy.end) for energy in later) if part]
            return
        instead = "power readings stand in for it" if self._waiting else "that interval is reported as missing"
        failures.append(self._failure(problem or "counter_reset", f"energy counter not usable; {instead}"))
        self.release(energies, now.at)

    def _may_not_be_refreshed_yet(self, before: CounterReading, now: CounterReading) -> bool:
        """An unchanged counter says nothing before STUCK_AFTER_SECONDS; until then the interval goes on."""
        if now.joules != before.joules:
            return False
        return 0 < sum(energy.end - energy.start for energy in self._waiting) < STUCK_AFTER_SECONDS

    def _is_stuck(self, before: CounterReading, now: CounterReading) -> bool:
        if now.joules != before.joules or now.at - before.at < STUCK_AFTER_SECONDS or not self._waiting:
            return False
        joules = sum(energy.joules for energy in self._waiting)
        seconds = sum(energy.end - energy.start for energy in self._waiting)
        return joules > STUCK_ABOVE_WATTS * seconds

    def _silent_for_too_long(self) -> bool:
        if self._counter is None or not self._waiting:
            return False
        return self._waiting[-1].end - self._counter.at > self._patience

    def release(self, energies: list[Energy], until: float = math.inf) -> None:
        """Take the power readings of the time since the last good counter reading, up to `until`, after all."""
        taken = [part for part in (_part(energy, self._given_until, until) for energy in self._waiting) if part]
        self._waiting = [part for part in (_part(energy, until, math.inf) for energy in self._waiting) if part]
        if taken:
            energies.extend(taken)
            self._given_until = taken[-1].end

    def _failure(self, error_type: ErrorType, what: str) -> Failure:
        name = f"{self._device.component} {self._device.index or self._device.uuid}"
        return Failure(error_type, f"{error_type} {self._device.id}", f"{name}: {error_type.replace('_', ' ')}: {what}")


def _part(energy: Energy, start: float, end: float) -> Energy | None:
    """The part of `energy` that lies in [start, end]; None if there is none."""
    start, end = max(start, energy.start), min(end, energy.end)
    if start >= end:
        return None
    return energy._replace(start=start, end=end, joules=energy.between(start, end))
