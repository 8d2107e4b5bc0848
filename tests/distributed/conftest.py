"""The trainings that the tests of this folder look at. Each group of ranks is started once, since importing torch costs most."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import harness
from tests.distributed.harness import Command, Host, Reports

STOP = {"budget_action": "stop"}
ENOUGH = {"energy_budget_kwh": 1.0}


@dataclass(frozen=True)
class Group:
    """What ranks have left: their reports, and the folders they wrote to."""

    folder: Path
    reports: Reports

    def runs(self, host: str = "") -> Path:
        """Where the journals of a host are."""
        return self.folder / f"runs{host}"

    def output(self, training: str) -> Path:
        return self.folder / f"output-{training}"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pytest-xdist's workers have in common.

    They take turns in it. (The mark `xdist_group` would keep these tests on one worker, but with pytest 9.2 it has no effect:
    https://github.com/pytest-dev/pytest-xdist/issues/1386.)
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "distributed"
    folder.mkdir(exist_ok=True)
    return folder


def group(folder: Path, commands: Callable[[], list[Command]]) -> Group:
    """What these ranks leave in that folder; they run unless another worker has run them already."""
    with harness.locked(folder.with_suffix(".lock")):
        done = folder / "done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            harness.succeed(folder, *commands())
            done.touch()
    return Group(folder, harness.reports(folder))


@pytest.fixture(scope="session")
def two_ranks(library: Path, shared: Path) -> Group:
    """torchrun with two processes: stopped by its budget, resumed with a larger one, and one training without and with us."""
    folder = shared / "two-ranks"
    same: dict[str, Any] = {"max_steps": 40, "logging_steps": 1}

    def commands() -> list[Command]:
        plan = harness.write_plan(
            folder,
            {"name": "stopped", "settings": {**STOP, "energy_budget_kwh": 0.0003}, "arguments": {"max_steps": 50_000}},
            {"name": "resumed", "settings": {**STOP, **ENOUGH}, "resume": str(folder / "output-stopped"), "more_steps": 30},
            {"name": "without", "with_callback": [], "arguments": same},
            {"name": "with", "settings": {**STOP, **ENOUGH}, "arguments": same},
        )
        return [(Host(), harness.torchrun(plan, 2, "--standalone"), harness.environment(library, folder / "runs"))]

    return group(folder, commands)


@pytest.fixture(scope="session")
def four_ranks(library: Path, shared: Path) -> Group:
    """torchrun with four processes: stopped, resumed, and as if each rank computed on a GPU of a machine with eight."""
    folder = shared / "four-ranks"

    def commands() -> list[Command]:
        plan = harness.write_plan(
            folder,
            {"name": "stopped", "settings": {**STOP, "energy_budget_kwh": 0.0003}, "arguments": {"max_steps": 50_000}},
            {"name": "resumed", "settings": {**STOP, **ENOUGH}, "resume": str(folder / "output-stopped"), "more_steps": 30},
            {"name": "cuda", "without": ["CUDA_VISIBLE_DEVICES"], "cuda": [5, 1, 3, 2], "arguments": {"max_steps": 60}},
        )
        return [(Host(), harness.torchrun(plan, 4, "--standalone"), harness.environment(library, folder / "runs"))]

    return group(folder, commands)


@pytest.fixture(scope="session")
def two_hosts(library: Path, shared: Path) -> Group:
    """torchrun on two hosts, two processes each: with a runs folder for each host, with one for both, and as namesakes."""
    folder = shared / "two-hosts"

    def commands(hosts: tuple[Host, Host]) -> list[Command]:
        settings = {**STOP, "energy_budget_kwh": 0.0004}
        plan = harness.write_plan(
            folder,
            {"name": "apart", "settings": settings, "arguments": {"max_steps": 50_000}},
            {
                "name": "together",
                "settings": {**settings, "runs_dir": str(folder / "runs-shared")},
                "arguments": {"max_steps": 50_000},
            },
            {
                "name": "namesakes",
                "hostname": "node",
                "settings": {"runs_dir": str(folder / "runs-namesakes")},
                "arguments": {"max_steps": 60},
            },
        )
        found: list[Command] = []
        for number, host in enumerate(hosts):
            where = ["--nnodes=2", f"--node-rank={number}", f"--master-addr={hosts[0].address}", "--master-port=29511"]
            environment = harness.environment(library, folder / f"runs-{host.name}")
            found.append((host, harness.torchrun(plan, 2, *where), environment))
        return found

    with harness.two_hosts() as hosts:
        return group(folder, lambda: commands(hosts))


@pytest.fixture(scope="session")
def third_host(two_ranks: Group, two_hosts: Group, library: Path, shared: Path) -> Group:
    """One process on node-c, at last called node-a, goes on with what others began, without their journals and with them."""
    folder = shared / "third-host"

    def training(name: str, output: Path, runs: Path, **more: str) -> dict[str, Any]:
        return {"name": name, "resume": str(output), "settings": {"runs_dir": str(runs)}, "more_steps": 60, **more}

    def commands() -> list[Command]:
        copied = folder / "runs-copied"
        copied.mkdir()
        for name in ("-node-a", "-node-b"):
            for file in two_hosts.runs(name).glob("*.ndjson"):
                shutil.copy2(file, copied)
        two = two_hosts.output("apart")
        plan = harness.write_plan(
            folder,
            training("from-one", two_ranks.output("stopped"), folder / "runs-1"),
            training("from-two", two, folder / "runs-2"),
            training("with-journals", two, copied),
            training("back", two, folder / "runs-3", hostname="node-a"),
        )
        host = Host("node-c", prefix=harness.named("node-c"))
        return [(host, harness.plain(plan), harness.environment(library, folder / "runs"))]

    return group(folder, commands)
