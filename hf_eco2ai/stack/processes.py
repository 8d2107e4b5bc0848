"""Servers that outlive the shell. Each leads a session of its own, by which all of it is found again and ended."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from hf_eco2ai.journal.format import ProcessIdentity
from hf_eco2ai.journal.read import boot_id, pid_namespace, process_started

_LOOK_SECONDS = 0.05
_KILLED_SECONDS = 5.0
"""What is killed is gone at once, unless it hangs in the kernel; then nobody can end it."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DIED_BY_SIGNAL = 128
"""Exit code of POSIX shells (XCU 2.8.2), to which the signal's number is added."""


class Interrupted:
    """Within its block a signal that asks for the end waits for `check`, so that no server is started without being noted."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._number: int | None = None

    def __enter__(self) -> "Interrupted":
        for number in _ENDING:
            if (before := signal.getsignal(number)) != signal.SIG_IGN:  # as under nohup
                self._before[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, _frame: object) -> None:
        self._number = number

    def check(self) -> None:
        """Raises KeyboardInterrupt for Ctrl-C, SystemExit with a shell's exit code for the others."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number is not None:
            raise SystemExit(_DIED_BY_SIGNAL + self._number)


def start(argv: Sequence[str], log: Path, folder: Path) -> "subprocess.Popen[bytes]":
    """A process that needs nobody: without terminal, and with a log of its own from now on; the former one is kept as `.1`."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("wb") as written:
        log.chmod(0o600)
        return subprocess.Popen(  # noqa: S603 - the programs of the stack, by their paths
            argv, stdin=subprocess.DEVNULL, stdout=written, stderr=written, cwd=folder, start_new_session=True
        )


def identity(pid: int) -> ProcessIdentity:
    """What tells the process from a later one with its number."""
    return ProcessIdentity(pid=pid, started=process_started(pid) or 0.0, boot_id=boot_id(), pid_namespace=pid_namespace())


def is_alive(process: ProcessIdentity) -> bool:
    """Whether it still runs, and not another that has its number by now."""
    return _is_here(process) and process_started(process.pid) == process.started


def stop(leaders: Iterable[ProcessIdentity], seconds: float) -> None:
    """SIGTERM to all of their sessions; SIGKILL to what lives `seconds` later."""
    leaders = tuple(leaders)
    _signal(leaders, signal.SIGTERM)
    if not _are_gone(leaders, seconds):
        _signal(leaders, signal.SIGKILL)
        _are_gone(leaders, _KILLED_SECONDS)


def reload(process: ProcessIdentity) -> None:
    """Have Prometheus or Alertmanager read its configuration anew."""
    if is_alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGHUP)


def members(leader: ProcessIdentity) -> list[psutil.Process]:
    """The leader's session: itself and what it has started, as far as they live, and also where it has died before them.

    Nothing where its number is another process's by now. As long as one of its session lives the kernel gives it to nobody.
    """
    if not _is_here(leader) or process_started(leader.pid) not in {None, leader.started}:
        return []
    return [found for pid in psutil.pids() if (found := _member(pid, leader.pid)) is not None]


def _member(pid: int, session: int) -> psutil.Process | None:
    with suppress(OSError, psutil.Error):  # It may end while we look.
        if os.getsid(pid) == session and process_started(pid) is not None:
            return psutil.Process(pid)
    return None


def _is_here(process: ProcessIdentity) -> bool:
    return process.boot_id == boot_id() and process.pid_namespace == pid_namespace()


def _signal(leaders: Sequence[ProcessIdentity], number: signal.Signals) -> None:
    for leader in leaders:
        for member in members(leader):
            with suppress(psutil.Error):
                member.send_signal(number)


def _are_gone(leaders: Sequence[ProcessIdentity], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(map(members, leaders)):
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
