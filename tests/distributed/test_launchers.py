"""Launchers other than torchrun, and which GPUs the ranks of a host use together."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_eco2ai import CarbonConfig
from hf_eco2ai.exchange import Exchange
from hf_eco2ai.launch import agree
from hf_eco2ai.ranks import Ranks
from tests.distributed import harness
from tests.distributed.harness import WATTS, Host, gpu_uuids, gpus, journals


def assert_measured_once(reports: dict[int, dict[str, Any]], runs: Path) -> None:
    assert [len(reports[rank]["opened"]) for rank in sorted(reports)] == [1, *[0] * (len(reports) - 1)]
    snapshot = reports[0]["snapshot"]
    [kept] = [one for one in journals(runs) if one.header.run.run_id == snapshot["run_id"]]
    assert kept.header.process.pid == reports[0]["pid"]
    assert snapshot["joules"] == pytest.approx(kept.line.used.joules, rel=1e-9)
    assert set(gpus(snapshot["attempt"])) == gpu_uuids(0, 1)
    for joules, seconds in gpus(snapshot["attempt"]).values():
        assert joules == pytest.approx(WATTS * seconds, rel=0.005)
    assert len({report["step"] for report in reports.values()}) == 1
    assert [report["warnings"] for report in reports.values()] == [[]] * len(reports)


def test_tasks_of_srun_that_each_see_one_gpu_as_their_first_are_still_one_host(library: Path, shared: Path) -> None:
    """`srun --gpus-per-task=1`: LOCAL_RANK is 0 in all, since each has one GPU, and only SLURM_LOCALID tells them apart."""
    folder = shared / "srun"
    plan = harness.write_plan(folder, {"name": "srun", "arguments": {"max_steps": 60}})
    port = harness.free_port()
    commands = []
    for task in (0, 1):
        slurm = {
            "SLURM_JOB_ID": "200505",
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": str(task),
            "SLURM_LOCALID": str(task),
            "SLURM_NTASKS": "2",
        }
        variables = {**slurm, **harness.rank_variables(task, 2, port, local=0)}
        commands.append((Host(), harness.plain(plan), harness.environment(library, folder / "runs", **variables)))
    reports = harness.succeed(folder, *commands)["srun"]
    assert_measured_once(reports, folder / "runs")
    [kept] = journals(folder / "runs")
    assert kept.header.job == "200505"


def test_accelerate_launch_is_measured_once(library: Path, shared: Path) -> None:
    folder = shared / "accelerate"
    plan = harness.write_plan(folder, {"name": "accelerate", "arguments": {"max_steps": 60}})
    command = ["accelerate", "launch", "--multi_gpu", "--num_machines=1", "--num_processes=2", "--mixed_precision=no"]
    command += ["--dynamo_backend=no", f"--main_process_port={harness.free_port()}", *harness.TRAIN, str(plan)]
    reports = harness.succeed(folder, (Host(), command, harness.environment(library, folder / "runs")))["accelerate"]
    assert sorted(reports) == [0, 1]
    assert_measured_once(reports, folder / "runs")


def exchanges(hosts: list[str], said: list[str]) -> list[Exchange]:
    """One for each rank, on a store of torch's own, as they are when all ranks have joined."""
    connect, patience = torch.distributed.TCPStore, timedelta(seconds=30)
    server = connect("127.0.0.1", 0, None, True, patience, False)
    found = []
    for rank, (host, uses) in enumerate(zip(hosts, said, strict=True)):
        store = connect("127.0.0.1", server.port, None, False, patience, False) if rank else server
        exchange = Exchange(store, rank=rank, world_size=len(hosts), host=host, measures=True, training="0", fail=pytest.fail)
        exchange.join(uses)
        found.append(exchange)
    return found


@pytest.mark.parametrize(
    ("said", "in_use"),
    [
        pytest.param(['["0,1,2,3", [0]]', '["0,1,2,3", [1]]'], "0,1", id="torchrun, all ranks see all GPUs"),
        pytest.param(['["6", [0]]', '["4", [0]]'], "6,4", id="each rank sees its own as its first"),
        pytest.param(["[null, [7]]", "[null, [2, 3]]"], "7,2,3", id="one of them spreads its model over two"),
        pytest.param(["[null, [0]]", "[null, []]"], None, id="one does not know, so none is left out"),
    ],
)
def test_the_gpus_in_use_are_those_that_the_ranks_of_the_same_host_name(said: list[str], in_use: str | None) -> None:
    first, _, third = exchanges(["a", "a", "b"], [*said, '["5", [0]]'])
    config = CarbonConfig(journal_enabled=False)
    here = agree(first, Ranks(0, 3, 0, ""), config, None)
    there = agree(third, Ranks(2, 3, 0, ""), config, None)
    assert here.gpus == in_use
    assert there.gpus == "5"
    beginning, followed = here.beginning, there.beginning
    assert (followed.run_id, followed.launch, followed.started_unix) == (
        beginning.run_id,
        beginning.launch,
        beginning.started_unix,
    )
