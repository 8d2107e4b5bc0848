"""Readings become joules: the only place that remembers the last reading of a device."""

from collections.abc import Iterable

from hf_eco2ai.energy.plausible import judge
from hf_eco2ai.records import CounterReading, Device, Energy, ErrorType, Failure, PowerReading, Reading

STUCK_AFTER_SECONDS = 1.0
"""Ten refresh periods of an NVML counter: one that stands still that long while the device draws power is not counting."""

STUCK_ABOVE_WATTS = 1.0

COUNTER_PATIENCE_SECONDS = 5.0
"""How long a counter may be silent before the power readings of that time are taken instead."""


class Integrator:
    """Joules of every device between its readings.

    Where a device has a counter, the counter is the truth, and power readings wait aside for an interval in which it fails.
    Where it has none, the trapezoid over the real timestamps of its power readings is. `max_gap` (s) bounds the time over
    which power may be interpolated: beyond it nothing is known, and nothing is reported.
    """

    def __init__(self, max_gap: float) -> None:
        self.max_gap = max_gap
        self._devices: dict[str, _DeviceIntegrator] = {}

    def add(self, readings: Iterable[Reading]) -> tuple[list[Energy], list[Failure]]:
        """Energies that the readings of one pass complete, and what was wrong with them."""
        passes: dict[str, list[Reading]] = {}
        for reading in readings:
            passes.setdefault(reading.device.id, []).append(reading)
        energies: list[Energy] = []
        failures: list[Failure] = []
        for key, device_readings in passes.items():
            integrator = self._devices.get(key)
            if integrator is None:
                integrator = self._devices[key] = _DeviceIntegrator(device_readings[0].device, self.max_gap)
            integrator.add(device_readings, energies, failures)
        return energies, failures

    def finish(self) -> list[Energy]:
        """Energies that still wait for a counter that will not come back. Call once, after the last pass."""
        energies: list[Energy] = []
        for integrator in self._devices.values():
            integrator.release(energies)
        return energies


class _DeviceIntegrator:
    """State of one device: its last counter reading, its last power reading, and the energy that waits for a verdict."""

    def __init__(self, device: Device, max_gap: float) -> None:
        self._device = device
        self._max_gap = max_gap
        self._counter: CounterReading | None = None
        self._power: PowerReading | None = None
        self._waiting: list[Energy] = []

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
        before, self._power = self._power, now
        if before is None or now.at <= before.at:
            return
        seconds = now.at - before.at
        if seconds <= self._max_gap:
            joules = (before.watts + now.watts) / 2 * seconds
            slope = (now.watts - before.watts) / seconds
            self._waiting.append(Energy(self._device, before.at, now.at, joules, "trapezoid", slope))
        elif self._counter is None:
            failures.append(self._failure("gap", f"no power reading for {seconds:.1f} s; that time is reported as missing"))

    def _add_counter(self, now: CounterReading, energies: list[Energy], failures: list[Failure]) -> None:
        before, self._counter = self._counter, now
        if before is None:
            self.release(energies)
            return
        if now.at <= before.at:
            self._counter = before
            return
        verdict = judge(before, now)
        problem = verdict.problem or ("counter_stuck" if self._is_stuck(before, now) else None)
        if verdict.joules is not None and problem is None:
            energies.append(Energy(self._device, before.at, now.at, verdict.joules, "counter"))
            self._waiting.clear()
            return
        instead = "power readings stand in for it" if self._waiting else "that interval is reported as missing"
        failures.append(self._failure(problem or "counter_reset", f"energy counter not usable; {instead}"))
        self.release(energies)

    def _is_stuck(self, before: CounterReading, now: CounterReading) -> bool:
        if now.joules != before.joules or now.at - before.at < STUCK_AFTER_SECONDS or not self._waiting:
            return False
        joules = sum(energy.joules for energy in self._waiting)
        seconds = sum(energy.end - energy.start for energy in self._waiting)
        return joules > STUCK_ABOVE_WATTS * seconds

    def _silent_for_too_long(self) -> bool:
        if self._counter is None or not self._waiting:
            return False
        return self._waiting[-1].end - self._counter.at > COUNTER_PATIENCE_SECONDS

    def release(self, energies: list[Energy]) -> None:
        """Take the power readings of the time since the last good counter reading after all."""
        energies.extend(self._waiting)
        self._waiting.clear()

    def _failure(self, error_type: ErrorType, what: str) -> Failure:
        name = f"{self._device.component} {self._device.index or self._device.uuid}"
        return Failure(error_type, f"{error_type} {self._device.id}", f"{name}: {error_type.replace('_', ' ')}: {what}")
