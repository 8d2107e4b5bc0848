"""Ranks that are killed, and ranks without the callback: training ends as it would without us, and nobody waits for ever."""

from pathlib import Path

import pytest

from hf_eco2ai.journal.folder import RunsFolder
from hf_eco2ai.journal.read import Here
from tests.distributed import harness
from tests.distributed.conftest import STOP
from tests.distributed.harness import Ended, Host


def two_plain_ranks(folder: Path, library: Path, plan: Path, **variables: str) -> list[Ended]:
    """Without an agent that would end the one when the other dies."""
    port = harness.free_port()
    environments = [harness.environment(library, folder / "runs", **harness.rank_variables(rank, 2, port)) for rank in (0, 1)]
    return harness.run(folder, [(Host(), harness.plain(plan), {**environment, **variables}) for environment in environments])


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_makes_the_other_fail_by_its_own_error_and_not_hang_in_ours(
    library: Path, shared: Path, killed: int
) -> None:
    folder = shared / f"killed-{killed}"
    settings = {**STOP, "energy_budget_kwh": 1.0}
    plan = harness.write_plan(
        folder, {"name": "killed", "killed": killed, "settings": settings, "arguments": {"max_steps": 50_000}}
    )
    ended = two_plain_ranks(folder, library, plan)
    survivor = 1 - killed
    assert ended[killed].status == -9
    assert ended[survivor].status == 1, ended[survivor].log[-4000:]
    assert "Timeout (0:00:45)!" not in ended[survivor].log  # As faulthandler says where a training hangs.
    report = harness.reports(folder)["killed"][survivor]
    assert "RuntimeError" in report["error"]
    assert "gloo" in report["error"]
    assert 20 <= report["step"] < 50_000
    [attempt] = RunsFolder(folder / "runs", Here.now(report["host"])).attempts()
    assert attempt.header.leads
    assert attempt.line is not None
    if killed == 1:
        assert (attempt.state, attempt.line.end_reason) == ("failed", "exception")
    else:
        assert (attempt.state, attempt.line.end_reason) == ("lost", "")
        assert attempt.line.used.joules > 0
    assert len(report["warnings"]) <= 1  # That the store is gone, where the survivor has asked it after that.


def test_with_the_callback_on_rank_0_alone_nothing_stops_and_nobody_waits(library: Path, shared: Path) -> None:
    folder = shared / "rank-0-alone"
    # 18 s at least: the warning comes when the others have been missing for 10 s, at the next check point, some 3 s later.
    training = {"max_steps": 180}
    settings = {**STOP, "energy_budget_kwh": 1e-5}
    plan = harness.write_plan(
        folder, {"name": "alone", "with_callback": [0], "pace": 0.1, "settings": settings, "arguments": training}
    )
    for ended in two_plain_ranks(folder, library, plan):
        assert ended.status == 0, ended.log[-4000:]
    reports = harness.reports(folder)["alone"]
    assert [reports[rank]["step"] for rank in (0, 1)] == [180, 180]
    assert reports[0]["snapshot"]["end_reason"] == "completed"
    assert reports[0]["snapshot"]["kwh"] > 1e-5
    [warning] = [message for message in reports[0]["warnings"] if "% of the energy budget" not in message]
    assert warning.startswith("The budget is used up, but training is not stopped: not every rank takes part in the decision")
    assert reports[1]["warnings"] == []
