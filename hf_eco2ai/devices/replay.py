"""Plays a recording back: the same readings at the same instants, for tests, demonstrations and bug reports.

A recording is a text file of JSON lines. The first line names the devices, every further one is a pass over some of them::

    {"devices": [{"uuid": "GPU-1", "component": "gpu", "basis": "measured", "source": "NVML energy counter", "index": "0", …}]}
    {"at": 0.0, "read": {"GPU-1": {"joules": 1000.0, "watts": 99.5, "utilization_percent": 97, "temperature_celsius": 61}}}

`at` is in seconds since the recording began; the keys of a reading are `joules`, `watts` and the fields of `Telemetry`.
"""

import json
from pathlib import Path
from typing import Any, get_args

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.errors import ConfigError, Unavailable
from hf_eco2ai.records import Basis, Component, CounterReading, Device, PowerReading, Reading, Sample, Telemetry


class Replay:
    """The devices of a recording. Readings carry the recorded instants, so their energy is exactly the recording's."""

    power_only = False

    def __init__(self, recording: Path, context: ReaderContext) -> None:
        """Raises ConfigError for a file that is no recording."""
        self._now = context.now
        self._origin = self._now()
        try:
            header, *passes = [json.loads(line) for line in recording.read_text(encoding="utf-8").splitlines() if line.strip()]
            self._devices = {row["uuid"]: Device(host=context.host, **row) for row in header["devices"]}
            self._passes = [(float(row["at"]), dict(row["read"])) for row in passes]
            self._check()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"replay: {recording} is not a recording ({error}); see devices/replay.py for the format"
            ) from error
        self._next = 0
        self.devices = tuple(self._devices.values())

    def _check(self) -> None:
        """Play all of it once, so that a mistake shows before training and not in the middle of it."""
        for device in self._devices.values():
            if device.component not in get_args(Component) or device.basis not in get_args(Basis):
                raise ValueError(f"{device.uuid} is a {device.basis} {device.component}")
        for at, values in self._passes:
            for uuid, row in values.items():
                self._add(self._devices[uuid], at, {key: float(value) for key, value in row.items()}, [], [])

    @classmethod
    def open(cls, context: ReaderContext) -> "Replay":
        """Raises Unavailable unless the setting `replay` names a recording."""
        if context.replay is None:
            raise Unavailable("no recording was given")
        return cls(context.replay, context)

    def read(self) -> Sample:
        """All passes since the last read, up to now."""
        readings: list[Reading] = []
        telemetry: list[Telemetry] = []
        while self._next < len(self._passes) and self._passes[self._next][0] <= self._now() - self._origin:
            at, values = self._passes[self._next]
            self._next += 1
            for uuid, row in values.items():
                self._add(self._devices[uuid], self._origin + at, dict(row), readings, telemetry)
        return Sample(tuple(readings), tuple(telemetry))

    @staticmethod
    def _add(device: Device, at: float, row: dict[str, Any], readings: list[Reading], telemetry: list[Telemetry]) -> None:
        if "joules" in row:
            readings.append(CounterReading(device, at, float(row.pop("joules"))))
        if "watts" in row:
            readings.append(PowerReading(device, at, float(row.pop("watts"))))
        if row:
            telemetry.append(Telemetry(device, at, **row))

    def read_power(self) -> Sample:
        """Nothing in between: a recording has the passes that it has."""
        return Sample()

    def close(self) -> None:
        """Nothing is held open."""
