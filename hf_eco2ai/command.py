"""Run a command as if it had been started without us: its signals, its terminal, its exit code.

The command leads a process group of its own, so what is sent to ours reaches it once, by way of us. Signals are not handled
where they arrive: Python's own C handler writes each one's number into a pipe, whichever thread the kernel interrupts, and the
main thread waits at the other end. So none is lost between looking and waiting, none ends us, and none is sent to a process id
that is another's by now.
"""

import contextlib
import ctypes
import errno
import os
import select
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType

NOT_EXECUTABLE = 126
NOT_FOUND = 127
DIED_BY_SIGNAL = 128
"""Exit codes as of POSIX shells (XCU 2.8.2); a signal's number is added to the last."""

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
"""Linux prctl(2), `include/uapi/linux/prctl.h`."""

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS}
"""A process brings these upon itself, so they are ours, not the command's."""

OWN = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGPROF, signal.SIGVTALRM}
"""These too: what our threads write to may be closed, as by whoever scrapes the endpoint, and our timers are ours."""

NOT_PASSED_ON = FAULTS | OWN | {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU}

PASSED_ON = signal.valid_signals() - NOT_PASSED_ON

FROM_TERMINAL = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH}
"""The terminal sends these to its whole foreground group."""

FOR_TERMINAL = {signal.SIGTTIN, signal.SIGTTOU}
"""What stops a background process that reads from the terminal or sets it."""

PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}
"""Python does so for itself at its start. No other program expects to be started like that."""

PIPE_READ_BYTES = 4096

_Handler = Callable[[int, FrameType | None], object] | int | None


def run_command(argv: Sequence[str], *, started: Callable[[int], None]) -> int:
    """Run `argv` to its end with our stdin, stdout, stderr, directory and environment; return the exit code to pass on.

    That is the command's own, 128 + n if signal n ended it, 127 if it is not found and 126 if it cannot be executed; these two
    are explained on stderr. `started` gets its process id, once, soon; signals wait while it runs. Whatever it raises is raised
    when the command has ended.

    Call this in the main thread (else ValueError). Meanwhile signals are passed on to the command and end nothing here, and every
    child of this process is waited for, also such as others have started: their exit codes are lost to them. What was
    ignored at our own start, as SIGHUP under nohup, is ignored at the command's; all else is at its default. On Linux,
    orphaned descendants become our children until the command has ended; they are not waited for.
    """
    with contextlib.ExitStack() as at_end:
        signals = at_end.enter_context(_caught_signals())
        at_end.enter_context(_subreaper())
        terminal = at_end.enter_context(_controlling_terminal())
        try:
            pid = _spawn(argv)
        except OSError as error:
            return _explain(argv[0], error)
        # Only now, so that the command is not born with it: we write to the terminal, and take it back, from the background.
        at_end.enter_context(_handler(signal.SIGTTOU, signal.SIG_IGN))
        # Those that were ignored stay so for the command, but it may have set up a handler since.
        at_end.enter_context(_handlers(PASSED_ON))
        command = _Command(pid, signals, terminal)
        at_end.callback(command.take_terminal)
        command.offer_terminal()
        try:
            started(pid)
        finally:
            code = command.wait()
        return code


class _Command:
    """The running command, and which process group has the terminal: its own, ours, or neither (we run in the background)."""

    def __init__(self, pid: int, signals: "_Signals", terminal: int | None) -> None:
        self._pid = pid
        self._signals = signals
        self._terminal = terminal
        self._wants_terminal = not _is_among_others()
        self._has_terminal = False

    def wait(self) -> int:
        """The exit code. Reaps whatever ends meanwhile."""
        while True:
            # First pass on, then reap: until it is reaped, the number is the command's.
            for number in self._signals.read():
                self._pass_on(number)
            for pid, status in _changed_children():
                if pid != self._pid:
                    continue
                if not os.WIFSTOPPED(status):
                    self._reap_the_rest()
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else DIED_BY_SIGNAL - code
                self._follow_stop(os.WSTOPSIG(status))

    @staticmethod
    def _reap_the_rest() -> None:
        with contextlib.suppress(ChildProcessError):  # None is left.
            for _ in _changed_children():
                pass

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGCONT:
            self._resume()
            return
        # We have the terminal, so this is most likely its Ctrl-C. It would have reached all of the command's group: a shell
        # that waits for a program counts on it.
        is_from_terminal = number in FROM_TERMINAL and self._foreground_group() == os.getpgrp()
        with contextlib.suppress(PermissionError):  # It runs as another user (sudo). Nobody else could have sent this either.
            (os.killpg if is_from_terminal else os.kill)(self._pid, number)

    def _follow_stop(self, number: int) -> None:
        """Stop as well, so that the shell sees it and takes the terminal; go on when it says so.

        Without a terminal nobody waits for that. And who stops the command in the background by hand continues it by hand.
        """
        is_in_front = self._foreground_group() in {os.getpgrp(), self._pid}
        if number in FOR_TERMINAL and is_in_front:
            self._wants_terminal = True
            self._resume()
            return
        # In front, SIGSTOP is a program's own answer to Ctrl-Z (top). Unless we follow, nobody has the terminal.
        if self._terminal is None or (number == signal.SIGSTOP and not (is_in_front or self._has_terminal)):
            return
        self.take_terminal()
        with _handler(signal.SIGTSTP, signal.SIG_DFL):
            # The whole group, as the terminal would: whoever called us (a script, make) is a part of the job.
            os.killpg(os.getpgrp(), signal.SIGTSTP)
        missed = self._signals.read_at_once()
        if signal.SIGCONT not in missed:
            # No shell could continue us, so the kernel has not stopped us (an orphaned process group). No Ctrl-Z here, then.
            missed.append(signal.SIGCONT)
        for late in missed:
            self._pass_on(late)

    def _resume(self) -> None:
        """We were continued. The shell has given the terminal to our group (`fg`), or kept it (`bg`)."""
        if self._foreground_group() != self._pid:
            self._has_terminal = False
        self.offer_terminal()
        with contextlib.suppress(PermissionError):
            os.killpg(self._pid, signal.SIGCONT)

    def offer_terminal(self) -> None:
        """Hand the terminal over if it is ours to give."""
        if self._wants_terminal and self._foreground_group() == os.getpgrp():
            self._has_terminal = self._set_foreground_group(self._pid)

    def take_terminal(self) -> None:
        """Take back what was handed over, from whichever group of the command's has it now."""
        if self._has_terminal:
            self._set_foreground_group(os.getpgrp())
            self._has_terminal = False

    def _foreground_group(self) -> int | None:
        if self._terminal is None:
            return None
        try:
            return os.tcgetpgrp(self._terminal)
        except OSError:  # Hung up.
            return None

    def _set_foreground_group(self, group: int) -> bool:
        if self._terminal is None:
            return False
        try:
            os.tcsetpgrp(self._terminal, group)
        except OSError:  # Hung up.
            return False
        return True


def _is_among_others() -> bool:
    """Whether we share our process group: started by a script or `make`, or within a pipeline.

    Then the others need the terminal too (`| less`, Ctrl-C for the script). So it is left with the group until the command
    asks for it, by reading from it.
    """
    if os.getpgrp() != os.getpid():
        return True
    for fd in (0, 1):
        with contextlib.suppress(OSError):  # Closed.
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                return True
    return False


def _spawn(argv: Sequence[str]) -> int:
    """By posix_spawn, since no Python runs in the child then, so other threads may be anywhere.

    The C library blocks all signals until the child has left our group and has forgotten our handlers. And it returns when
    the program has begun, or with the error.
    """
    environment = os.environ  # noqa: TID251 - handed on whole, none of it read
    return os.posix_spawnp(argv[0], list(argv), environment, setpgroup=0, setsigmask=[], setsigdef=PYTHON_IGNORES)


def _explain(program: str, error: OSError) -> int:
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and shutil.which(program) is None:
        code, cause = NOT_FOUND, "not found. Check the spelling, or give its path"
    elif error.errno == errno.ENOENT:
        code, cause = NOT_EXECUTABLE, "the interpreter in its first line (#!) is not found. Name the one to use before it"
    elif error.errno == errno.ENOEXEC:
        code, cause = NOT_EXECUTABLE, "not a program. If it is a script, name its interpreter before it, as in `python train.py`"
    elif error.errno == errno.EACCES:
        code, cause = NOT_EXECUTABLE, "not executable. `chmod +x` it, or name its interpreter before it, as in `python train.py`"
    else:
        code, cause = NOT_EXECUTABLE, f"cannot be started: {error.strerror}"
    sys.stderr.write(f"hf-eco2ai: {program}: {cause}.\n")
    return code


def _changed_children() -> Iterator[tuple[int, int]]:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        yield pid, status


class _Signals:
    """The reading end of the pipe into which signals are written, one byte each: its number."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> list[int]:
        """Waits for one at least."""
        return list(os.read(self._fd, PIPE_READ_BYTES))

    def read_at_once(self) -> list[int]:
        """Those that have come, maybe none."""
        ready, _, _ = select.select([self._fd], [], [], 0)
        return self.read() if ready else []


@contextlib.contextmanager
def _caught_signals() -> Iterator[_Signals]:
    """All that can be passed on, but those that are ignored; and SIGCHLD, by which we wake."""
    with contextlib.ExitStack() as at_end:
        reading, writing = os.pipe()
        at_end.callback(os.close, reading)
        at_end.callback(os.close, writing)
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        at_end.callback(signal.set_wakeup_fd, before)
        at_end.enter_context(_handlers({n for n in PASSED_ON if signal.getsignal(n) != signal.SIG_IGN} | {signal.SIGCHLD}))
        # Whoever started us may have left some blocked. They would neither reach us nor, through us, the command.
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        at_end.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
        yield _Signals(reading)


@contextlib.contextmanager
def _handlers(numbers: Collection[int]) -> Iterator[None]:
    """Catch these; the byte in the pipe is all that comes of it."""
    with contextlib.ExitStack() as at_end:
        for number in numbers:
            at_end.enter_context(_handler(number, _noted_in_pipe))
        yield


def _noted_in_pipe(_number: int, _frame: FrameType | None) -> None:
    """Does nothing, but with a handler the interpreter catches the signal and writes its number."""


@contextlib.contextmanager
def _handler(number: int, handler: _Handler) -> Iterator[None]:
    before = signal.getsignal(number)
    if before is None:  # C code's, which could not be put back.
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def _controlling_terminal() -> Iterator[int | None]:
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """Adopt orphaned descendants, where the system can (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        yield
        return
    before = ctypes.c_int(0)
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(before.value))
