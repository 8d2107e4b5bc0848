"""DRAM energy where RAPL has no DRAM zone: watts per GB of memory, always on. Basis: modelled."""

from pathlib import Path

import psutil

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.records import CounterReading, Device, Sample

WATTS_PER_GB = 0.392
"""0.000392 kWh per GB and hour. Source: Cloud Carbon Footprint, methodology, 2024-03 (Apache-2.0)."""

UNLIMITED_BYTES = 1 << 62
"""cgroup version 1 writes "no limit" as a number of this size."""


class DramModel:
    """A modelled energy counter: a constant power for the memory that this machine or container has."""

    power_only = False

    def __init__(self, context: ReaderContext) -> None:
        self._now = context.now
        self._origin = self._now()
        size, scope = memory_bytes(context.root, whole_machine=context.whole_machine)
        gigabytes = size / 1e9
        self._watts = WATTS_PER_GB * gigabytes
        self.devices = (
            Device(
                host=context.host,
                uuid="dram",
                component="dram",
                basis="modelled",
                source=f"DRAM model: {gigabytes:.1f} GB at {WATTS_PER_GB} W per GB",
                index="0",
                max_watts=max(1.0, 10 * self._watts),
                idle_watts=self._watts,
                scope=scope,
            ),
        )

    @classmethod
    def open(cls, context: ReaderContext) -> "DramModel":
        """Always works: the kernel says how much memory there is."""
        return cls(context)

    def read(self) -> Sample:
        """The modelled counter."""
        at = self._now()
        return Sample((CounterReading(self.devices[0], at, self._watts * (at - self._origin)),))

    def read_power(self) -> Sample:
        """Nothing: the model is a counter."""
        return Sample()

    def close(self) -> None:
        """Nothing is held open."""


def memory_bytes(root: Path, *, whole_machine: bool = False) -> tuple[int, str]:
    """Bytes of memory that this machine has, or its container if that is limited to less; and then which container.

    For the `whole_machine` no container counts.
    """
    total = int(psutil.virtual_memory().total)
    for name in () if whole_machine else ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = (root / name).read_text().strip()
            cgroup = (root / name).parent.stat().st_ino
        except OSError:
            continue
        if limit.isdigit() and int(limit) < min(total, UNLIMITED_BYTES):
            return int(limit), f":cgroup-{cgroup}"
    return total, ""
