"""CPU energy where RAPL cannot be read: watts per logical CPU between idle and full load, by utilisation. Basis: modelled.

Coefficients: `data/cpu_watts.csv`, Cloud Carbon Footprint, from SPECpower_ssj2008 (licence Apache-2.0).
"""

import csv
import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.cpu_usage import CpuUsage
from hf_eco2ai.errors import Unavailable
from hf_eco2ai.records import CounterReading, Device, Failure, Sample, Telemetry

UNKNOWN = "unknown (average)"

MICROARCHITECTURES: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {
    ("GenuineIntel", 6): {
        "Sandy Bridge": (42, 45),
        "Ivy Bridge": (58, 62),
        "Haswell": (60, 63, 69, 70),
        "Broadwell": (61, 71, 79, 86),
        "Skylake": (78, 85, 94),
        "Coffee Lake": (142, 158),
    },
    ("AuthenticAMD", 23): {"AMD EPYC 1st Gen": (1,), "AMD EPYC 2nd Gen": (49,)},
    ("AuthenticAMD", 25): {"AMD EPYC 3rd Gen": (1,)},
}
"""Vendor and family, then models. Source: Linux arch/x86/include/asm/intel-family.h; AMD EPYC revision guides.

142 and 158 are that file's Kaby Lake, whose numbers Coffee Lake has too. The data file has no row for Kaby Lake, so it gets its
successor's: the same cores in the same process.
"""

SKYLAKE_SERVER = 85
SKYLAKE_STEPPINGS, CASCADE_LAKE_STEPPINGS = range(5), range(5, 8)
"""Cascade Lake and Cooper Lake have Skylake's model number 85 and are told by their stepping (same source)."""

NEOVERSE_N1 = "0xd0c"
"""CPU part of AWS Graviton2 in `/proc/cpuinfo`. Source: Arm Neoverse N1 TRM, MIDR_EL1."""


class Watts(NamedTuple):
    """Watts of one logical CPU at idle and at full load."""

    idle: float
    full: float


class CpuModel:
    """A modelled energy counter: idle watts over all time, and the rest over busy CPU seconds.

    Because the model is linear in utilisation, adding up busy seconds is its exact integral, however seldom it is read.
    """

    power_only = False

    def __init__(self, context: ReaderContext) -> None:
        self._now = context.now
        self._usage = CpuUsage(context.root, context.now, whole_machine=context.whole_machine)
        microarchitecture = detect(context.root / "proc/cpuinfo")
        self._watts = coefficients()[microarchitecture]
        self._origin = self._now()
        self._last_busy = self._usage.busy_seconds()
        self._joules_busy = 0.0
        self.devices = (
            Device(
                host=context.host,
                uuid="cpu",
                component="cpu",
                basis="modelled",
                source=f"CPU model: {microarchitecture}, {self._watts.idle} to {self._watts.full} W per logical CPU",
                index="0",
                max_watts=10 * self._watts.full * self._usage.cpus,
                idle_watts=self._watts.idle * self._usage.cpus,
                scope=self._usage.scope,
                note=f"{self._usage.cpus:g} of the machine's {self._usage.machine_cpus} logical CPUs"
                if self._usage.cpus < self._usage.machine_cpus
                else f"{self._usage.machine_cpus} logical CPUs",
            ),
        )

    @classmethod
    def open(cls, context: ReaderContext) -> "CpuModel":
        """Raises Unavailable where not even CPU time can be read."""
        return cls(context)

    def read(self) -> Sample:
        """The modelled counter, and the utilisation it rests on."""
        try:
            busy = self._usage.busy_seconds()
        except Unavailable as error:
            what = f"{error}; the CPU's energy is missing from now on."
            return Sample(failures=(Failure("driver_error", "cpu_model", what),))
        at = self._now()
        # Kernels round per-CPU times, so busy time may seem to step back by a tick; a counter must not.
        self._joules_busy += max(0.0, busy - self._last_busy) * (self._watts.full - self._watts.idle)
        self._last_busy = max(busy, self._last_busy)
        joules = self._watts.idle * self._usage.cpus * (at - self._origin) + self._joules_busy
        usage = self._usage.percent_since_last(busy)
        device = self.devices[0]
        telemetry = () if usage is None else (Telemetry(device, at, utilization_percent=usage),)
        return Sample((CounterReading(device, at, joules),), telemetry)

    def read_power(self) -> Sample:
        """Nothing: the model is a counter."""
        return Sample()

    def close(self) -> None:
        """Nothing is held open."""


def coefficients() -> dict[str, Watts]:
    """Watts per logical CPU by micro-architecture, from the data file."""
    with (files("hf_eco2ai.devices") / "data/cpu_watts.csv").open(encoding="utf-8") as lines:
        return {
            row["microarchitecture"]: Watts(float(row["idle_watts_per_vcpu"]), float(row["full_load_watts_per_vcpu"]))
            for row in csv.DictReader(lines)
        }


def detect(cpuinfo: Path) -> str:
    """The micro-architecture's name in the data file; `unknown (average)` for one that it does not list."""
    try:
        first_cpu = cpuinfo.read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return UNKNOWN
    says = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", first_cpu, re.MULTILINE))
    if says.get("CPU part") == NEOVERSE_N1:
        return "AWS Graviton2"
    numbers = [says.get(key, "") for key in ("cpu family", "model", "stepping")]
    if not all(number.isdigit() for number in numbers):
        return UNKNOWN
    family, model, stepping = map(int, numbers)
    for name, models in MICROARCHITECTURES.get((says.get("vendor_id", ""), family), {}).items():
        if model in models:
            return _by_stepping(stepping) if (name, model) == ("Skylake", SKYLAKE_SERVER) else name
    return UNKNOWN


def _by_stepping(stepping: int) -> str:
    if stepping in SKYLAKE_STEPPINGS:
        return "Skylake"
    return "Cascade Lake" if stepping in CASCADE_LAKE_STEPPINGS else UNKNOWN
