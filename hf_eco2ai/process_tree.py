"""CPU time and memory of everything that this process has started: children, their children, and those that have ended.

The kernel adds the CPU time of a process that has ended to the one that waits for it (its "children's" time). So the tree's
time is that of the live processes, each with its children's, and what this process's own children's time has risen by.
"""

import os
import resource
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from hf_eco2ai.records import TreeUsage

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
"""Unit of the times in `/proc/<pid>/stat` (Linux proc(5))."""

STAT_BYTES = 4096
"""More than `/proc/<pid>/stat` ever has: 52 numbers and a name."""

SECOND_LOOKS = 3
"""So often is a sum that has fallen taken anew, before what it fell by counts as lost to the kernel's accounting."""


class ProcessTree:
    """The descendants of this process, without itself. Construct it before they start; call it from one thread at a time.

    Descendants that were orphaned belong to it only where they are handed to this process (Linux: a subreaper). The time of
    one whose parent ignores SIGCHLD is in no parent's account; what the sum then falls by is kept, as seen at the last look.
    """

    def __init__(self) -> None:
        self._reaped_before = _reaped_seconds()
        self._summed_seconds = 0.0
        self._lost_seconds = 0.0
        self._last = TreeUsage(0.0, 0, 0, 0, 0)

    def usage(self) -> TreeUsage:
        """Look at the tree now: one pass over the machine's processes. The last look again where `/proc` cannot be read."""
        try:
            seconds, processes, rss = self._whole_look()
        except OSError:  # Out of file descriptors, say. A part of the tree would look as if the rest had been lost.
            return self._last
        self._lost_seconds += max(0.0, self._summed_seconds - seconds)
        self._summed_seconds = seconds
        self._last = TreeUsage(
            seconds + self._lost_seconds,
            processes,
            rss,
            max(processes, self._last.peak_processes),
            max(rss, self._last.peak_rss_bytes),
        )
        return self._last

    def _whole_look(self) -> tuple[float, int, int]:
        """A process that ends in the middle of a look is missed by it, but not by the next. So ask again if time has fallen."""
        look = self._look()
        for _ in range(SECOND_LOOKS):
            if look[0] >= self._summed_seconds:
                break
            look = self._look()
        return look

    def _look(self) -> tuple[float, int, int]:
        """CPU seconds, live processes and resident bytes.

        Whoever may wait for a process is read before it, and this process first of all: then the time of one that ends
        meanwhile is missed at worst, and never counted in two places.
        """
        seconds = _reaped_seconds() - self._reaped_before
        processes = rss = 0
        tree = {os.getpid()}
        for pid in _descendants(os.getpid()):
            seen = _read(pid)
            if seen is None or seen.parent not in tree:  # Ended, and another may have its number already.
                continue
            tree.add(pid)
            seconds += seen.cpu_seconds
            processes += seen.is_alive
            rss += _resident_bytes(pid) if seen.is_alive else 0
        return seconds, processes, rss


class _Seen(NamedTuple):
    """One process. Its CPU seconds include those of its children that have ended and that it waited for."""

    parent: int
    cpu_seconds: float
    is_alive: bool


def _reaped_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _descendants(root: int) -> Iterator[int]:
    """Parents before their children."""
    children = defaultdict(list)
    for pid in psutil.pids():
        seen = _read(pid)
        if seen is not None:
            children[seen.parent].append(pid)
    waiting = deque(children.pop(root, ()))
    while waiting:
        pid = waiting.popleft()
        yield pid
        waiting.extend(children.pop(pid, ()))


def _read_proc(pid: int) -> _Seen | None:
    """What psutil would say, in a sixth of the time; this is read of every process of the machine once a second."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # Permission: another user's, where /proc is mounted with hidepid.
        return None
    try:
        text = os.read(file, STAT_BYTES)
    except ProcessLookupError:  # Ended between the two calls.
        return None
    finally:
        os.close(file)
    # The name, in brackets, may have blanks and brackets of its own. Fields count from the third, the state (proc(5)).
    fields = text[text.rindex(b")") + 2 :].split()
    ticks = sum(map(int, fields[11:15]))
    return _Seen(int(fields[1]), ticks / TICKS_PER_SECOND, is_alive=fields[0] not in {b"Z", b"X"})


def _read_psutil(pid: int) -> _Seen | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            parent, times = process.ppid(), process.cpu_times()
    except psutil.Error:  # Ended, a zombie, or another user's.
        return None
    # macOS keeps no children's time that others may read; there psutil's is zero.
    seconds = times.user + times.system + times.children_user + times.children_system
    return _Seen(parent, seconds, is_alive=True)


def _resident_bytes(pid: int) -> int:
    """From psutil's file, `statm`, since the memory in `stat` is off by megabytes on machines with many CPUs (proc(5))."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # Ended meanwhile.
        return 0


_read = _read_proc if Path("/proc/self/stat").exists() else _read_psutil
