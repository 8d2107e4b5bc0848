"""`hf-eco2ai monitor -- …` as people start it: real commands, signals and terminals."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hf_eco2ai.journal import read
from hf_eco2ai.journal.format import Header, Totals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process trees and terminals as Linux has them")

DEADLINE_SECONDS = 60
MONITOR = [sys.executable, "-c", "from hf_eco2ai.cli import main; main()", "monitor"]
QUICK = ["--set", "simulated_gpus=1", "--set", "country=DE", "--set", "measurement_interval=0.1", "--set", "prometheus_port=0"]


def monitored(*command: str, settings: Sequence[str] = (), **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MONITOR, *QUICK, *settings, "--", *command],
        capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False, env={**os.environ, **more},
    )  # fmt: skip


def shell(script: str, **more: str) -> subprocess.CompletedProcess[str]:
    return monitored("sh", "-c", script, **more)


def journal(tmp_path: Path) -> tuple[Header, Totals]:
    (path,) = (tmp_path / "runs").iterdir()
    header, *_, last = read.read(path)
    assert isinstance(header, Header)
    assert isinstance(last, Totals)
    return header, last


def outcome(tmp_path: Path) -> tuple[str, str, str]:
    last = journal(tmp_path)[1]
    return last.type, last.state, last.end_reason


def until(condition: Callable[[], object], *, of: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s for {of}"
        time.sleep(0.005)


# The exit code


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 0", 0, "completed"),
        ("exit 3", 3, "exit_code"),
        ("kill -KILL $$", 137, "exit_code"),
        ("kill -TERM $$", 143, "sigterm"),
        ("kill -INT $$", -2, "interrupted"),  # We die of it as well, so that a shell's loop ends.
    ],
)
def test_the_exit_code_is_the_commands_and_the_journal_says_how_it_ended(
    tmp_path: Path, script: str, code: int, reason: str
) -> None:
    assert shell(script).returncode == code
    assert outcome(tmp_path) == ("end", "ended" if code == 0 else "failed", reason)


def test_a_command_that_is_not_found_is_127_and_said(tmp_path: Path) -> None:
    done = monitored("no-such-program-anywhere")
    assert done.returncode == 127
    assert "hf-eco2ai: no-such-program-anywhere: not found." in done.stderr
    assert outcome(tmp_path) == ("end", "failed", "exit_code")


# What is measured

# Burns CPU until the kernel says that it was so much, and tells how much it was in the end.
BURN = """
import resource, sys
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
while used() < float(sys.argv[1]):
    sum(range(10000))
open(sys.argv[2], "w").write(str(used()))
"""


def test_the_cpu_time_of_the_whole_tree_is_in_the_journal_and_the_report_also_of_a_daemon(tmp_path: Path) -> None:
    """A child, its child, and one that has left its parents and its session; the command ends with 3 when all are done."""
    (tmp_path / "burn.py").write_text(BURN)
    burn = f"{sys.executable} burn.py"
    script = f"""
{burn} 0.3 child & child=$!
sh -c '{burn} 0.2 grandchild; true'
setsid sh -c '{burn} 0.4 daemon.part; mv daemon.part daemon' </dev/null >/dev/null 2>&1 &
wait $child
until [ -e daemon ]; do sleep 0.01; done
exit 3
"""
    done = shell(f"({script})")
    assert done.returncode == 3
    told = sum(float((tmp_path / name).read_text()) for name in ("child", "grandchild", "daemon"))
    assert told >= 0.9
    tree = journal(tmp_path)[1].tree
    assert tree is not None
    # The kernel counts in ticks of 10 ms; shells and `mv` and what Python does after it has told are beside it.
    assert told - 0.1 <= tree.cpu_seconds <= told + 1.0
    assert tree.peak_processes >= 2
    assert "s of CPU time, at most " in done.stderr
    assert "failed (exit code not 0) after" in done.stderr


def test_the_run_has_the_name_of_the_command_and_of_the_project(tmp_path: Path) -> None:
    monitored("/bin/sh", "-c", "true", settings=["--project", "mine"])
    header, last = journal(tmp_path)
    assert (header.run.project_name, header.run.model_name, header.run.trainer) == ("mine", "sh", "monitor")
    assert header.leads
    assert last.used.joules > 0


def test_metrics_are_up_while_it_runs_and_show_the_tree(tmp_path: Path) -> None:
    (tmp_path / "burn.py").write_text(BURN)
    script = f"{sys.executable} burn.py 0.3 burnt; echo ready; read line; exit 5"
    with subprocess.Popen(
        [*MONITOR, *QUICK, "--", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        url = next(line for line in process.stderr if "metrics at" in line).split()[-1]
        assert process.stdout.readline() == "ready\n"

        def shown() -> float:
            page = urllib.request.urlopen(url, timeout=DEADLINE_SECONDS).read().decode()
            rows = [line for line in page.splitlines() if line.startswith("hf_training_process_cpu_seconds_total{")]
            return float(rows[0].split()[-1]) if rows else 0.0

        burnt = float((tmp_path / "burnt").read_text())
        until(lambda: shown() >= burnt - 0.05, of="the CPU time on /metrics")
        process.stdin.write("\n")
        process.stdin.flush()
        process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 5


# What is printed


def test_stdout_is_the_commands_and_ours_goes_to_stderr() -> None:
    done = shell("printf 'one\\ntwo'; echo three >&2", COLUMNS="60")
    assert done.stdout == "one\ntwo"
    said = done.stderr.splitlines()
    assert "three" in said
    assert said[0] == "hf_eco2ai: measuring 1 × Simulated GPU (simulated), CPU"
    assert any(line.startswith("hf_eco2ai: metrics at http://127.0.0.1:") for line in said)
    assert any(" run " in line or "· run" in line for line in said)
    assert max(map(len, said)) <= 60


def test_warnings_are_said_as_all_else_is() -> None:
    done = subprocess.run(
        [*MONITOR, "--set", "simulated_gpus=1", "--set", "export_prometheus=false", "--", "true"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "70"},
    )  # fmt: skip
    assert done.stderr.startswith("hf_eco2ai: No country is set")
    assert max(map(len, done.stderr.splitlines())) <= 70


def test_quiet_says_nothing_of_our_own_and_measures_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [*MONITOR, *QUICK, "--quiet", "sh", "-c", "echo out; echo err >&2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert outcome(tmp_path) == ("end", "ended", "completed")


# Settings


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--set", "prometheus_prt=1"], "did you mean prometheus_port"),
        (["--set", "measurement_interval=0"], "measurement_interval"),
        (["--set", "country"], "write NAME=VALUE"),
        (["--set", "country=XX"], "XX"),
        (["--set", "replay=/no/such/file"], "/no/such/file"),
        (["--projct", "mine"], "No such option"),
    ],
)
def test_a_wrong_setting_is_2_and_the_command_is_not_started(tmp_path: Path, options: list[str], word: str) -> None:
    done = subprocess.run([*MONITOR, *options, "--", "touch", "started"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "runs").exists()


def test_without_a_command_the_usage_is_said() -> None:
    done = subprocess.run(MONITOR, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_settings_are_taken_and_the_commands_own_options_are_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [*MONITOR, *QUICK, "--set", "pue=1.5", "--set", "experiment_name=a=b", "echo", "--quiet", "--set", "pue=2", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "--quiet --set pue=2 --help\n"
    header, _ = journal(tmp_path)
    assert (header.pue, header.run.experiment_name) == (1.5, "a=b")


# Signals

LISTENER = """
import os, signal, sys
def note(number, _frame):
    with open("log", "a") as log:
        log.write(signal.Signals(number).name + "\\n")
    sys.exit(9)
signal.signal(signal.SIGINT, note)
open("ready", "w").close()
while True:
    signal.pause()
"""


def test_ctrl_c_reaches_the_command_once_and_the_run_is_closed(tmp_path: Path) -> None:
    """By a terminal of its own, as a person types it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*MONITOR, *QUICK, "--", sys.executable, "-c", LISTENER])  # noqa: S606
    shown = b""

    def read_along(condition: Callable[[], object]) -> Callable[[], object]:
        def met() -> object:
            nonlocal shown
            while select.select([terminal], [], [], 0)[0]:
                try:
                    shown += os.read(terminal, 4096)
                except OSError:  # The other side is closed.
                    break
            return condition()

        return met

    status: list[int] = []

    def ended() -> bool:
        found, how = os.waitpid(pid, os.WNOHANG)
        status.extend([how] if found else [])
        return bool(found)

    try:
        until(read_along((tmp_path / "ready").exists), of="the command")
        os.write(terminal, b"\x03")
        until(read_along(ended), of="the end")
    finally:
        if not status:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status[0]) == 9
    assert (tmp_path / "log").read_text() == "SIGINT\n"
    assert outcome(tmp_path) == ("end", "failed", "exit_code")
    assert b"Traceback" not in shown
    assert b"failed (exit code not 0) after" in shown.replace(b"\r\n  ", b" ")


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "sigterm"), (signal.SIGHUP, "exit_code")])
def test_a_signal_to_us_ends_the_command_and_the_run_is_closed(tmp_path: Path, number: signal.Signals, reason: str) -> None:
    script = "touch ready; exec sleep 1000"
    with subprocess.Popen([*MONITOR, *QUICK, "--quiet", "--", "sh", "-c", script], start_new_session=True) as process:
        until((tmp_path / "ready").exists, of="the command")
        process.send_signal(number)
        assert process.wait(DEADLINE_SECONDS) == 128 + number
    assert outcome(tmp_path) == ("end", "failed", reason)


# Ranks


def test_other_ranks_of_a_host_only_run_the_command(tmp_path: Path) -> None:
    done = shell("echo $LOCAL_RANK; exit 4", RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    assert (done.returncode, done.stdout, done.stderr) == (4, "1\n", "")
    assert not (tmp_path / "runs").exists()


def test_the_first_rank_of_another_host_leads_its_own_run(tmp_path: Path) -> None:
    assert shell("exit 0", RANK="2", WORLD_SIZE="4", LOCAL_RANK="0").returncode == 0
    header, last = journal(tmp_path)
    assert header.leads
    assert json.loads(last.model_dump_json())["state"] == "ended"


# The budget

BUDGET = ["--set", "energy_budget_kwh=1e-9", "--set", "budget_action=stop"]


def test_a_spent_budget_stops_a_script_and_the_programs_it_runs(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/script; sleep 600 & echo $! > {tmp_path}/program; wait"
    done = monitored("sh", "-c", script, settings=BUDGET)
    assert done.returncode == 143
    assert outcome(tmp_path) == ("end", "ended", "budget")
    for name in ("script", "program"):
        pid = int((tmp_path / name).read_text())
        until(lambda pid=pid: read.process_started(pid) is None, of=f"the end of the {name}")  # type: ignore[misc]


def test_a_command_that_ends_in_its_own_way_at_a_spent_budget_was_stopped_by_it_all_the_same(tmp_path: Path) -> None:
    done = monitored("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done", settings=BUDGET)
    assert done.returncode == 0
    assert outcome(tmp_path) == ("end", "ended", "budget")
