"""GPUs that do not exist, for demonstrations and for trying out dashboards. Everything about them says `simulated`.

Each plays a deterministic trace: a training-like power between idle and full that rises and falls with a period of its own.
"""

import math

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.errors import Unavailable
from hf_eco2ai.records import CounterReading, Device, PowerReading, Reading, Sample, Telemetry

IDLE_WATTS = 75.0
FULL_WATTS = 700.0
"""Like an H100 SXM: 700 W is its rated power (NVIDIA H100 datasheet, 2023); the idle draw is made up, as all of this is."""

MEMORY_BYTES = 80e9
PERIOD_SECONDS = 20.0
PERIOD_STEP_SECONDS = 3.0
"""GPU number i repeats itself every PERIOD + i × STEP seconds, so that the lines on a dashboard differ."""


class Simulated:
    """`count` made-up GPUs with an energy counter that is the exact integral of their power."""

    power_only = False

    def __init__(self, count: int, context: ReaderContext) -> None:
        self._now = context.now
        self._origin = self._now()
        self.devices = tuple(
            Device(
                host=context.host,
                uuid=f"SIMULATED-{index}",
                component="gpu",
                basis="simulated",
                source="a made-up trace, not a measurement",
                index=str(index),
                model="Simulated GPU",
                max_watts=2 * FULL_WATTS,
            )
            for index in range(count)
        )

    @classmethod
    def open(cls, context: ReaderContext) -> "Simulated":
        """Raises Unavailable unless the setting `simulated_gpus` asks for some."""
        if context.simulated_gpus == 0:
            raise Unavailable("no simulated GPU was asked for")
        return cls(context.simulated_gpus, context)

    def read(self) -> Sample:
        """Energy, power and telemetry of every made-up GPU at this instant."""
        at = self._now()
        readings: list[Reading] = []
        telemetry = []
        for number, device in enumerate(self.devices):
            load = _load(number, at - self._origin)
            readings.append(CounterReading(device, at, _joules(number, at - self._origin)))
            readings.append(PowerReading(device, at, IDLE_WATTS + (FULL_WATTS - IDLE_WATTS) * load))
            telemetry.append(
                Telemetry(device, at, 100 * load, MEMORY_BYTES * (0.2 + 0.6 * load), MEMORY_BYTES, 35 + 40 * load, FULL_WATTS)
            )
        return Sample(tuple(readings), tuple(telemetry))

    def read_power(self) -> Sample:
        """Nothing: they have counters."""
        return Sample()

    def close(self) -> None:
        """Nothing is held open."""


def _omega(number: int) -> float:
    return 2 * math.pi / (PERIOD_SECONDS + PERIOD_STEP_SECONDS * number)


def _load(number: int, seconds: float) -> float:
    """Between 0 and 1."""
    return 0.5 - 0.5 * math.cos(_omega(number) * seconds)


def _joules(number: int, seconds: float) -> float:
    """The integral of the power from 0 to `seconds`."""
    load_seconds = 0.5 * seconds - 0.5 * math.sin(_omega(number) * seconds) / _omega(number)
    return IDLE_WATTS * seconds + (FULL_WATTS - IDLE_WATTS) * load_seconds
