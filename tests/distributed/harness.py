"""Starts the ranks of a training as their launchers do, on this machine or on two made from it, and reads their reports."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import RunsFolder
from hf_eco2ai.journal.read import Here

ROOT = Path(__file__).parents[2]
TRAIN = ("-m", "tests.distributed.train")
WATTS = 300.0
"""Of each GPU of the stand-in driver."""

LONGEST_SECONDS = 240.0
"""Only what hangs takes so long; importing torch in four processes on two loaded cores does not."""

SURVIVES_SECONDS = 60.0
"""So long a process may outlive the first of its group that has ended."""


@dataclass(frozen=True)
class Host:
    """Where processes run: this machine, or one with a name and a network of its own."""

    name: str = ""
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    """The command that goes there."""


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it wrote."""

    status: int
    """As `subprocess` says it: -9 if it was killed."""
    log: str


Command = tuple[Host, list[str], dict[str, str]]
"""Where to run what, with which environment."""

Reports = dict[str, dict[int, dict[str, Any]]]
"""By training and rank."""


def environment(library: Path, runs: Path, **more: str) -> dict[str, str]:
    """A machine of eight GPUs, of which the first two are the job's, as the stand-in driver has them. Nothing of the caller's."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(runs),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "LD_LIBRARY_PATH": str(library.parent),
        "STANDIN_GPUS": "8",
        "STANDIN_WATTS": f"constant:{WATTS}",
        "STANDIN_COUNTER": "1",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "HF_ECO2AI_RUNS_DIR": str(runs),
        **more,
    }


def write_plan(folder: Path, *trainings: dict[str, Any]) -> Path:
    """What the ranks do. Each training has a `name`, and an output folder of its own."""
    folder.mkdir(exist_ok=True)
    file = folder / "plan.json"
    file.write_text(json.dumps([{"output": str(folder / f"output-{plan['name']}"), **plan} for plan in trainings]))
    return file


def torchrun(plan: Path, processes: int, *options: str) -> list[str]:
    """One node's launcher."""
    return ["torchrun", f"--nproc-per-node={processes}", *options, *TRAIN, str(plan)]


def plain(plan: Path) -> list[str]:
    """One rank without a launcher: the environment says which."""
    return [sys.executable, *TRAIN, str(plan)]


def rank_variables(rank: int, world: int, port: int, local: int | None = None) -> dict[str, str]:
    """What a launcher would set."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank if local is None else local),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Only one process at a time; the others wait."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(folder: Path, commands: Sequence[Command]) -> list[Ended]:
    """Run them beside each other, and beside no other ranks, until the last has ended.

    Whatever happens, none is left behind.
    """
    with locked(folder.parent / "ranks.lock"):
        return _run(folder, commands)


def _run(folder: Path, commands: Sequence[Command]) -> list[Ended]:
    logs = [folder / f"process-{number}.log" for number in range(len(commands))]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for log, (host, command, variables) in zip(logs, commands, strict=True):
            with log.open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [*host.prefix, *command],
                        cwd=folder,
                        env=variables,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        by_themselves = _wait(processes)
    finally:
        for process in processes:
            _end(process)
    said = [log.read_text(errors="replace") for log in logs]
    assert by_themselves, "a process has not ended:\n" + "\n".join(text[-6000:] for text in said)
    return [Ended(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether all have ended in time."""
    deadline = time.monotonic() + LONGEST_SECONDS
    one_has_ended = False
    while time.monotonic() < deadline:
        ended = [process.poll() is not None for process in processes]
        if all(ended):
            return True
        if any(ended) and not one_has_ended:
            one_has_ended, deadline = True, time.monotonic() + SURVIVES_SECONDS
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """With the process all that it has started: it leads a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def succeed(folder: Path, *commands: Command) -> Reports:
    """The reports of ranks that all end as they should."""
    for ended in run(folder, commands):
        assert ended.status == 0, ended.log[-8000:]
    return reports(folder)


def reports(folder: Path) -> Reports:
    found: Reports = {}
    for file in sorted(folder.glob("*.*.json")):
        name, rank = file.name.split(".")[:2]
        found.setdefault(name, {})[int(rank)] = json.loads(file.read_text())
    return found


# Two hosts


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """node-a and node-b, each with a network and a name of its own, joined by a cable. They share the kernel and its boot ID."""
    names = [f"eco2ai-{os.getpid()}-{letter}" for letter in "ab"]
    cable = [f"ec{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", "name", cable[1], "netns", names[1])
        hosts = []
        for number, (name, end) in enumerate(zip(names, cable, strict=True)):
            address = f"10.83.0.{number + 1}"
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            in_network = ("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={end}", f"TP_SOCKET_IFNAME={end}")
            hosts.append(Host(f"node-{'ab'[number]}", address, (*in_network, *named(f"node-{'ab'[number]}"))))
        yield hosts[0], hosts[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def named(name: str) -> tuple[str, ...]:
    """The command that gives what follows a host name of its own."""
    return ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name)


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise AssertionError("these tests make two hosts of network namespaces, which needs the command ip (iproute2)") from None
    assert done.returncode == 0, (
        f"these tests make two hosts of network namespaces, which needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): "
        f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    )


# What is known of a run


def gpus(totals: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Joules and observed seconds of each GPU."""
    return {uuid: (joules, seconds) for uuid, (component, joules, seconds) in totals["devices"].items() if component == "gpu"}


def gpu_uuids(*numbers: int) -> set[str]:
    """As standin.c names them."""
    return {f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in numbers}


@dataclass(frozen=True)
class Kept:
    """A journal: its header and its last line."""

    path: Path
    header: lines.Header
    line: lines.Totals


def journals(folder: Path) -> list[Kept]:
    """All journals of a runs folder, by host."""
    found = RunsFolder(folder, Here.now(socket.gethostname())).attempts()
    kept = [Kept(attempt.path, attempt.header, attempt.line) for attempt in found if attempt.line is not None]
    return sorted(kept, key=lambda one: (one.header.host, one.header.at_unix))
