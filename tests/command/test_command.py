"""Real programs under the supervisor, with real signals and real terminals. Everything waits for what it needs to see."""

import contextlib
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; the supervisor itself needs POSIX only")

DEADLINE_SECONDS = 30
LIBRARY_SIGNALS = 1 << 31 | 1 << 32
"""32 and 33 are the C library's own; its posix_spawn leaves them ignored, which no program can tell."""

ROUNDS = 10
"""Two signals of a kind that come at once are one to the kernel, so a doubled one might be missed once, but not each time."""

SUPERVISOR = """
import os, sys
from pathlib import Path
from hf_eco2ai.command import run_command
Path("supervisor").write_text(str(os.getpid()))
code = run_command(sys.argv[1:], started=lambda pid: Path("command").write_text(str(pid)))
Path("code").write_text(str(code))
sys.exit(code)
"""

# Notes each signal in a file; SIGTERM ends it with 7.
LISTENER = """
import os, signal
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(number, _frame):
    os.write(log, f"{signal.Signals(number).name}\\n".encode())
    if number == signal.SIGTERM:
        os._exit(7)
for name in "INT TERM HUP QUIT USR1 USR2 WINCH CONT ALRM".split():
    signal.signal(getattr(signal, f"SIG{name}"), note)
os.write(log, b"ready\\n")
while True:
    signal.pause()
"""

# Its own session, with the terminal as its controlling one.
ON_TERMINAL = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for n in range(3):
    os.dup2(fd, n)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def until(condition: Callable[[], object], *, of: str = "it") -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s for {of}"
        time.sleep(0.005)


def supervised(*argv: str, script: str = SUPERVISOR) -> list[str]:
    return [sys.executable, "-c", script, *argv]


def python(program: str) -> tuple[str, str, str]:
    return sys.executable, "-c", program


def number_in(name: str) -> int:
    until(lambda: Path(name).exists() and Path(name).read_text(), of=name)
    return int(Path(name).read_text())


def log() -> list[str]:
    return Path("log").read_text().splitlines() if Path("log").exists() else []


def run(*argv: str, script: str = SUPERVISOR, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        supervised(*argv, script=script), input=stdin, text=True, capture_output=True, timeout=2 * DEADLINE_SECONDS, check=False
    )


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program in a session and process group of its own. What is left of it at the end is killed."""
    with contextlib.ExitStack() as at_end:

        def begin(argv: Sequence[str], *, session: bool = False) -> subprocess.Popen[bytes]:
            # By way of a shell with job control off, the group would be pytest's.
            new = [] if session else ["setsid"]
            process = subprocess.Popen(
                [*new, *argv], start_new_session=session, stdin=subprocess.DEVNULL if not session else None
            )
            at_end.callback(process.wait)
            at_end.callback(kill_session, process.pid)
            return process

        yield begin


def kill_session(leader: int) -> None:
    """Those too that have lost their parents."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


class Terminal:
    """The side of a terminal on which the user sits."""

    def __init__(self, start: Start, *argv: str) -> None:
        self._user, self._other = pty.openpty()
        self.process = start([*python(ON_TERMINAL), os.ttyname(self._other), *argv])
        self.shown = b""

    def close(self) -> None:
        os.close(self._user)
        os.close(self._other)

    def type(self, text: str) -> None:
        os.write(self._user, text.encode())

    def until(self, condition: Callable[[], object], *, of: str = "it") -> None:
        """Reads along, so that nobody waits for room to write."""

        def met() -> object:
            while select.select([self._user], [], [], 0)[0]:
                self.shown += os.read(self._user, 4096)
            return condition()

        try:
            until(met, of=of)
        except AssertionError as error:
            raise AssertionError(f"{error}; the terminal shows {self.shown.decode()!r}") from error

    def foreground(self) -> int:
        return os.tcgetpgrp(self._user)

    def end(self) -> int:
        self.until(lambda: self.process.poll() is not None, of="the end")
        return int(self.process.wait())


@pytest.fixture
def terminal(start: Start) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as at_end:

        def begin(*argv: str) -> Terminal:
            new = Terminal(start, *argv)
            at_end.callback(new.close)
            return new

        yield begin


@pytest.fixture
def bash(terminal: Callable[..., Terminal]) -> Terminal:
    """An interactive shell with job control, ready."""
    shell = terminal("bash", "--norc", "--noprofile", "--noediting", "-i")
    shell.type("PS1=; set -b; echo $$ > shell\n")
    shell.until(lambda: Path("shell").exists() and Path("shell").read_text(), of="bash")
    return shell


def command_line(*argv: str) -> str:
    return shlex.join(supervised(*argv))


def state_of(pid: int) -> str:
    """R, S, T (stopped), Z, ... as of proc(5); empty when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pending(pid: int) -> set[int]:
    mask = int(Path(f"/proc/{pid}/status").read_text().partition("ShdPnd:")[2].split()[0], 16)
    return {n for n in signal.valid_signals() if mask >> (n - 1) & 1}


# --- Exit codes ---


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143), ("kill -INT $$", 130)],
)
def test_the_exit_code_is_the_commands_own_or_128_and_the_signal(script: str, code: int) -> None:
    assert run("sh", "-c", script).returncode == code


def test_a_command_that_is_not_found_is_127_and_one_line() -> None:
    outcome = run("no-such-program-anywhere", "--flag")
    assert outcome.returncode == 127
    assert outcome.stderr == "hf-eco2ai: no-such-program-anywhere: not found. Check the spelling, or give its path.\n"
    assert not Path("command").exists()


@pytest.mark.parametrize(
    ("mode", "text", "advice"),
    [
        (0o644, "#!/bin/sh\n", "chmod +x"),
        (0o755, "#!/no/such/interpreter\n", "first line"),
        (0o755, "print('no first line')\n", "python train.py"),
    ],
)
def test_a_command_that_cannot_be_executed_is_126_and_one_line_that_says_what_to_do(mode: int, text: str, advice: str) -> None:
    script = Path("train.py")
    script.write_text(text)
    script.chmod(mode)
    outcome = run("./train.py")
    assert outcome.returncode == 126
    assert outcome.stderr.startswith("hf-eco2ai: ./train.py: ")
    assert advice in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_directory_cannot_be_executed() -> None:
    Path("folder").mkdir()
    assert run("./folder").returncode == 126


# --- What the command is born with ---


def test_stdin_stdout_stderr_directory_and_environment_are_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SETTING", "some value")
    outcome = run("sh", "-c", 'read line; echo "$line, $SOME_SETTING, $PWD"; echo error >&2', stdin="typed\n")
    assert outcome.stdout == f"typed, some value, {Path.cwd()}\n"
    assert outcome.stderr == "error\n"


def test_a_file_that_was_opened_for_the_command_is_open_in_it() -> None:
    """As the job server of make, or a shell's `3<file`."""
    Path("given").write_text("from descriptor 3\n")
    line = f"exec 3<given; exec {command_line('sh', '-c', 'cat <&3')}"
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout == "from descriptor 3\n"


SHOW_STATE = "grep -E '^Sig(Ign|Blk)' /proc/self/status; ps -o pid= -o pgid= -p $$"


def test_the_command_starts_with_default_signals_an_empty_mask_and_a_group_of_its_own() -> None:
    blocked = f"import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n{SUPERVISOR}"
    _, mask, _, ignored, pid, group = run("sh", "-c", SHOW_STATE, script=blocked).stdout.split()
    assert (int(mask, 16), int(ignored, 16) & ~LIBRARY_SIGNALS) == (0, 0)
    assert pid == group == Path("command").read_text()


def test_what_was_ignored_at_our_start_is_ignored_at_the_commands() -> None:
    """As SIGHUP under nohup."""
    line = f"trap '' HUP; exec {command_line('grep', 'SigIgn', '/proc/self/status')}"
    ignored = int(subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout.split()[1], 16)
    assert ignored & ~LIBRARY_SIGNALS == 1 << (signal.SIGHUP - 1)


def test_a_handler_for_what_was_ignored_is_still_reached(start: Start) -> None:
    supervisor = start(["sh", "-c", f"trap '' HUP; exec {command_line(*python(LISTENER))}"])
    until(lambda: log() == ["ready"])
    supervisor.send_signal(signal.SIGHUP)
    until(lambda: log() == ["ready", "SIGHUP"])
    supervisor.terminate()
    assert supervisor.wait() == 7


def test_a_sigchld_that_was_ignored_does_not_cost_the_exit_code() -> None:
    script = f"import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{SUPERVISOR}"
    assert run("sh", "-c", "exit 3", script=script).returncode == 3


def test_all_is_as_before_when_the_command_has_ended() -> None:
    script = """
import ctypes, os, signal, sys
from hf_eco2ai.command import run_command
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
ours, theirs = os.pipe()
os.set_blocking(theirs, False)
signal.set_wakeup_fd(theirs)
def subreaper():
    is_one = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(is_one))
    return is_one.value
def state():
    handlers = {n: signal.getsignal(n) for n in signal.valid_signals()}
    wakeup = signal.set_wakeup_fd(theirs)
    return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ()), wakeup, subreaper(), sorted(os.listdir("/proc/self/fd"))
before = state()
during = []
assert run_command(["true"], started=lambda pid: during.append(subreaper())) == 0
assert run_command(["no-such-program"], started=print) == 127
assert during == [1]
assert state() == before, (state(), before)
print("the same")
"""
    outcome = run(script=script)
    assert outcome.stdout == "the same\n", outcome.stderr


def test_what_started_raises_is_raised_when_the_command_has_ended() -> None:
    script = """
from pathlib import Path
from hf_eco2ai.command import run_command
try:
    run_command(["sh", "-c", "echo done > done"], started=lambda pid: 1 / 0)
except ZeroDivisionError:
    print(Path("done").read_text())
"""
    assert run(script=script).stdout == "done\n\n"


# --- Signals ---


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT", "SIGALRM"])
def test_a_signal_to_the_supervisor_reaches_the_command_once_and_ends_nothing(start: Start, name: str) -> None:
    supervisor = start(supervised(*python(LISTENER)))
    until(lambda: log() == ["ready"])
    for n in range(1, ROUNDS + 1):
        supervisor.send_signal(getattr(signal, name))
        until(lambda n=n: len(log()) > n)  # type: ignore[misc]
    supervisor.terminate()
    assert supervisor.wait() == 7
    assert log() == ["ready", *[name] * ROUNDS, "SIGTERM"]


def test_a_signal_to_the_supervisors_group_reaches_the_command_once(start: Start) -> None:
    supervisor = start(supervised(*python(LISTENER)))
    until(lambda: log() == ["ready"])
    assert os.getpgid(supervisor.pid) == supervisor.pid
    for n in range(1, ROUNDS + 1):
        os.killpg(supervisor.pid, signal.SIGINT)
        until(lambda n=n: len(log()) > n)  # type: ignore[misc]
    os.killpg(supervisor.pid, signal.SIGTERM)
    assert supervisor.wait() == 7
    assert log() == ["ready", *["SIGINT"] * ROUNDS, "SIGTERM"]


def test_a_command_without_a_handler_ends_by_the_signal(start: Start) -> None:
    supervisor = start(supervised("sleep", "1000"))
    number_in("command")
    supervisor.terminate()
    assert supervisor.wait() == 143


AROUND_START = """
import os, signal, sys, threading
from hf_eco2ai import command
real, when = os.posix_spawnp, sys.argv.pop(1)
threading.Thread(target=threading.Event().wait, daemon=True).start()
def spawn(*args, **kwargs):
    if when == "before":
        os.kill(os.getpid(), signal.SIGTERM)
    pid = real(*args, **kwargs)
    if when == "after":
        os.kill(os.getpid(), signal.SIGTERM)
    return pid
os.posix_spawnp = spawn
started = (lambda pid: os.kill(os.getpid(), signal.SIGTERM)) if when == "started" else (lambda pid: None)
code = command.run_command(sys.argv[1:], started=started)
print("went on to the end", flush=True)
os._exit(code)
"""


@pytest.mark.parametrize("when", ["before", "after", "started"])
def test_a_signal_around_the_start_is_neither_lost_nor_ends_the_supervisor(when: str) -> None:
    outcome = run(when, "sleep", "1000", script=AROUND_START)
    assert (outcome.returncode, outcome.stdout) == (143, "went on to the end\n")


def test_signals_in_a_storm_end_commands_and_never_the_supervisor() -> None:
    """From another process, so that they come at any instant, and with other threads that they may hit."""
    script = """
import signal, subprocess, sys, threading
from hf_eco2ai.command import run_command
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.signal(signal.SIGUSR1, lambda *_: None)  # between two commands
storm = "import os, signal\\nwhile True: os.kill(os.getppid(), signal.SIGUSR1)"
codes = set()
for _ in range(40):
    # Each command lasts until the storm ends it, so one lost signal would hang.
    with subprocess.Popen([sys.executable, "-c", storm]) as sender:
        codes.add(run_command(["sleep", "1000"], started=lambda pid: None))
        sender.kill()
print(codes)
"""
    assert run(script=script).stdout == "{138}\n"


def test_a_command_that_is_stopped_by_hand_goes_on_by_hand(start: Start) -> None:
    supervisor = start(supervised(*python(LISTENER)))
    until(lambda: log() == ["ready"])
    command = number_in("command")
    os.kill(command, signal.SIGSTOP)
    until(lambda: state_of(command) == "T")
    supervisor.send_signal(signal.SIGUSR1)
    until(lambda: signal.SIGUSR1 in pending(command), of="the supervisor, which is not stopped, to pass it on")
    os.kill(command, signal.SIGCONT)
    until(lambda: set(log()) == {"ready", "SIGUSR1", "SIGCONT"})
    supervisor.terminate()
    assert supervisor.wait() == 7


# --- Orphans ---


def test_orphans_are_adopted_and_reaped_while_the_command_runs() -> None:
    program = """
import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    while os.getppid() != int(open("supervisor").read()):
        time.sleep(0.01)
    os.write(write, str(os.getpid()).encode())
    os._exit(0)
os.wait()
orphan = int(os.read(read, 20))
while os.path.exists(f"/proc/{orphan}"):
    time.sleep(0.01)
sys.exit(5)
"""
    assert run(*python(program)).returncode == 5


def test_orphans_that_outlive_the_command_are_not_waited_for() -> None:
    outcome = run("sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > orphan; exit 4")
    orphan = number_in("orphan")
    assert outcome.returncode == 4
    os.kill(orphan, signal.SIGKILL)  # It is there still, else this raises.


# --- Terminals ---


@pytest.mark.parametrize(("key", "name"), [("\x03", "SIGINT"), ("\x1c", "SIGQUIT")])
def test_a_key_reaches_the_command_once_and_the_supervisor_not_at_all(
    terminal: Callable[..., Terminal], key: str, name: str
) -> None:
    noting = f"""
import signal
from pathlib import Path
import hf_eco2ai.command
read = hf_eco2ai.command._Signals.read
def noted(self):
    numbers = read(self)
    with open("came", "a") as file:
        file.writelines(f"{{signal.Signals(n).name}}\\n" for n in numbers)
    return numbers
hf_eco2ai.command._Signals.read = noted
{SUPERVISOR}
"""
    user = terminal(*supervised(*python(LISTENER), script=noting))
    user.until(lambda: log() == ["ready"])
    assert user.foreground() == number_in("command")
    for n in range(1, ROUNDS + 1):
        user.type(key)
        user.until(lambda n=n: len(log()) > n)  # type: ignore[misc]
    os.kill(number_in("supervisor"), signal.SIGTERM)
    assert user.end() == 7
    assert log() == ["ready", *[name] * ROUNDS, "SIGTERM"]
    assert Path("came").read_text().split() == ["SIGTERM", "SIGCHLD"]


def test_the_command_reads_from_the_terminal_and_the_terminal_comes_back(bash: Terminal) -> None:
    bash.type(f"{command_line('sh', '-c', 'read line; echo $line > typed; exit 3')}; echo $? > code-seen\n")
    bash.until(lambda: bash.foreground() == number_in("command"))
    bash.type("hello\n")
    assert_seen(bash, "code-seen", "3")
    assert Path("typed").read_text() == "hello\n"
    bash.until(lambda: bash.foreground() == number_in("shell"))


def assert_seen(user: Terminal, name: str, text: str) -> None:
    user.until(lambda: Path(name).exists() and Path(name).read_text() == f"{text}\n", of=f"{text} in {name}")


def test_the_terminal_is_the_supervisors_again_before_it_goes_on(terminal: Callable[..., Terminal]) -> None:
    script = """
import os, sys
from pathlib import Path
from hf_eco2ai.command import run_command
run_command(sys.argv[1:], started=lambda pid: None)
Path("after").write_text(str(os.tcgetpgrp(0) == os.getpgrp()))
print("so this stops nobody", flush=True)
"""
    user = terminal(*supervised("true", script=script))
    assert user.end() == 0
    assert Path("after").read_text() == "True"


def test_ctrl_z_stops_both_and_fg_continues_both(bash: Terminal) -> None:
    bash.type(f"{command_line(*python(LISTENER))}; echo $? > code-seen\n")
    bash.until(lambda: log() == ["ready"])
    command, supervisor, shell = number_in("command"), number_in("supervisor"), number_in("shell")
    for n in range(3):
        bash.until(lambda: bash.foreground() == command)
        bash.type("\x1a")
        bash.until(lambda: bash.foreground() == shell, of="the shell to have the terminal")
        assert (state_of(command), state_of(supervisor)) == ("T", "T")
        bash.type(f"jobs > jobs-{n}; echo > listed-{n}\n")
        bash.until(Path(f"listed-{n}").exists)
        assert "Stopped" in Path(f"jobs-{n}").read_text()
        bash.type("fg; echo $? > code-after-fg\n")
        bash.until(lambda: bash.foreground() == command, of="the command to have the terminal")
        bash.until(lambda n=n: log().count("SIGCONT") == n + 1)  # type: ignore[misc]
    bash.type("\x03")
    bash.until(lambda: "SIGINT" in log())
    os.kill(supervisor, signal.SIGTERM)
    assert_seen(bash, "code-after-fg", "7")
    assert log() == ["ready", *["SIGCONT"] * 3, "SIGINT", "SIGTERM"]


def test_after_ctrl_z_and_bg_the_command_goes_on_and_the_terminal_stays_the_shells(bash: Terminal) -> None:
    bash.type(f"{command_line(*python(LISTENER))}\n")
    bash.until(lambda: log() == ["ready"])
    command, supervisor, shell = number_in("command"), number_in("supervisor"), number_in("shell")
    bash.until(lambda: bash.foreground() == command)
    bash.type("\x1a")
    bash.until(lambda: bash.foreground() == shell)
    bash.type("bg\n")
    bash.until(lambda: log() == ["ready", "SIGCONT"])
    bash.type("echo > typed\n")
    bash.until(Path("typed").exists)
    assert bash.foreground() == shell
    os.kill(supervisor, signal.SIGTERM)
    assert number_in("code") == 7
    bash.type("wait; echo > waited\n")
    bash.until(Path("waited").exists)
    assert bash.foreground() == shell


def test_a_program_that_answers_ctrl_z_by_stopping_itself_gives_the_terminal_to_the_shell(bash: Terminal) -> None:
    """By SIGSTOP, as top does. Twice: with the terminal handed over, and with it left to a pipeline."""
    for n, tail in enumerate(["", " | cat"]):
        bash.type(f"{command_line('sh', '-c', f'kill -STOP $$; echo > went-on-{n}')}{tail}\n")
        bash.until(lambda: Path("command").exists() and state_of(number_in("command")) == "T")
        bash.until(lambda: bash.foreground() == number_in("shell"), of="the shell to have the terminal")
        bash.type("fg\n")
        bash.until(Path(f"went-on-{n}").exists)
        bash.until(lambda: bash.foreground() == number_in("shell"))
        Path("command").unlink()


def test_started_in_the_background_it_leaves_the_terminal_until_fg(bash: Terminal) -> None:
    bash.type(f"{command_line('sh', '-c', 'read line; echo $line > typed')} &\n")
    command, shell = number_in("command"), number_in("shell")
    # It reads from the terminal, which the kernel answers by a stop.
    bash.until(lambda: (state_of(command), state_of(number_in("supervisor"))) == ("T", "T"), of="both to stop")
    assert bash.foreground() == shell
    bash.type("fg\n")
    bash.until(lambda: bash.foreground() == command)
    bash.type("hello\n")
    assert_seen(bash, "typed", "hello")
    bash.until(lambda: bash.foreground() == shell)


def test_fg_of_a_command_that_runs_in_the_background_is_noticed_when_a_key_is_pressed(bash: Terminal) -> None:
    """Bash sends no SIGCONT to what runs already, so the terminal is our group's."""
    bash.type(f"{command_line(*python(LISTENER))} &\n")
    bash.until(lambda: log() == ["ready"])
    supervisor, shell = number_in("supervisor"), number_in("shell")
    bash.type("fg; echo $? > code-seen\n")
    bash.until(lambda: bash.foreground() == supervisor)
    bash.type("\x03")
    bash.until(lambda: log() == ["ready", "SIGINT"])
    bash.type("\x1a")
    bash.until(lambda: bash.foreground() == shell)
    bash.type("fg; echo $? > code-after-fg\n")
    bash.until(lambda: bash.foreground() == number_in("command"))
    os.kill(supervisor, signal.SIGTERM)
    assert_seen(bash, "code-after-fg", "7")
    assert log() == ["ready", "SIGINT", "SIGCONT", "SIGTERM"]


def test_ctrl_z_without_a_shell_that_could_continue_it_stops_nothing(terminal: Callable[..., Terminal]) -> None:
    """As in a container: the process group is orphaned, and such are not stopped by keys."""
    user = terminal(*supervised(*python(LISTENER)))
    user.until(lambda: log() == ["ready"])
    user.until(lambda: user.foreground() == number_in("command"))
    user.type("\x1a")
    user.until(lambda: log() == ["ready", "SIGCONT"])
    user.type("\x03")
    user.until(lambda: log() == ["ready", "SIGCONT", "SIGINT"])
    assert user.foreground() == number_in("command")
    os.kill(user.process.pid, signal.SIGTERM)
    assert user.end() == 7


def test_in_a_pipeline_ctrl_c_reaches_what_the_command_waits_for_too(bash: Terminal) -> None:
    """`| less` needs the terminal as well, so it stays with the group, and Ctrl-C is passed on as the terminal would send it."""
    inner = f"{shlex.join(python(LISTENER))}; exit 9"
    bash.type(f"{command_line('sh', '-c', f'trap : INT; {inner}')} | cat; echo $? > code-seen\n")
    bash.until(lambda: log() == ["ready"])
    assert bash.foreground() == number_in("supervisor")
    bash.type("\x03")
    bash.until(lambda: log() == ["ready", "SIGINT"])
    os.killpg(number_in("command"), signal.SIGTERM)
    assert number_in("code") == 143


def test_a_script_that_calls_us_is_a_part_of_the_job(bash: Terminal) -> None:
    """It is stopped and continued together with us, and Ctrl-C reaches it as well as the command."""
    Path("script.sh").write_text(
        f"trap 'echo SIGINT >> script-log' INT\n{command_line(*python(LISTENER))}\necho $? >> script-log\n"
    )
    bash.type("bash script.sh; echo $? > code-seen\n")
    bash.until(lambda: log() == ["ready"])
    command, shell = number_in("command"), number_in("shell")
    bash.type("\x1a")
    bash.until(lambda: bash.foreground() == shell)
    bash.type("fg; echo $? > code-after-fg\n")
    bash.until(lambda: log() == ["ready", "SIGCONT"])
    bash.type("\x03")
    bash.until(lambda: log() == ["ready", "SIGCONT", "SIGINT"])
    os.kill(command, signal.SIGTERM)
    assert_seen(bash, "code-after-fg", "0")
    assert Path("script-log").read_text() == "SIGINT\n7\n"


def test_a_terminal_that_hangs_up_does_not_end_the_supervisor_before_the_command(start: Start) -> None:
    user = Terminal(start, *supervised(*python(LISTENER)))
    user.until(lambda: log() == ["ready"])
    user.until(lambda: user.foreground() == number_in("command"))
    user.close()
    until(lambda: "SIGHUP" in log())
    os.kill(user.process.pid, signal.SIGTERM)
    assert user.process.wait() == 7


def test_nothing_of_the_supervisor_is_open_in_the_command() -> None:
    assert run("ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads.
