"""SIGTERM: heard, passed on, and as deadly as without us."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(script: str) -> "subprocess.CompletedProcess[str]":
    head = """
    import os, signal, sys, threading, time
    from hf_eco2ai.signals import Termination, termination
    def heard(final):
        print("heard", final, flush=True)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_process_without_a_handler_hears_it_and_dies_of_it() -> None:
    done = run(
        """
        termination.listen(heard)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        """
    )
    assert done.stdout == "heard True\n"
    assert done.returncode == -signal.SIGTERM


def test_a_handler_of_the_users_own_is_called_once_and_decides() -> None:
    done = run(
        """
        signal.signal(signal.SIGTERM, lambda number, frame: print("mine", number, flush=True))
        termination.listen(heard)
        os.kill(os.getpid(), signal.SIGTERM)
        termination.forget(heard)
        os.kill(os.getpid(), signal.SIGTERM)
        print("goes on")
        """
    )
    assert done.stdout == "heard False\nmine 15\nmine 15\ngoes on\n"
    assert done.returncode == 0


def test_a_handler_that_is_chained_in_front_of_ours_stays_there() -> None:
    done = run(
        """
        termination.listen(heard)
        ours = signal.getsignal(signal.SIGTERM)
        def front(number, frame):
            print("front", flush=True)
            ours(number, frame)
        signal.signal(signal.SIGTERM, front)
        termination.forget(heard)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        """
    )
    assert done.stdout == "front\n"
    assert done.returncode == -signal.SIGTERM


def test_ignored_stays_ignored() -> None:
    done = run(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        termination.listen(heard)
        os.kill(os.getpid(), signal.SIGTERM)
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)
        """
    )
    assert done.stdout == "True\n"


def test_a_main_thread_that_is_stuck_in_a_library_does_not_keep_the_process_alive() -> None:
    done = run(
        """
        import hashlib
        termination.listen(heard)
        def other():
            while True:
                termination.poll()
                time.sleep(0.05)
        threading.Thread(target=other, daemon=True).start()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # Half an hour without the interpreter.
        """
    )
    assert done.stdout == "heard True\n"
    assert done.returncode == -signal.SIGTERM


def test_a_fork_dies_of_it_as_ever_and_the_parent_hears_nothing() -> None:
    done = run(
        """
        termination.listen(heard)
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        _, status = os.waitpid(child, 0)
        termination.poll()
        print(os.waitstatus_to_exitcode(status), termination._came_at)
        """
    )
    assert done.stdout == "-15 None\n"
    assert done.returncode == 0


def test_nothing_is_left_behind() -> None:
    done = run(
        """
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            termination.listen(heard)
            termination.forget(heard)
        left = len(os.listdir("/proc/self/fd")) - before
        print(left, signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        """
    )
    assert done.stdout == "0 -1 True\n"


def test_a_wakeup_descriptor_of_somebody_else_stays_his() -> None:
    done = run(
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        termination.listen(heard)
        termination.forget(heard)
        print(signal.set_wakeup_fd(-1) == writing)
        """
    )
    assert done.stdout == "True\n"
