"""How busy the CPUs are that this process may use: the machine's, or those of its container or affinity."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from hf_eco2ai.errors import Unavailable

CFS_UNLIMITED = -1

_UNLIMITED: tuple[float, Path | None] = (float("inf"), None)

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
"""Unit of the times in `/proc/stat` (Linux proc(5))."""


class CpuUsage:
    """Busy CPU seconds of the CPUs that this machine or container has.

    With a cgroup quota below the machine's CPUs, the cgroup's own CPU time is what counts, not the neighbours'. With an
    affinity to some CPUs, those CPUs' time. Else, or for the `whole_machine`, the machine's. `root` is where `/sys` is.
    """

    def __init__(self, root: Path, now: Callable[[], float], *, whole_machine: bool = False) -> None:
        self._now = now
        self._stat_file = root / "proc/stat"
        self.machine_cpus = psutil.cpu_count() or 1
        allowed = () if whole_machine else _affinity()
        quota, self._cgroup_file = _UNLIMITED if whole_machine else _cgroup(root)
        self.cpus = min(float(self.machine_cpus), float(len(allowed) or self.machine_cpus), quota)
        """Logical CPUs, fractional under a quota."""
        self._only = allowed if 0 < len(allowed) < self.machine_cpus else ()
        self._by_cgroup = quota < min(self.machine_cpus, len(allowed) or self.machine_cpus)
        self._last: tuple[float, float] | None = None
        self.scope = self._scope()
        """The part of the machine's CPUs that is meant, so that runs tell whether they mean the same; empty for all of them."""

    def _scope(self) -> str:
        if self._by_cgroup and self._cgroup_file is not None:
            # Every container calls its own cgroup the root, but the kernel's number for it is its own on the whole machine.
            return f":cgroup-{self._cgroup_file.parent.stat().st_ino}"
        return f":cpus-{','.join(map(str, self._only))}" if self._only else ""

    def busy_seconds(self) -> float:
        """Cumulative CPU seconds spent on anything but idling. Never falls but by the kernel's rounding."""
        if self._by_cgroup and self._cgroup_file is not None:
            return _cgroup_seconds(self._cgroup_file)
        if self._only:
            times = psutil.cpu_times(percpu=True)
            return sum(_busy(times[cpu]) for cpu in self._only if cpu < len(times))
        return self._machine_seconds()

    def _machine_seconds(self) -> float:
        """Psutil's sum, read here in half the time (0.1 ms), since this is what a tick spends most on; psutil elsewhere."""
        try:
            file = os.open(self._stat_file, os.O_RDONLY)
        except OSError:
            return _busy(psutil.cpu_times())
        try:
            user, nice, system, _idle, _iowait, irq, softirq = map(int, os.read(file, 256).split(None, 8)[1:8])
        finally:
            os.close(file)
        return (user + nice + system + irq + softirq) / TICKS_PER_SECOND

    def percent_since_last(self, busy: float | None = None) -> float | None:
        """Utilisation since the previous call, 0 to 100; None at the first. `busy` saves a second look at the kernel."""
        try:
            at, busy = self._now(), self.busy_seconds() if busy is None else busy
        except Unavailable:
            return None
        last, self._last = self._last, (at, busy)
        if last is None or at <= last[0]:
            return None
        return min(100.0, max(0.0, 100 * (busy - last[1]) / (at - last[0]) / self.cpus))


def _busy(times: "psutil._pslinux.scputimes") -> float:
    """User, nice, system and interrupt time. Guest time is inside user already; steal is other machines' work."""
    fields = ("user", "nice", "system", "irq", "softirq")
    return float(sum(getattr(times, name, 0.0) for name in fields))


def _affinity() -> tuple[int, ...]:
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # macOS and Windows have no affinity to ask for.
        return ()


def _cgroup(root: Path) -> tuple[float, Path | None]:
    """Quota in CPUs (infinite if none) and the file that counts the cgroup's CPU time: version 2, else version 1."""
    version2 = root / "sys/fs/cgroup/cpu.max"
    version1 = root / "sys/fs/cgroup/cpu"
    try:
        quota, period = version2.read_text().split()
        return _UNLIMITED if quota == "max" else (int(quota) / int(period), version2.with_name("cpu.stat"))
    except (OSError, ValueError):
        pass
    try:
        microseconds = int((version1 / "cpu.cfs_quota_us").read_text())
        period = (version1 / "cpu.cfs_period_us").read_text()
        usage = root / "sys/fs/cgroup/cpuacct/cpuacct.usage"
        return _UNLIMITED if microseconds == CFS_UNLIMITED else (microseconds / int(period), usage)
    except (OSError, ValueError):
        return _UNLIMITED


def _cgroup_seconds(file: Path) -> float:
    try:
        text = file.read_text()
        if file.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(dict(line.split(maxsplit=1) for line in text.splitlines())["usage_usec"]) / 1e6
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"{file.name} of this container's cgroup cannot be read: {error!r}") from error
