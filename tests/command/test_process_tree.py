"""CPU time and memory of real process trees, against what the processes themselves report."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_eco2ai.process_tree import ProcessTree, _descendants, _read_proc, _read_psutil

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and waits for orphans")

DEADLINE_SECONDS = 60
BURNED_SECONDS = 0.5
ROUNDING_SECONDS = 0.05
"""The kernel tells the times of live processes in whole ticks of 0.01 s, of which each process has four."""
UNREPORTED_SECONDS = 0.25
"""More CPU time than a shell takes, and a few interpreters to end after their report; less than what is burned."""

# `measure(argv)` runs the command and looks at the tree all the while. Returns the exit code, the looks, the last of them after
# the end, and whether the CPU time never fell.
MEASURE = """
import json, os, signal, sys, threading, time
from hf_eco2ai.command import run_command
from hf_eco2ai.process_tree import ProcessTree
def measure(argv):
    tree, looks, over = ProcessTree(), [], threading.Event()
    def look():
        while not over.is_set():
            looks.append(tree.usage())
    looking = threading.Thread(target=look)
    looking.start()
    code = run_command(argv, started=lambda pid: None)
    over.set()
    looking.join()
    looks.append(tree.usage())
    return code, looks, all(a.cpu_seconds <= b.cpu_seconds for a, b in zip(looks, looks[1:]))
"""

SUPERVISOR = f"""
{MEASURE}
code, looks, rising = measure(sys.argv[1:])
print(json.dumps([code, rising, *looks[-1]]))
"""

# Burns CPU time, and adds what this process has used in all to the file `reports`.
BURN = """
import os, resource, signal, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
def report():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("reports", "a") as file:
        file.write(f"{used.ru_utime + used.ru_stime}\\n")
"""

# Forks twice, with a session of its own between, as daemons do. Then burns, and ends or stays.
DAEMON = f"""{BURN}
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        burn({BURNED_SECONDS})
        report()
        with open("burned", "w") as file:
            file.write(str(os.getpid()))
        if sys.argv[1] == "stays":
            signal.pause()
    os._exit(0)
os.wait()
report()
"""


def reported() -> float:
    return sum(map(float, Path("reports").read_text().split()))


def run(program: str, *arguments: str) -> str:
    argv = [sys.executable, "-c", program, *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_SECONDS, check=True).stdout


def supervised(*argv: str) -> list[float]:
    """Exit code, whether the CPU time never fell, and the last usage."""
    measured: list[float] = json.loads(run(SUPERVISOR, *argv))
    return measured


@pytest.mark.parametrize("then", ["ends", "stays"])
def test_the_time_of_a_daemon_is_in_the_tree_of_the_script_that_started_it(then: str) -> None:
    os.mkfifo("burned")
    Path("daemon.py").write_text(DAEMON)
    Path("script.sh").write_text(f"{sys.executable} daemon.py {then} >/dev/null &\nread pid <burned\necho $pid >daemon\nexit 3\n")
    code, rising, seconds, processes, _, peak, _ = supervised("sh", "script.sh")
    if then == "stays":
        os.kill(int(Path("daemon").read_text()), signal.SIGKILL)
        assert processes == 1
    assert (code, rising) == (3, True)
    assert reported() > BURNED_SECONDS
    assert reported() - ROUNDING_SECONDS <= seconds <= reported() + UNREPORTED_SECONDS
    assert peak >= 2


def test_time_is_counted_once_however_processes_end() -> None:
    """Thirty, three levels deep, some waited for and some orphaned, end while another thread looks as often as it can."""
    program = f"""{BURN}
for n in range(10):
    if os.fork() == 0:
        for _ in range(2):
            if os.fork() == 0:
                burn(0.05)
                report()
                os._exit(0)
        if n % 2:
            os.wait()
            os.wait()
        burn(0.02)
        report()
        os._exit(0)
    if n % 3 == 0:
        os.wait()
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
while len(open("reports").read().splitlines()) < 30:
    time.sleep(0.01)
burn(0.3)
report()
"""
    code, rising, seconds, *_ = supervised(sys.executable, "-c", program)
    assert (code, rising) == (0, True)
    assert len(Path("reports").read_text().split()) == 31
    assert reported() - ROUNDING_SECONDS <= seconds <= reported() + UNREPORTED_SECONDS


def test_time_that_the_kernel_forgets_is_kept_and_what_follows_is_added() -> None:
    """Whoever ignores SIGCHLD does not wait for its children, so their time is in no account when they end."""
    program = f"""{BURN}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.fork()
if child == 0:
    burn({BURNED_SECONDS})
    report()
    print("burned", flush=True)
    os.read(0, 1)
    os._exit(0)
try:
    os.waitpid(child, 0)
except ChildProcessError:
    print("forgotten", flush=True)
os.read(0, 1)
burn({BURNED_SECONDS})
report()
print("burned", flush=True)
os.read(0, 1)
"""
    tree = ProcessTree()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = []
        for line in (b"burned\n", b"forgotten\n", b"burned\n"):
            assert process.stdout.readline() == line
            seen.append(tree.usage().cpu_seconds)
            process.stdin.write(b".")
    assert seen[0] <= seen[1] <= seen[2]
    assert reported() > 2 * BURNED_SECONDS
    assert reported() - 2 * ROUNDING_SECONDS <= tree.usage().cpu_seconds <= reported() + UNREPORTED_SECONDS


def test_the_own_time_of_the_measuring_process_is_not_in_the_tree() -> None:
    program = f"""{BURN}{MEASURE}
tree = ProcessTree()
burn({2 * BURNED_SECONDS})
print(tree.usage().cpu_seconds)
"""
    assert float(run(program)) == 0


def test_children_that_ended_before_the_tree_was_made_are_not_in_it() -> None:
    program = f"""{BURN}{MEASURE}
if os.fork() == 0:
    burn({BURNED_SECONDS})
    os._exit(0)
os.wait()
print(ProcessTree().usage().cpu_seconds)
"""
    assert float(run(program)) == 0


@contextlib.contextmanager
def held(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said it is ready, and ends when its stdin is closed."""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process


def test_processes_are_counted_while_they_live_and_the_peak_stays() -> None:
    program = """
import os, sys
for _ in range(2):
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
print("ready", flush=True)
sys.stdin.read()
"""
    tree = ProcessTree()
    with held(program):
        during = tree.usage()
    after = tree.usage()
    assert (during.processes, during.peak_processes) == (3, 3)
    assert (after.processes, after.peak_processes) == (0, 3)


def test_memory_is_the_processes_own_and_the_peak_stays() -> None:
    size = 100 * 2**20
    tree = ProcessTree()
    with held(f"import sys; held = b'x' * {size}; print('ready', flush=True); sys.stdin.read()") as process:
        during = tree.usage()
        status = Path(f"/proc/{process.pid}/status").read_text()
    after = tree.usage()
    resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    assert during.rss_bytes == pytest.approx(resident, rel=0.01)
    assert during.rss_bytes > size
    assert (after.rss_bytes, after.peak_rss_bytes) == (0, during.rss_bytes)


def test_a_name_that_looks_like_the_rest_of_the_line_is_only_a_name() -> None:
    name = "x) R 1 1 (y"
    Path(name).symlink_to("/bin/sleep")
    with subprocess.Popen([f"./{name}", "1000"]) as process:
        try:
            assert f"({name})" in Path(f"/proc/{process.pid}/stat").read_text()
            assert process.pid in _descendants(os.getpid())
            seen = _read_proc(process.pid)
        finally:
            process.kill()
    assert seen is not None
    assert (seen.parent, seen.is_alive) == (os.getpid(), True)


def test_the_own_reader_and_psutils_agree() -> None:
    with held(f"{BURN}burn(0.2); print('ready', flush=True); sys.stdin.read()") as process:
        own, psutils = _read_proc(process.pid), _read_psutil(process.pid)
    assert own == pytest.approx(psutils)
    assert own is not None
    assert own.cpu_seconds >= 0.2 - ROUNDING_SECONDS
    assert _read_proc(process.pid) is None
    assert _read_psutil(process.pid) is None


def test_the_last_usage_stands_where_nothing_can_be_read() -> None:
    """Without a free file descriptor, the whole tree would otherwise seem to have gone."""
    program = f"""{BURN}{MEASURE}
import resource
tree = ProcessTree()
child = os.fork()
if child == 0:
    burn({BURNED_SECONDS})
    open("burned", "w").close()
    signal.pause()
while not os.path.exists("burned"):
    time.sleep(0.01)
before = tree.usage()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
during = tree.usage()
print(json.dumps([before, during]))
os.kill(child, signal.SIGKILL)
"""
    before, during = json.loads(run(program))
    assert before == during
    assert before[0] > BURNED_SECONDS - ROUNDING_SECONDS
