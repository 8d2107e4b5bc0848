"""Hears of SIGTERM before the process goes down, and passes it on to whoever was asked before us."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

LAST_WORDS_SECONDS = 2.0
"""So long the end of the process may be held up at most; schedulers kill after 30 s (Kubernetes, SLURM)."""

STUCK_SECONDS = 3.0
"""A main thread that has not taken a SIGTERM for so long is inside a library (a collective that waits for a dead rank)."""

WAKEUP_BYTES = 4096


class Termination:
    """Chains a handler for SIGTERM in front of the one that is there, never in its place.

    `listen` is called with a function that gets whether this is the end: True where the process had no handler and goes down now,
    False where someone else's handler decides (which may save a checkpoint and go on). It runs in a thread, since a signal may
    come while the main thread holds a lock that the function needs. Where someone's handler decides to call what was there before
    it, and nobody was, the function is called twice: with False, and then with True.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[bool], None]] = []
        self._pipe: tuple[int, int] | None = None
        self._reading = threading.Lock()  # Never taken in a signal's handler.
        self._taken = 0
        """How often the main thread has come to our handler."""
        self._came_at: float | None = None
        """When a SIGTERM was seen that the main thread has not taken yet."""
        self._taken_then = 0

    def listen(self, listener: Callable[[bool], None]) -> None:
        """From now on. Without effect outside the main thread, which alone may set handlers, or where SIGTERM is ignored."""
        self._listeners.append(listener)
        if not _in_main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is None or before == signal.SIG_IGN:
            return
        if not isinstance(before, _Link):
            signal.signal(signal.SIGTERM, _Link(before, self._take))
        self._watch()

    def forget(self, listener: Callable[[bool], None]) -> None:
        """No more. The former handler is put back, unless someone has chained another in front of ours meanwhile."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if self._listeners or not _in_main_thread():
            return
        ours = signal.getsignal(signal.SIGTERM)
        if isinstance(ours, _Link):
            signal.signal(signal.SIGTERM, ours.before)
        self._watch_no_more()

    def poll(self) -> None:
        """Called now and then, from any thread: ends the process where the main thread is stuck, as SIGTERM would without us."""
        with self._reading:
            taken, numbers = self._taken, self._numbers()
        now = time.monotonic()
        if signal.SIGTERM in numbers and self._came_at is None:
            self._came_at, self._taken_then = now, taken
        if self._came_at is None or now < self._came_at + STUCK_SECONDS:
            return
        self._came_at = None
        ours = signal.getsignal(signal.SIGTERM)
        if self._taken == self._taken_then and isinstance(ours, _Link) and ours.before == signal.SIG_DFL:
            self._tell(final=True)
            ctypes.CDLL(None).signal(signal.SIGTERM, 0)  # Python lets only the main thread do that.
            os.kill(os.getpid(), signal.SIGTERM)

    def forked(self) -> None:
        """In the child of a fork: none of our runs is there, and the pipe is the parent's."""
        self._listeners.clear()
        self._reading = threading.Lock()
        self._came_at = None
        with suppress(ValueError):
            self._watch_no_more()

    def _take(self, final: bool) -> None:
        self._numbers()
        self._taken += 1  # After the pipe is empty, so that no `poll` takes what was in it for something new.
        self._tell(final)

    def _tell(self, final: bool) -> None:
        for listener in list(self._listeners):
            thread = threading.Thread(target=listener, args=(final,), name="hf_eco2ai-sigterm", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                continue  # The interpreter is closing down, and with it what would be told.
            thread.join(LAST_WORDS_SECONDS)

    def _watch(self) -> None:
        """Python writes the number of each signal into a pipe at once, however long its handler has to wait."""
        if self._pipe is not None:
            return
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if former == -1:
            self._pipe = reading, writing
        else:  # An event loop's, which needs it more.
            signal.set_wakeup_fd(former)
            os.close(reading)
            os.close(writing)

    def _watch_no_more(self) -> None:
        with self._reading:
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            former = signal.set_wakeup_fd(-1)
            if former != pipe[1]:
                signal.set_wakeup_fd(former)
            for end in pipe:
                os.close(end)

    def _numbers(self) -> bytes:
        if self._pipe is None:
            return b""
        try:
            return os.read(self._pipe[0], WAKEUP_BYTES)
        except BlockingIOError:
            return b""


class _Link:
    """Our handler, at one place of the chain.

    A new one each time, with what was there before it: one that someone has chained another in front of stays where it is when
    its training is over, and the next training has its own in front of both.
    """

    def __init__(self, before: Any, tell: Callable[[bool], None]) -> None:
        self.before = before
        self._tell = tell

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM has come, or someone's handler passes it on."""
        final = self.before == signal.SIG_DFL
        self._tell(final)
        if final:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif callable(self.before):
            self.before(number, frame)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


termination = Termination()
"""The process's one."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=termination.forked)
