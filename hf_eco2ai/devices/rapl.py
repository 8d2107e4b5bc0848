"""CPU packages and DRAM by RAPL's energy counters, as Linux powercap shows them under `/sys/class/powercap`.

Counted are the zones `package-N` and their sub-zones `dram`. Left out, because they are parts of what is counted or contain it:
`core` and `uncore` (inside the package), `psys` (the whole board), and `intel-rapl-mmio` (the same package seen a second way).
Source: Linux Documentation/power/powercap/powercap.rst.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.cpu_usage import CpuUsage
from hf_eco2ai.errors import Unavailable
from hf_eco2ai.records import Component, CounterReading, Device, Failure, Reading, Sample, Telemetry

MAX_WATTS: dict[Component, float] = {"cpu": 1000.0, "dram": 500.0}
"""Beyond doubt for one socket: the largest server CPU of 2025 is rated 500 W (AMD EPYC 9965), its DRAM well below 250 W."""

REMEDY = (
    "To measure instead: `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` and the same for `intel-rapl:*:*` "
    "(until the next boot; a udev rule makes it last). Linux has kept these files to root since 5.10 because of the PLATYPUS "
    "side channel (CVE-2020-8694)."
)


class _Zone(NamedTuple):
    device: Device
    energy_file: Path
    wraps_at: float


class Rapl:
    """The energy counters of this machine's CPU packages and of their DRAM, where it has any that may be read."""

    power_only = False

    def __init__(self, context: ReaderContext) -> None:
        """Raises Unavailable where powercap has no package zone, or one that may not be read."""
        self._now = context.now
        folder = context.root / "sys/class/powercap"
        zones = sorted(folder.glob("intel-rapl:*"), key=lambda zone: [int(n) for n in zone.name.split(":")[1:]])
        packages = _packages(zones, _vendor_is_amd(context.root))
        if not packages:
            raise Unavailable("this machine shows no RAPL package (a virtual machine, or not Linux on x86)")
        self._zones = [_open(zone, "cpu", _name(zone), context) for zone in packages]
        for zone in zones:
            parent = zone.name.rpartition(":")[0]
            if _name(zone) == "dram" and parent in {package.name for package in packages}:
                uuid = _name(zone.with_name(parent)).replace("package", "dram")
                with suppress(Unavailable):  # Then the DRAM model takes its place, and the packages are measured all the same.
                    self._zones.append(_open(zone, "dram", uuid, context))
        self.devices = tuple(zone.device for zone in self._zones)
        self._usage = CpuUsage(context.root, self._now, whole_machine=context.whole_machine)

    @classmethod
    def open(cls, context: ReaderContext) -> "Rapl":
        """Raises Unavailable with the remedy where the counters are kept to root."""
        return cls(context)

    def read(self) -> Sample:
        """One counter reading per zone, and the CPU's utilisation on the first package."""
        readings: list[Reading] = []
        failures: list[Failure] = []
        for zone in self._zones:
            before = self._now()
            try:
                joules = int(zone.energy_file.read_text()) / 1e6
            except (OSError, ValueError) as error:
                what = f"{zone.device.uuid}: RAPL counter not readable any more ({error}); its energy is missing from now on."
                failures.append(Failure("driver_error", f"rapl {zone.device.id}", what))
                continue
            readings.append(CounterReading(zone.device, (before + self._now()) / 2, joules, zone.wraps_at))
        usage = self._usage.percent_since_last()
        telemetry = (Telemetry(self.devices[0], self._now(), utilization_percent=usage),) if usage is not None else ()
        return Sample(tuple(readings), telemetry, tuple(failures))

    def read_power(self) -> Sample:
        """Nothing: every zone is a counter."""
        return Sample()

    def close(self) -> None:
        """Files are opened for each reading, so there is nothing to give back."""


def _packages(zones: list[Path], vendor_is_amd: bool) -> list[Path]:
    """The package zones, each counter once.

    Linux may list a package by dies (`package-0-die-0`, `package-0-die-1`, …). Intel's dies have a counter each; AMD has one per
    package, so that every die shows the whole package (CodeCarbon #1274: 137 W reported for 68 W).
    """
    packages = [zone for zone in zones if _name(zone).startswith("package-")]
    if not vendor_is_amd:
        return packages
    first_die = {re.sub(r"-die-\d+$", "", _name(zone)): zone for zone in reversed(packages)}
    return [zone for zone in packages if zone in first_die.values()]


def _vendor_is_amd(root: Path) -> bool:
    try:
        return "AuthenticAMD" in (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False


def _open(zone: Path, component: Component, uuid: str, context: ReaderContext) -> _Zone:
    energy_file = zone / "energy_uj"
    try:
        stands_still = int(energy_file.read_text()) == 0
        wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6
    except PermissionError as error:
        raise Unavailable("the RAPL counters may be read by root only", REMEDY) from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"the RAPL counter {energy_file.name} of {uuid} does not answer ({error})") from error
    if stands_still:
        raise Unavailable(f"the RAPL counter of {uuid} stands at 0, as a virtual machine's may")
    device = Device(
        host=context.host,
        uuid=uuid,
        component=component,
        basis="measured",
        source="RAPL package counter" if component == "cpu" else "RAPL DRAM counter",
        index=uuid.partition("-")[2],
        max_watts=MAX_WATTS[component],
    )
    return _Zone(device, energy_file, wraps_at)


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""
